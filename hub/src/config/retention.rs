//! How long tombstones are kept.

use lockstep_engine::Millis;
use lockstep_engine::retention::{GRACE_MS, Limits};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadConfig;
use super::archive::bad;

const DAY: Millis = 24 * 3_600_000;
/// Units of a span, the largest first.
const UNITS: [(&str, Millis); 4] = [("d", DAY), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Limits of the archive. Each of them may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Time since the deletion, as in `90d`.
    pub max_age: Option<Span>,
    /// Newest tombstones of one object that stay.
    pub max_versions: Option<u32>,
    /// Bytes of all files together; the oldest go first.
    pub max_bytes: Option<u64>,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { max_age: Some(Span(90 * DAY)), max_versions: None, max_bytes: None }
    }
}

impl RetentionConfig {
    /// What holds for every tombstone of which nothing else says more.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { max_age: self.max_age.map(|span| span.0), max_versions: self.max_versions }
    }

    /// Refuses what would empty the archive.
    pub(super) fn validate(&self) -> Result<(), BadConfig> {
        let Self { max_age, max_versions, max_bytes } = self;
        if max_age.is_some_and(|age| age.0 < GRACE_MS) {
            let why = "it is less than an hour, for which every tombstone stays";
            return Err(bad("archive.retention.max_age", why, "set 1h or more, or null for no limit"));
        }
        let zero = [
            ("archive.retention.max_versions", *max_versions == Some(0)),
            ("archive.retention.max_bytes", *max_bytes == Some(0)),
        ];
        match zero.into_iter().find(|(_, zero)| *zero) {
            Some((setting, _)) => Err(bad(setting, "it is 0", "set 1 or more, or null for no limit")),
            None => Ok(()),
        }
    }
}

/// A span of time, written as `90d`, `12h`, `30m` or `10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Millis);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (unit, ms) = UNITS.iter().find(|(_, ms)| self.0 % ms == 0).unwrap_or(&UNITS[3]);
        serializer.collect_str(&format_args!("{}{unit}", self.0 / ms))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = UNITS.iter().find_map(|(unit, ms)| {
            let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Self(Millis::from(number) * ms))
        });
        read.ok_or_else(|| serde::de::Error::custom("not a span of time, as in 90d, 12h, 30m or 10s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_they_are_read() {
        for (text, ms) in [("90d", 90 * DAY), ("36h", 36 * 3_600_000), ("5m", 300_000), ("10s", 10_000)] {
            let span: Span = serde_json::from_value(text.into()).unwrap();
            assert_eq!(span, Span(ms));
            assert_eq!(serde_json::to_value(span).unwrap(), text);
        }
        for bad in ["", "d", "90", "-1d", "1w", "1.5h", "99999999999d"] {
            assert!(serde_json::from_value::<Span>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_that_keep_nothing_are_refused() {
        RetentionConfig::default().validate().unwrap();
        let none = RetentionConfig { max_age: None, max_versions: None, max_bytes: None };
        none.validate().unwrap();
        for (config, setting) in [
            (RetentionConfig { max_age: Some(Span(1)), ..none }, "max_age"),
            (RetentionConfig { max_versions: Some(0), ..none }, "max_versions"),
            (RetentionConfig { max_bytes: Some(0), ..none }, "max_bytes"),
        ] {
            assert!(config.validate().unwrap_err().setting().ends_with(setting));
        }
    }
}
