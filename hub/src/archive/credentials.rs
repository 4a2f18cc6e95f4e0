//! Keys out of a shared credentials file: the one link of S3's usual chain that `object_store` lacks.

use std::path::{Path, PathBuf};

use object_store::aws::AwsCredential;

/// What names keys elsewhere, and comes first in the chain.
const EARLIER: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// The keys of a file: of the one that is named, or of the usual one where the environment names no
/// others. None: there is no such file, and the chain goes on.
///
/// # Errors
/// When a file or profile that was asked for is not there, or lacks a key. Never quotes the file.
pub(super) fn of_file(named: Option<&Path>, profile: Option<&str>) -> Result<Option<AwsCredential>, String> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if named.is_none() && EARLIER.into_iter().any(|name| variable(name).is_some()) {
        return Ok(None);
    }
    let usual = || {
        let shared = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        shared.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".aws/credentials")))
    };
    let Some(path) = named.map(Path::to_owned).or_else(usual) else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
        Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
    };
    let variable = variable("AWS_PROFILE").and_then(|value| value.into_string().ok());
    let asked = profile.map(str::to_owned).or(variable);
    let found = section(&text, asked.as_deref().unwrap_or("default"));
    match found {
        Some(credential) => Ok(Some(credential)),
        None if named.is_none() && asked.is_none() => Ok(None),
        None => Err(format!(
            "{} has no profile `{}` with aws_access_key_id and aws_secret_access_key",
            path.display(),
            asked.as_deref().unwrap_or("default")
        )),
    }
}

/// The keys of one `[section]`.
fn section(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut here, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            here = name.0.trim() == profile;
        } else if let (true, Some((key, value))) = (here, line.split_once('=')) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match key.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: id?, secret_key: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[default]\naws_access_key_id = a\naws_secret_access_key=b=\n\n[ other ]\n\
        aws_access_key_id=c\naws_secret_access_key = canary\naws_session_token = t\nregion = x\n[half]\n\
        aws_access_key_id = d\n";

    #[test]
    fn keys_come_from_the_profile_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, FILE).unwrap();
        let default = of_file(Some(&path), Some("default")).unwrap().unwrap();
        assert_eq!((&*default.key_id, &*default.secret_key, default.token), ("a", "b=", None));
        let other = of_file(Some(&path), Some("other")).unwrap().unwrap();
        assert_eq!((&*other.key_id, other.token.as_deref()), ("c", Some("t")));
        for profile in ["half", "none"] {
            let why = of_file(Some(&path), Some(profile)).unwrap_err();
            assert!(why.contains(profile) && !why.contains("canary"), "{why}");
        }
        let why = of_file(Some(&dir.path().join("missing")), None).unwrap_err();
        assert!(why.contains("missing"), "{why}");
    }
}
