//! Where the binaries come from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::process::dying_with_parent;

/// A directory that holds `etcd`, `kube-apiserver`, `kube-controller-manager` and `kubectl`.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
    version: (u32, u32),
    version_text: String,
    /// etcd 3.4 and newer can leave out fsync; a test's data need not survive a power cut.
    pub(crate) etcd_unsafe_no_fsync: bool,
}

impl Binaries {
    /// Finds them, or builds them once (minutes, with progress on standard error): see `testbed/build-kubernetes.sh`.
    ///
    /// # Errors
    /// If they can neither be found nor built; the script has told why on standard error.
    pub fn locate_or_build() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/build-kubernetes.sh");
        let output = dying_with_parent("TERM", script.as_os_str())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("running setpriv (util-linux) to start build-kubernetes.sh")?;
        ensure!(output.status.success(), "no Kubernetes binaries: {} ({})", script.display(), output.status);
        let directory = String::from_utf8(output.stdout).context("the path of the binaries")?;
        Self::open(Path::new(directory.trim()))
    }

    /// Takes those in a directory.
    ///
    /// # Errors
    /// If one of them is missing or does not run.
    pub fn open(directory: &Path) -> Result<Self> {
        for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
            ensure!(directory.join(name).is_file(), "there is no {name} in {}", directory.display());
        }
        let version_text = output_of(&directory.join("kube-apiserver"), "--version")?;
        let version_text = version_text.trim().trim_start_matches("Kubernetes ").to_owned();
        let Some(version) = parse_version(&version_text) else {
            bail!("kube-apiserver tells a version that is not understood: {version_text:?}");
        };
        let etcd_unsafe_no_fsync = output_of(&directory.join("etcd"), "--help")?.contains("unsafe-no-fsync");
        Ok(Self { directory: directory.to_owned(), version, version_text, etcd_unsafe_no_fsync })
    }

    /// Major and minor version of Kubernetes, for tests whose expectations depend on it.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The whole version, like `v1.20.2`.
    #[must_use]
    pub fn version_text(&self) -> &str {
        &self.version_text
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn output_of(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    // etcd of some versions prints its help to standard error.
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
