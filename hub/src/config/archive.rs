//! Where tombstones are kept, a directory or a bucket of one of three protocols; under which keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BadConfig, RetentionConfig};

/// Where tombstones are kept: in one of these places; none of them named: in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// A directory; none: `archive` within the data directory.
    pub dir: Option<PathBuf>,
    /// A bucket of S3, or of what speaks its protocol.
    pub s3: Option<S3Config>,
    /// A bucket of Google Cloud Storage.
    pub gcs: Option<GcsConfig>,
    /// A container of Azure Blob Storage.
    pub azure: Option<AzureConfig>,
    /// File with the archive's keys, one a line: the first one writes, all of them read. None, here
    /// and in `keys`: a key derived from the hub's.
    pub keys_file: Option<PathBuf>,
    /// The same keys as text. From the environment only: a configuration file is for others to read.
    #[serde(skip_serializing)]
    pub keys: Option<KeysText>,
    /// What becomes of the values of Secrets.
    pub secrets: Secrets,
    /// How long tombstones are kept.
    pub retention: RetentionConfig,
}

/// Keys as text. Never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KeysText(String);

impl KeysText {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeysText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for KeysText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeysText(redacted)")
    }
}

/// What becomes of the values of Secrets in the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secrets {
    /// They lie there encrypted.
    #[default]
    Encrypted,
    /// They are left out: what a Secret was called, and which keys it had, is all that is kept.
    MetadataOnly,
    /// Whoever can read the archive can read them.
    Plaintext,
}

/// A bucket of S3. Keys come by the usual chain: environment, web identity, credentials file, the
/// machine's own role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// The bucket; it must exist.
    pub bucket: String,
    /// Everything lies below this; empty: at the top.
    pub prefix: String,
    /// Region; none: `AWS_REGION`, else the protocol's default, which most other servers take.
    pub region: Option<String>,
    /// URL of a server other than Amazon's. `http://` sends everything readable: for the same machine
    /// or a network that is trusted.
    pub endpoint: Option<String>,
    /// Put the bucket into the path, not into the host name: what most servers beside Amazon's need.
    pub path_style: bool,
    /// File with keys; none: `AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Section of that file; none: `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// PEM: certificates of authorities that sign the server's, beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A bucket of Google Cloud Storage. Keys come by `GOOGLE_*`, the application default credentials, or
/// the machine's own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcsConfig {
    /// The bucket; it must exist.
    pub bucket: String,
    /// Everything lies below this; empty: at the top.
    pub prefix: String,
    /// JSON key of a service account.
    pub service_account_file: Option<PathBuf>,
}

/// A container of Azure Blob Storage. Keys come by `AZURE_*`, workload identity, or the machine's own
/// identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container; it must exist.
    pub container: String,
    /// Everything lies below this; empty: at the top.
    pub prefix: String,
    /// URL of a server other than Azure's.
    pub endpoint: Option<String>,
}

impl ArchiveConfig {
    /// Refuses more than one place, and places that are not named.
    pub(super) fn validate(&self) -> Result<(), BadConfig> {
        let Self { dir, s3, gcs, azure, keys_file, keys, secrets: _, retention } = self;
        retention.validate()?;
        if keys_file.is_some() && keys.is_some() {
            return Err(bad("archive.keys", "there is an archive.keys_file too", "keep one of the two"));
        }
        let places = [dir.is_some(), s3.is_some(), gcs.is_some(), azure.is_some()];
        if places.into_iter().filter(|named| *named).count() > 1 {
            return Err(bad("archive", "it names several places", "keep one of dir, s3, gcs and azure"));
        }
        if let Some(S3Config { bucket, prefix, endpoint, .. }) = s3 {
            named("archive.s3.bucket", bucket)?;
            checked_prefix("archive.s3.prefix", prefix)?;
            url("archive.s3.endpoint", endpoint.as_deref())?;
        }
        if let Some(GcsConfig { bucket, prefix, service_account_file: _ }) = gcs {
            named("archive.gcs.bucket", bucket)?;
            checked_prefix("archive.gcs.prefix", prefix)?;
        }
        if let Some(AzureConfig { account, container, prefix, endpoint }) = azure {
            named("archive.azure.account", account)?;
            named("archive.azure.container", container)?;
            checked_prefix("archive.azure.prefix", prefix)?;
            url("archive.azure.endpoint", endpoint.as_deref())?;
        }
        Ok(())
    }

    /// Does a bucket hold it?
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        self.s3.is_some() || self.gcs.is_some() || self.azure.is_some()
    }
}

pub(super) fn bad(setting: &'static str, why: &str, remedy: &'static str) -> BadConfig {
    BadConfig::Setting { setting, why: why.to_owned(), remedy }
}

fn named(setting: &'static str, value: &str) -> Result<(), BadConfig> {
    if value.is_empty() { Err(bad(setting, "it is missing", "name it")) } else { Ok(()) }
}

/// Parts that `object_store` would encode, or that a directory would read as another one, are refused:
/// what is written under a prefix must be found under it.
fn checked_prefix(setting: &'static str, prefix: &str) -> Result<(), BadConfig> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    if prefix.is_empty() || prefix.split('/').all(part) {
        return Ok(());
    }
    let why = "it is not a path of letters, digits, `-`, `_` and `.`, with single `/` between";
    Err(bad(setting, why, "write it as in lockstep/prod, without a `/` at either end"))
}

fn url(setting: &'static str, url: Option<&str>) -> Result<(), BadConfig> {
    let Some(url) = url else { return Ok(()) };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_some_and(|host| !host.is_empty() && !host.contains('@')) {
        return Ok(());
    }
    Err(bad(setting, "it is not a URL of http or https without a password", "write https://host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;

    fn refused(archive: ArchiveConfig) -> String {
        let error = HubConfig { archive, ..HubConfig::default() }.validate().unwrap_err().to_string();
        assert!(error.starts_with("LS0263: archive"), "{error}");
        error
    }

    #[test]
    fn one_place_that_is_named() {
        let s3 = S3Config { bucket: "b".into(), prefix: "a/b".into(), ..S3Config::default() };
        let good = ArchiveConfig { s3: Some(s3.clone()), ..ArchiveConfig::default() };
        good.validate().unwrap();
        assert!(refused(ArchiveConfig { dir: Some("/x".into()), ..good.clone() }).contains("several"));
        let with = |s3| ArchiveConfig { s3: Some(s3), ..ArchiveConfig::default() };
        assert!(refused(with(S3Config { bucket: String::new(), ..s3.clone() })).contains("s3.bucket"));
        for prefix in ["/a", "a/", "a//b", "..", "a/../b", "a b", "%41", "\u{e4}"] {
            assert!(refused(with(S3Config { prefix: prefix.into(), ..s3.clone() })).contains("s3.prefix"));
        }
        for endpoint in ["host:9000", "ftp://x", "https://", "https://user:canary@x"] {
            let error = refused(with(S3Config { endpoint: Some(endpoint.into()), ..s3.clone() }));
            assert!(error.contains("s3.endpoint") && !error.contains("canary"), "{error}");
        }
        let azure = AzureConfig { account: "a".into(), ..AzureConfig::default() };
        let azure = ArchiveConfig { azure: Some(azure), ..ArchiveConfig::default() };
        assert!(refused(azure).contains("azure.container"));
    }
}
