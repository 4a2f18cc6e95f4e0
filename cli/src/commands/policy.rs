//! `lockstep policy lint`, and the reading of policy files for it.

use std::path::{Path, PathBuf};

use lockstep_hub::http::types::{Finding, List};
use lockstep_policies::{LoadedFile, PolicySet, load};

use super::status;
use crate::args::{PolicyArgs, PolicyCommand};
use crate::error::{CliError, Outcome};
use crate::output::Out;

/// Endings of policy files.
const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Lints.
pub(crate) fn run(args: PolicyArgs) -> Result<Outcome, CliError> {
    let PolicyCommand::Lint { paths, output } = args.command;
    let out = Out::new(output.output);
    let files = read(&paths)?;
    let outcome = load(&PolicySet::default(), &files, None);
    let list = List::new("FindingList", outcome.findings);
    if out.structured() {
        out.text(&out.encode(&list)?)?;
    } else if out.format == crate::args::Format::Name {
        let mut names: Vec<&str> = list.items.iter().map(|finding| finding.file.as_str()).collect();
        names.dedup();
        for name in names {
            out.line(&crate::output::plain(name))?;
        }
    } else {
        status::print_findings(&out, &list.items)?;
        if list.items.is_empty() {
            out.line(&format!("{} files, {} policies, nothing to mend", files.len(), outcome.set.len()))?;
        }
    }
    Ok(if list.items.is_empty() { Outcome::Done } else { Outcome::Findings })
}

/// What is wrong with the policies of a directory or some files.
pub(crate) fn lint(paths: &[PathBuf]) -> Result<(PolicySet, Vec<Finding>), CliError> {
    let outcome = load(&PolicySet::default(), &read(paths)?, None);
    Ok((outcome.set, outcome.findings))
}

/// Reads files, and those of directories that end like policy files, in order.
fn read(paths: &[PathBuf]) -> Result<Vec<LoadedFile>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for entry in listing(path)? {
                files.push(load_file(&entry));
            }
        } else if path.exists() {
            files.push(load_file(path));
        } else {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(CliError::io(format!("{} cannot be read", path.display()), &missing));
        }
    }
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

fn listing(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let broken = |error: &std::io::Error| CliError::io(format!("{} cannot be listed", dir.display()), error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| broken(&error))? {
        let path = entry.map_err(|error| broken(&error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ending = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if ending && !hidden && path.is_file() {
            entries.push(path);
        }
    }
    entries.sort();
    Ok(entries)
}

fn load_file(path: &Path) -> LoadedFile {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    LoadedFile { path: path.display().to_string(), text }
}
