//! Time: the one place that reads the clock, and RFC 3339 as API servers write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_engine::Millis;

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Microseconds, as far as the wire carries them (71 minutes).
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// `2026-01-31T08:05:09Z`, with or without a fraction, in UTC: metadata timestamps are written so.
/// None for anything else.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Millis> {
    let (date, rest) = text.split_once('T')?;
    let time = rest.strip_suffix('Z')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range || !(1970..=9999).contains(&year) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms: String = fraction.chars().chain("000".chars()).take(3).collect();
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days(year, month, day) * MS_PER_DAY + seconds * 1_000 + ms.parse::<i64>().ok()?)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(separator)
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok()).flatten());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Days since 1970-01-01, by counting in years that begin in March ("days from civil").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_api_servers() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-11-21T03:36:07Z", Some(1_795_232_167_000)),
            ("2026-11-21T03:36:07.123456Z", Some(1_795_232_167_123)),
            ("2026-11-21T03:36:07+01:00", None),
            ("2026-13-21T03:36:07Z", None),
            ("2026-11-21", None),
            ("-1-1-1T0:0:0Z", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }
}
