//! RFC 3339 as API servers write it.

use crate::Millis;

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// `2026-01-31T08:05:09Z`, with or without a fraction, in UTC: metadata timestamps are written so.
/// None for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<Millis> {
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

/// `2026-01-31T08:05:09.123Z`.
#[must_use]
pub fn write(at: Millis) -> String {
    let (days, ms) = (at.div_euclid(MS_PER_DAY), at.rem_euclid(MS_PER_DAY));
    let (year, month, day) = date(days);
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// `2026-01-31T08:05:09Z`, as in metadata.
#[must_use]
pub fn write_seconds(at: Millis) -> String {
    let mut text = write(at);
    text.truncate(text.len() - ".000Z".len());
    text + "Z"
}

/// `2026-01-31T08:05:09.123000Z`: with microseconds, as Leases have it.
#[must_use]
pub fn write_micros(at: Millis) -> String {
    let mut text = write(at);
    text.truncate(text.len() - 1);
    text + "000Z"
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

/// The other way round ("civil from days").
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(write(1_795_232_167_123), "2026-11-21T03:36:07.123Z");
        assert_eq!(write_micros(1_795_232_167_123), "2026-11-21T03:36:07.123000Z");
        for day in 0..60_000 {
            let at = day * MS_PER_DAY + 86_399_999;
            assert_eq!(parse(&write(at)), Some(at), "{}", write(at));
        }
    }

    #[test]
    fn times_are_written_as_go_does() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_999, "2000-02-29T00:00:00.999Z"),
            (1_767_323_045_123, "2026-01-02T03:04:05.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(write(at), text);
            assert_eq!(write_seconds(at), format!("{}Z", &text[..19]));
        }
    }

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
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
