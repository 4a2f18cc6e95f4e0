//! Error codes that people meet from the hub's parts. Each has a page in docs/errors.

/// One error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `LS02xx`; also the name of its page.
    pub code: &'static str,
    /// One line: what it means.
    pub title: &'static str,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

/// The codes of every part, in groups.
pub const CODES: &[&[Code]] = &[
    crate::store::sqlite::CODES,
    crate::backup::CODES,
    crate::space::CODES,
    crate::seal::CODES,
    crate::archive::CODES,
    crate::tls::CODES,
    crate::policies_dir::CODES,
    crate::listen::CODES,
    crate::http::CODES,
    crate::core::CODES,
    crate::restore::CODES,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_page_and_is_used_once() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let mut seen = BTreeSet::new();
        for Code { code, title } in CODES.iter().copied().flatten() {
            assert!(seen.insert(*code), "{code} is used twice");
            let number: u32 = code.strip_prefix("LS").unwrap().parse().unwrap();
            assert!((200..300).contains(&number), "{code} is outside of this crate's range");
            let page = std::fs::read_to_string(format!("{pages}/{code}.md"))
                .unwrap_or_else(|e| panic!("{code} ({title}) has no page in docs/errors: {e}"));
            assert!(
                page.starts_with(&format!("# {code}: {title}\n")),
                "the page of {code} has another title"
            );
            for part in ["## What it means", "## Example", "## How to mend it"] {
                assert!(page.contains(part), "the page of {code} lacks `{part}`");
            }
        }
    }
}
