//! The codes of errors in policy files. Each has a page in docs/errors.

/// The file cannot be read.
pub const UNREADABLE: &str = "LS0101";
/// The file is not YAML, or breaks a limit.
pub const NOT_YAML: &str = "LS0102";
/// A field that does not exist.
pub const UNKNOWN_FIELD: &str = "LS0103";
/// A value of the wrong type.
pub const WRONG_TYPE: &str = "LS0104";
/// A required field is missing.
pub const MISSING: &str = "LS0105";
/// Another apiVersion or kind.
pub const UNKNOWN_KIND: &str = "LS0106";
/// A name that is not one.
pub const BAD_NAME: &str = "LS0108";
/// A value that is none of the allowed ones.
pub const UNKNOWN_VALUE: &str = "LS0109";
/// Two policies of one name.
pub const DUPLICATE_POLICY: &str = "LS0110";
/// Something empty that would select nothing, or everything.
pub const EMPTY: &str = "LS0111";
/// The source is among the targets.
pub const SOURCE_IS_TARGET: &str = "LS0112";
/// One entry twice.
pub const DUPLICATE_ENTRY: &str = "LS0113";
/// A cluster that never registered.
pub const UNKNOWN_CLUSTER: &str = "LS0114";
/// A label selector that Kubernetes would refuse.
pub const BAD_SELECTOR: &str = "LS0115";
/// A wildcard kind.
pub const WILDCARD: &str = "LS0116";
/// A kind that is never synced.
pub const NEVER_SYNCED: &str = "LS0117";
/// A number out of range.
pub const OUT_OF_RANGE: &str = "LS0118";
/// Two fields that contradict each other.
pub const CONTRADICTION: &str = "LS0119";
/// A kind of another API group.
pub const WRONG_GROUP: &str = "LS0120";

/// A path to fields that cannot be read.
pub const BAD_PATH: &str = "LS0121";

/// A kind that is of no use in an archive.
pub const NEVER_ARCHIVED: &str = "LS0150";

/// Every code with its title.
pub const CODES: &[(&str, &str)] = &[
    (UNREADABLE, "the policy file cannot be read"),
    (NOT_YAML, "the policy file is not YAML, or breaks a limit"),
    (UNKNOWN_FIELD, "unknown field"),
    (WRONG_TYPE, "wrong type"),
    (MISSING, "a required field is missing"),
    (UNKNOWN_KIND, "unknown apiVersion or kind"),
    (BAD_NAME, "not a valid name"),
    (UNKNOWN_VALUE, "unknown value"),
    (DUPLICATE_POLICY, "two policies have one name"),
    (EMPTY, "an empty list, map or file"),
    (SOURCE_IS_TARGET, "the source is among the targets"),
    (DUPLICATE_ENTRY, "an entry is listed twice"),
    (UNKNOWN_CLUSTER, "unknown cluster"),
    (BAD_SELECTOR, "not a valid label selector"),
    (WILDCARD, "kinds must be named, not matched"),
    (NEVER_SYNCED, "a kind that is never synced"),
    (OUT_OF_RANGE, "a number out of range"),
    (CONTRADICTION, "two fields contradict each other"),
    (WRONG_GROUP, "the kind belongs to another API group"),
    (BAD_PATH, "not a path to fields"),
    (NEVER_ARCHIVED, "a kind that is never archived"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CODES;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let found: BTreeSet<String> = std::fs::read_dir(pages)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".md").map(str::to_owned))
            .filter(|name| name.starts_with("LS01"))
            .collect();
        let codes: BTreeSet<String> = CODES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert_eq!(found, codes);
        assert_eq!(codes.len(), CODES.len(), "no code twice");
    }
}
