//! Ages and spans as kubectl writes them, and times of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// The clock, milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long ago: `5s`, `3m`, `2h`, `4d`; `-` where nothing is known.
#[must_use]
pub fn age(at_ms: Option<i64>, now_ms: i64) -> String {
    at_ms.map_or_else(|| "-".to_owned(), |at| span((now_ms - at).max(0)))
}

/// A span: `850ms`, `5s`, `3m10s`, `2h5m`, `4d`. Two units where the larger one is small.
#[must_use]
pub fn span(ms: i64) -> String {
    let seconds = ms / 1000;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if large < 10 && small > 0 {
            format!("{large}{large_unit}{small}{small_unit}")
        } else {
            format!("{large}{large_unit}")
        }
    };
    match seconds {
        ..1 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A moment as RFC 3339 in UTC, to the second.
#[must_use]
pub fn clock(at_ms: i64) -> String {
    let seconds = at_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3600, second % 3600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// Date of a day since the epoch (proleptic Gregorian; Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Milliseconds since the epoch of an RFC 3339 time in UTC, or of an HTTP `Date`.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    let parts: Vec<&str> =
        text.split([' ', '-', 'T', ':', 'Z', ',']).filter(|part| !part.is_empty()).collect();
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let number = |at: usize| parts.get(at).and_then(|part| part.parse::<i64>().ok());
    let (year, month, day, first) = match MONTHS.iter().position(|month| parts.get(2) == Some(month)) {
        Some(month) => (number(3)?, i64::try_from(month).ok()? + 1, number(1)?, 4),
        None => (number(0)?, number(1)?, number(2)?, 3),
    };
    let (h, m, s) = (number(first)?, number(first + 1)?, number(first + 2)?);
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let year_of_era = y.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some((days * 86_400 + h * 3600 + m * 60 + s) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_kubectl_writes_them() {
        for (ms, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (5_000, "5s"),
            (59_999, "59s"),
            (180_000, "3m"),
            (190_000, "3m10s"),
            (660_000, "11m"),
            (7_500_000, "2h5m"),
            (345_600_000, "4d"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(age(None, 5), "-");
        assert_eq!(age(Some(10_000), 5_000), "0ms", "clocks that disagree give no negative ages");
    }

    #[test]
    fn dates_survive() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_232_045_000, "2026-11-21T03:34:05Z"),
        ] {
            assert_eq!(clock(ms), text);
            assert_eq!(parse_date(text), Some(ms));
        }
        assert_eq!(parse_date("Sat, 21 Nov 2026 03:34:05 GMT"), Some(1_795_232_045_000));
        assert_eq!(parse_date("yesterday"), None);
    }
}
