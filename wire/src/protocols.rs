//! Versions of the session protocol: which ones a build speaks, and which one two builds share.

use crate::{OLDEST_PROTOCOL, PROTOCOL};

/// The versions that one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Protocols {
    /// What this build speaks.
    pub const BUILT_IN: Self = Self { oldest: OLDEST_PROTOCOL, newest: PROTOCOL };

    /// Is this version spoken?
    #[must_use]
    pub fn contains(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// The newest version that both sides speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let version = self.newest.min(other.newest);
        (self.contains(version) && other.contains(version)).then_some(version)
    }
}

impl std::fmt::Display for Protocols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { oldest, newest } if oldest == newest => write!(f, "{newest}"),
            Self { oldest, newest } => write!(f, "{oldest} to {newest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak_is_used() {
        let speaks = |oldest, newest| Protocols { oldest, newest };
        assert_eq!(speaks(1, 2).common(speaks(1, 2)), Some(2));
        assert_eq!(speaks(2, 3).common(speaks(1, 2)), Some(2));
        assert_eq!(speaks(1, 2).common(speaks(2, 3)), Some(2));
        assert_eq!(speaks(3, 4).common(speaks(1, 2)), None);
        assert_eq!(speaks(1, 2).common(speaks(3, 4)), None);
        // A range that makes no sense is no range.
        assert_eq!(speaks(1, 2).common(speaks(9, 2)), None);
        assert_eq!(speaks(1, 2).common(speaks(0, 0)), None);
    }
}
