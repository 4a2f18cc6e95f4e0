//! Checks on this machine: configuration, key, disk, policy files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lockstep_hub::HubConfig;
use lockstep_policies::{PolicySet, Severity};

use super::Check;
use crate::args::ServerArgs;
use crate::commands::policy;
use crate::config::{self, Flags, Layers};
use crate::paths;

/// Below this the hub will soon stop: a warning.
const FREE_WARNING: u64 = 1 << 30;
/// Below this it may stop at any moment: a failure.
const FREE_FAILURE: u64 = 128 << 20;

/// The configuration files; gives the hub's, from the file or as `up` would have it.
pub(super) fn configuration(
    hub: Option<&Path>,
    agent: Option<&Path>,
    server: &ServerArgs,
    checks: &mut Vec<Check>,
) -> Option<HubConfig> {
    if let Some(file) = agent {
        let name = "agent configuration";
        match Layers::of_process(Some(file), Flags::default()).and_then(config::agent) {
            Ok(settings) => checks.push(Check::ok(
                name,
                format!("{} is valid, cluster {}", file.display(), settings.agent.cluster),
            )),
            Err(error) => checks.push(Check::error(name, &error)),
        }
    }
    let defaults = match hub {
        Some(_) => HubConfig::default(),
        None => {
            HubConfig { data_dir: paths::data_dir()?, key_file: paths::hub_key()?, ..HubConfig::default() }
        }
    };
    let flags = Flags::default().with("data_dir", server.data_dir.as_ref().map(|path| path.display()));
    match Layers::of_process(hub, flags).and_then(|layers| config::hub(&defaults, &layers)) {
        Ok(config) => {
            if let Some(file) = hub {
                checks.push(Check::ok("hub configuration", format!("{} is valid", file.display())));
            }
            Some(config)
        }
        Err(error) => {
            checks.push(Check::error("hub configuration", &error));
            None
        }
    }
}

/// Only its owner may read the key.
pub(super) fn key_file(file: &Path, checks: &mut Vec<Check>) {
    let (name, shown) = ("hub key", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            checks.push(Check::ok(name, format!("{shown} does not exist yet: the hub makes it")));
        }
        Err(error) => {
            let remedy = "run doctor as the hub's user";
            checks.push(Check::warning(name, format!("{shown} cannot be looked at: {error}"), remedy));
        }
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 == 0 {
                checks.push(Check::ok(name, format!("{shown} is readable by its owner only")));
            } else {
                let remedy = format!("chmod 600 {shown}; replace the key if this machine is shared");
                checks.push(Check::failure(
                    name,
                    format!("{shown} has mode {mode:04o}: others can read it"),
                    remedy,
                ));
            }
        }
    }
}

/// Free space below the data directory.
pub(super) fn disk(data_dir: &Path, checks: &mut Vec<Check>) {
    let name = "disk space";
    let existing = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(existing) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            checks.push(Check::warning(
                name,
                format!("{} cannot be asked: {error}", existing.display()),
                "check the mount",
            ));
            return;
        }
    };
    let message = format!("{} has {} MiB free", existing.display(), free >> 20);
    let remedy = "make room: with a full disk the hub takes nothing new (nothing is lost, agents wait)";
    checks.push(match free {
        ..FREE_FAILURE => Check::failure(name, message, remedy),
        FREE_FAILURE..FREE_WARNING => Check::warning(name, message, remedy),
        _ => Check::ok(name, message),
    });
}

/// Lints the policy files; gives the policies that are good.
pub(super) fn policies(dir: Option<PathBuf>, checks: &mut Vec<Check>) -> Option<PolicySet> {
    let dir = dir?;
    let name = "policies";
    match policy::lint(std::slice::from_ref(&dir)) {
        Err(error) => {
            checks.push(Check::error(name, &error));
            None
        }
        Ok((set, findings)) => {
            for finding in &findings {
                let message = finding.to_string();
                let message = message.trim_end_matches(&format!("; {}", finding.remedy)).to_owned();
                checks.push(match finding.severity {
                    Severity::Error => Check::failure(name, message, &finding.remedy),
                    Severity::Warning => Check::warning(name, message, &finding.remedy),
                });
            }
            if findings.is_empty() {
                checks.push(Check::ok(name, format!("{} in {}, nothing to mend", set.len(), dir.display())));
            }
            Some(set)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_key_that_others_can_read_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub-key");
        let mut checks = Vec::new();
        key_file(&file, &mut checks);
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        key_file(&file, &mut checks);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        key_file(&file, &mut checks);
        let verdicts: Vec<Verdict> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Failure, Verdict::Ok]);
        assert!(checks[1].remedy.starts_with("chmod 600"), "{:?}", checks[1]);
    }

    #[test]
    fn policies_are_linted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), "apiVersion: sync.k8s.io/v1\nkind: Nonsense\n").unwrap();
        let mut checks = Vec::new();
        assert!(policies(Some(dir.path().to_owned()), &mut checks).is_some());
        assert!(checks.iter().any(|check| check.verdict == Verdict::Failure), "{checks:?}");
    }
}
