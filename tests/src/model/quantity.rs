//! Resource quantities in the form that API servers store: `1000m` is `1`, `1024Mi` is `1Gi`, `0.5` is `500m`.

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Quantities are counted in billionths.
const NANO: i128 = 1_000_000_000;

/// The canonical form; nothing when it is no quantity.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let digits = text.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    if number.is_empty() || number == "." || text.len() - digits.len() > 1 {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let sign = if text.starts_with('-') { "-" } else { "" };
    let form = if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        let nano = scaled(mantissa.checked_mul(1 << shift)?, 9 - places)?;
        binary(nano)
    } else if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        decimal(scaled(mantissa, 9 - places + exponent)?)
    } else {
        let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        exponential(scaled(mantissa, 9 - places + exponent)?)
    };
    Some(if form == "0" { form } else { format!("{sign}{form}") })
}

/// Times a power of ten, rounded up.
fn scaled(value: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 { value.checked_mul(power) } else { Some((value + power - 1) / power) }
}

/// The largest suffix that leaves a whole number.
fn decimal(nano: i128) -> String {
    if nano == 0 {
        return "0".to_owned();
    }
    for (suffix, exponent) in DECIMAL.iter().rev() {
        let unit = 10_i128.pow(u32::try_from(exponent + 9).unwrap_or(0));
        if nano % unit == 0 {
            return format!("{}{suffix}", nano / unit);
        }
    }
    format!("{nano}n")
}

fn binary(nano: i128) -> String {
    // Fractions, and what is small, is written in decimal.
    if nano % NANO != 0 || nano / NANO < 1024 {
        return decimal(nano);
    }
    let value = nano / NANO;
    for (suffix, shift) in BINARY.iter().rev() {
        if value % (1 << shift) == 0 {
            return format!("{}{suffix}", value >> shift);
        }
    }
    value.to_string()
}

fn exponential(nano: i128) -> String {
    if nano == 0 {
        return "0".to_owned();
    }
    let mut exponent = -9;
    let mut value = nano;
    while value % 1000 == 0 {
        value /= 1000;
        exponent += 3;
    }
    if exponent == 0 { value.to_string() } else { format!("{value}e{exponent}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_write_quantities_their_way() {
        for (text, expected) in [
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("100m", "100m"),
            ("2000", "2k"),
            ("0", "0"),
            ("0Gi", "0"),
            ("1500Mi", "1500Mi"),
            ("-1.5", "-1500m"),
            ("1e3", "1e3"),
            ("10", "10"),
            ("512", "512"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["x", "", "1.2.3", "1Q", "--1"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
