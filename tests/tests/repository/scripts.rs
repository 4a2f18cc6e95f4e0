//! No script ends without a message: each one sources `tests/report-errors.sh`, which says what failed and where.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::{files, root};

const HELPER: &str = "tests/report-errors.sh";

/// Every shell script of the repository: by its ending or by its first line.
fn scripts() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    files(&root(), "", &mut all)?;
    files(&root().join(".ci"), "", &mut all)?;
    let is_script = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        path.extension().is_some_and(|ending| ending == "sh")
            || first.starts_with("#!") && first.ends_with("sh")
    };
    Ok(all.into_iter().filter(is_script).collect())
}

/// The first line that does something, and every line that would undo what the helper sets.
fn check(path: &Path, text: &str) -> Result<()> {
    let code = |line: &&str| !line.is_empty() && !line.starts_with('#');
    if path.ends_with("tests/testbed/lib.sh") {
        // Sourced itself; it sets its own variables first.
        ensure!(text.contains("/../report-errors.sh\""), "it does not source {HELPER}");
    } else {
        ensure!(text.starts_with("#!/bin/bash\n"), "its first line is not #!/bin/bash, which {HELPER} needs");
        let mut lines = text.lines().map(str::trim).filter(code);
        let mut first = lines.next().context("it is empty")?;
        // Its own place, by which it finds the others.
        if first.starts_with("here=") {
            first = lines.next().context("it does nothing")?;
        }
        let sources = first.starts_with(". \"$")
            && (first.ends_with("report-errors.sh\"") || first.ends_with("/lib.sh\""));
        ensure!(sources, "it sources {HELPER} too late or not at all: {first}");
    }
    for line in text.lines().map(str::trim).filter(code) {
        let undoes = ["set +e", "set +E", "set +o pipefail", "shopt -u inherit_errexit"];
        ensure!(!undoes.iter().any(|undo| line.contains(undo)), "this line would hide a failure: {line}");
        let early =
            ["| head ", "| head\n", "| grep -q", "| grep -m"].iter().any(|reader| line.contains(reader));
        ensure!(!early, "the reader ends before the writer, who then fails by SIGPIPE now and then: {line}");
    }
    Ok(())
}

#[test]
fn every_script_says_what_failed() -> Result<()> {
    let found = scripts()?;
    for known in [".ci/run", "tests/demo.sh", "tests/guards.sh", "tests/fuzz/fuzz.sh", "tests/testbed/lib.sh"]
    {
        ensure!(found.iter().any(|path| path.ends_with(known)), "{known} was not found: {found:?}");
    }
    for path in found.iter().filter(|path| !path.ends_with(HELPER)) {
        let text = std::fs::read_to_string(path)?;
        check(path, &text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Runs a script that sources the helper and then has these lines, the first of them in line 3.
fn run(lines: &str) -> Result<Output> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.sh");
    std::fs::write(dir.path().join("log"), "first words\nlast words\n")?;
    let helper = std::fs::canonicalize(root().join(HELPER))?;
    std::fs::write(&script, format!("#!/bin/bash\n. \"{}\"\n{lines}\n", helper.display()))?;
    Ok(Command::new("bash").arg(&script).current_dir(dir.path()).output()?)
}

fn fails(lines: &str, status: i32, wanted: &[&str]) -> Result<()> {
    let output = run(lines)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "{} after:\n{lines}\n{error}", output.status);
    ensure!(!String::from_utf8_lossy(&output.stdout).contains("survived"), "it went on after:\n{lines}");
    for text in wanted {
        ensure!(error.contains(text), "no {text:?} after:\n{lines}\nbut:\n{error}");
    }
    Ok(())
}

#[test]
fn a_failure_names_line_command_and_status() -> Result<()> {
    fails(
        "f() {\n(exit 7)\n}\nf\necho survived",
        7,
        &["line 4: status 7", "(exit 7)", "called in", "line 6"],
    )?;
    // What made the demo end in silence.
    let silent = "true && connected=$(grep -o nothing /dev/null | wc -l)\necho survived";
    fails(silent, 1, &["line 3: status 1", silent.lines().next().unwrap_or_default()])?;
    fails("x=$(false; echo y)\necho survived", 1, &["line 3: status 1 from: false"])?;
    fails("f() { local x; x=$(false; echo y); }\nf\necho survived", 1, &["line 3: status 1", "line 4"])?;
    fails("(cd /nonexistent)\necho survived", 1, &["line 3: status 1 from: cd /nonexistent"])?;
    fails("grep nothing /dev/null | cat\necho survived", 1, &["grep nothing /dev/null | cat"])?;
    fails("echo $unset\necho survived", 1, &["line 3: unset: unbound variable"])?;
    fails("[ -n '' ] && echo", 1, &["script.sh ended with status 1"])?;
    fails("exit 3", 3, &["script.sh ended with status 3"])?;
    fails("die what is wrong", 1, &["error: what is wrong\n"])
}

#[test]
fn a_failure_shows_the_end_of_the_log_once() -> Result<()> {
    let output = run("FAILURE_LOG=log\nFAILURE_LOG_LINES=1\nx=$(false)")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.matches("last words").count() == 1 && !error.contains("first words"), "{error}");
    Ok(())
}

#[test]
fn what_cleans_up_runs_however_it_ends_and_keeps_the_status() -> Result<()> {
    for (end, status) in [("true", 0), ("false", 1), ("exit 3", 3), ("kill -TERM $$", 143)] {
        let output = run(&format!("f() {{ false; echo cleaned; }}\nON_EXIT=f\n{end}"))?;
        let out = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(status) && out == "cleaned\n",
            "{end}: {}: {out}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn what_is_no_failure_says_nothing() -> Result<()> {
    let output = run("if false; then :; fi\nfalse || true\n[ -n '' ] && echo\n! true || true")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.is_empty() && output.status.success(), "{}: {error}", output.status);
    Ok(())
}

#[test]
fn a_signal_is_named() -> Result<()> {
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let output = run(&format!("kill -{signal} $$\necho survived"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        let Some(code) = output.status.code() else { bail!("signal {:?}", output.status.signal()) };
        ensure!(code == status && error.contains(&format!("SIG{signal}")), "{code}: {error}");
    }
    Ok(())
}
