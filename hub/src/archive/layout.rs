//! Where a tombstone lies:
//! `v1/<cluster name>-<short uid>/<group or core>/<kind>/<namespace or _cluster>/<name>/<uid>/<inverted time>-<rv>.yaml.zst`

use lockstep_engine::Uid;

use super::{ClusterRef, SEALED};
use crate::seal::unhex;
use crate::store::TombstoneRow;

/// Everything lies below it.
pub(super) const ROOT: &str = "v1";
/// Ends the name of a hold, which lies beside what it holds.
pub(super) const HOLD: &str = ".hold";
const PLAIN: &str = ".yaml.zst";
/// Place of the uid among the parts of a path.
const UID_PART: usize = 6;
const PARTS: usize = 8;
/// Stands where there is nothing to write.
const NONE: &str = "_none";
/// Milliseconds since the epoch are subtracted from this (the year 2286), so that the newest of an
/// object sorts first, in a directory and in a bucket's listing.
const END_OF_TIME: i64 = 9_999_999_999_999;
/// Characters of the cluster's uid: enough to tell clusters of one name apart.
const SHORT_UID: usize = 8;
/// Longer parts are cut and told apart by a digest: file systems take 255 bytes, and the last part
/// has an ending, and a staging suffix while it is written.
const MAX_PART: usize = 200;
/// What stays of a part that is cut.
const CUT_PART: usize = 150;

/// The path of a tombstone's file.
#[must_use]
pub fn path_of(cluster: &ClusterRef, row: &TombstoneRow, sealed: bool) -> String {
    let short_uid: String =
        cluster.uid.as_ref().map_or("", |uid| uid.as_str()).chars().take(SHORT_UID).collect();
    let key = &row.key;
    let or = |text: &str, instead: &str| {
        if text.is_empty() { instead.to_owned() } else { part(text) }
    };
    [
        ROOT.to_owned(),
        part(&format!("{}-{}", cluster.name, if short_uid.is_empty() { "unknown" } else { &short_uid })),
        or(&key.gk.group, "core"),
        or(&key.gk.kind, NONE),
        or(&key.namespace, "_cluster"),
        or(&key.name, NONE),
        or(row.uid.as_str(), NONE),
        format!(
            "{}{PLAIN}{}",
            part(&format!("{}-{}", inverted(row.deleted_at), row.resource_version)),
            if sealed { SEALED } else { "" }
        ),
    ]
    .join("/")
}

/// Is it the path of a tombstone's file?
pub(super) fn is_tombstone(path: &str) -> bool {
    path.strip_suffix(SEALED).unwrap_or(path).ends_with(PLAIN) && path.split('/').count() == PARTS
}

/// The path of the hold on a file.
pub(super) fn hold_of(path: &str) -> String {
    format!("{path}{HOLD}")
}

/// The uid of the object whose file it is; none where the path has only a part of it.
pub(super) fn uid_of(path: &str) -> Option<Uid> {
    let part = path.split('/').nth(UID_PART)?;
    if part == NONE {
        return Some(Uid::default());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        (bytes, rest) = match (byte, after.split_at_checked(2)) {
            (b'~', _) => return None,
            (b'%', Some((digits, after))) => {
                let [decoded] = unhex(std::str::from_utf8(digits).ok()?)?;
                bytes.push(decoded);
                (bytes, after)
            }
            _ => {
                bytes.push(*byte);
                (bytes, after)
            }
        };
    }
    String::from_utf8(bytes).ok().map(|uid| Uid::new(&uid))
}

/// 13 digits, the larger the older.
fn inverted(at: i64) -> String {
    format!("{:013}", END_OF_TIME - at.clamp(0, END_OF_TIME))
}

/// One part, percent-encoded: letters, digits, `-` and `.` stay, but not `.` and `..` alone; `_` and
/// `~` never come out of it otherwise, they are ours.
fn part(text: &str) -> String {
    use std::fmt::Write;
    let dots = text == "." || text == "..";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'.' && !dots) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() > MAX_PART {
        let digest = blake3::hash(text.as_bytes()).to_hex();
        out.truncate(CUT_PART);
        let _ = write!(out, "~{}", &digest[..32]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{key, tombstone};
    use lockstep_engine::{ClusterName, GroupKind, ObjectKey, ResourceVersion, Uid};
    use std::collections::BTreeSet;

    fn cluster() -> ClusterRef {
        let name = ClusterName::new("prod-eu-1").unwrap();
        ClusterRef { name, uid: Some(Uid::new("0d9f3a52-aaaa-bbbb")) }
    }

    #[test]
    fn paths_are_those_of_the_design() {
        let row = tombstone(1, key("Deployment", "shop", "web"), 1_767_323_045_123);
        assert_eq!(
            path_of(&cluster(), &row, false),
            "v1/prod-eu-1-0d9f3a52/apps/Deployment/shop/web/u/8232676954876-7.yaml.zst"
        );
        let row = tombstone(1, key("Secret", "shop", "web"), 1);
        assert!(path_of(&cluster(), &row, true).ends_with(".yaml.zst.sealed"));
        let gk = GroupKind::new("rbac.authorization.k8s.io", "ClusterRole");
        let row = tombstone(1, ObjectKey::new(gk, "", "system:node/x"), 1);
        let unknown = ClusterRef { uid: None, ..cluster() };
        assert_eq!(
            path_of(&unknown, &row, false),
            "v1/prod-eu-1-unknown/rbac.authorization.k8s.io/ClusterRole/_cluster/system%3Anode%2Fx/u/9999999999998-7.yaml.zst"
        );
    }

    #[test]
    fn the_newest_sorts_first() {
        let at = |at| path_of(&cluster(), &tombstone(1, key("ConfigMap", "n", "x"), at), false);
        assert!(at(2_000_000_000_000) < at(1_999_999_999_999));
        assert!(at(1_999_999_999_999) < at(-1) && at(i64::MAX) < at(0));
    }

    #[test]
    fn nothing_leaves_its_folder_and_different_names_differ() {
        let names = [
            ".",
            "..",
            "../x",
            "a/b",
            "a%2Fb",
            "_cluster",
            "_none",
            "core",
            "~",
            "\u{fc}",
            "A",
            "a",
            &"x".repeat(300),
            &format!("{}y", "x".repeat(299)),
            &":".repeat(100),
            "",
        ]
        .map(str::to_owned);
        let mut seen = BTreeSet::new();
        for namespace in &names {
            for name in &names {
                let gk = GroupKind::new("", "ConfigMap");
                let mut row = tombstone(1, ObjectKey::new(gk, namespace, name), 1);
                row.uid = Uid::new(name);
                row.resource_version = ResourceVersion::new(name);
                let path = path_of(&cluster(), &row, false);
                assert_eq!(path.split('/').count(), 8, "{path}");
                assert!(path.split('/').all(|p| p.len() <= 240 && !["", ".", ".."].contains(&p)), "{path}");
                assert!(object_store::path::Path::parse(&path).is_ok_and(|p| p.as_ref() == path), "{path}");
                assert!(seen.insert(path.clone()), "{path} twice");
                assert!(is_tombstone(&path) && !is_tombstone(&hold_of(&path)));
                assert!(uid_of(&path).is_none_or(|uid| uid == row.uid), "{path}");
                assert_eq!(uid_of(&path).is_none(), name.len() > 200 || name == &":".repeat(100), "{path}");
            }
        }
    }
}
