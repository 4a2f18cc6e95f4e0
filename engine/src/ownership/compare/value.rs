//! Is it the same value, in the spelling of an API server?

use serde_json::Value;

use crate::catalogue::ValueType;

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// The smallest step of a quantity is a billionth; what is finer is rounded up.
const NANO_PLACES: i32 = 9;

/// Are two scalars one value? Where that cannot be told, they are not.
pub(super) fn is_same(one: &Value, other: &Value, of: ValueType) -> bool {
    if one == other {
        return true;
    }
    match (one, other, of) {
        (Value::Number(one), Value::Number(other), _) => {
            // Integers that are equal are equal above; of a float and an integer the values count.
            (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (Value::String(one), Value::String(other), ValueType::Bytes) => {
            // Decoders pass over line breaks, and over nothing else.
            let text = |text: &str| text.replace(['\r', '\n'], "");
            text(one) == text(other)
        }
        (Value::String(one), Value::String(other), ValueType::Time) => {
            let (one, other) = (seconds(one), seconds(other));
            one.is_some() && one == other
        }
        (_, _, ValueType::Quantity) => {
            let (one, other) = (quantity(one), quantity(other));
            one.is_some() && one == other
        }
        _ => false,
    }
}

/// A quantity in billionths; a number is as good as its text.
fn quantity(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => billionths(text),
        Value::Number(number) => billionths(&number.to_string()),
        _ => None,
    }
}

fn billionths(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let scaled = if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        scaled(mantissa.checked_mul(1 << shift)?, NANO_PLACES - places)?
    } else if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        scaled(mantissa, NANO_PLACES - places + exponent)?
    } else {
        let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        scaled(mantissa, (NANO_PLACES - places).checked_add(exponent)?)?
    };
    Some(if negative { -scaled } else { scaled })
}

/// Times a power of ten, rounded up.
fn scaled(value: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 { value.checked_mul(power) } else { Some((value.checked_add(power - 1)?) / power) }
}

/// Whole seconds of an instant, whatever its offset; a fraction goes, as API servers drop it.
fn seconds(text: &str) -> Option<i64> {
    let at = text.len().checked_sub("+00:00".len());
    let (local, offset) = match at.and_then(|at| text.split_at_checked(at)) {
        _ if text.ends_with('Z') => (text.strip_suffix('Z')?, 0),
        Some((local, offset)) => (local, minutes(offset)?),
        None => return None,
    };
    let whole = local.split_once('.').map_or(local, |(whole, _)| whole);
    Some(crate::rfc3339::parse(&format!("{whole}Z"))? / 1_000 - offset * 60)
}

/// `+02:00`.
fn minutes(offset: &str) -> Option<i64> {
    let (sign, rest) = offset.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let total = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    match sign {
        "+" => Some(total),
        "-" => Some(-total),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(of: ValueType, pairs: &[(Value, Value, bool)]) {
        for (one, other, same) in pairs {
            assert_eq!(is_same(one, other, of), *same, "{one} {other} as {of:?}");
            assert_eq!(is_same(other, one, of), *same, "{other} {one} as {of:?}");
        }
    }

    #[test]
    fn quantities_are_numbers_in_many_spellings() {
        let pairs = [
            (json!("1000m"), json!("1"), true),
            (json!("0.5"), json!("500m"), true),
            (json!(1), json!("1"), true),
            (json!(0.5), json!("500m"), true),
            (json!("1Gi"), json!("1024Mi"), true),
            (json!("1.5Gi"), json!("1536Mi"), true),
            (json!("1e3"), json!("1k"), true),
            (json!("1000M"), json!("1G"), true),
            (json!("0"), json!("0m"), true),
            (json!("-1"), json!("-1000m"), true),
            (json!("0.1n"), json!("1n"), true),
            (json!("1Gi"), json!("1G"), false),
            (json!("1"), json!("2"), false),
            (json!("1"), json!("-1"), false),
            (json!("one"), json!("1"), false),
            (json!("1e99"), json!("1e98"), false),
            (json!(""), json!("0"), false),
        ];
        check(ValueType::Quantity, &pairs);
        check(ValueType::Exact, &[(json!("1000m"), json!("1"), false), (json!(1), json!("1"), false)]);
    }

    #[test]
    fn numbers_are_equal_by_value_and_large_ones_to_the_last_digit() {
        let pairs = [
            (json!(1), json!(1.0), true),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64), false),
            (json!(u64::MAX), json!(u64::MAX - 1), false),
            (json!(5), json!("5"), false),
            (json!("5%"), json!(5), false),
        ];
        check(ValueType::Exact, &pairs);
    }

    #[test]
    fn bytes_and_times() {
        let pairs = [(json!("YWJj\r\n"), json!("YWJj"), true), (json!("YWJj"), json!("YWJk"), false)];
        check(ValueType::Bytes, &pairs);
        check(ValueType::Exact, &[(json!("YWJj\n"), json!("YWJj"), false)]);
        let pairs = [
            (json!("2026-01-02T03:04:05Z"), json!("2026-01-02T05:04:05.25+02:00"), true),
            (json!("2026-01-02T03:04:05.9Z"), json!("2026-01-02T03:04:05Z"), true),
            (json!("2026-01-02T03:04:05Z"), json!("2026-01-02T03:04:05-01:00"), false),
            (json!("then"), json!("2026-01-02T03:04:05Z"), false),
        ];
        check(ValueType::Time, &pairs);
    }
}
