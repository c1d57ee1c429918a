//! Quantities of resources (`250m`, `1.5`, `64Mi`), which are compared and not only read.

use serde_json::Value;

/// A quantity in billionths, the finest that Kubernetes keeps; `None` if it is none, or too large for this.
pub(super) fn nanos(quantity: &Value) -> Option<i128> {
    let text = text(quantity);
    let (sign, unsigned): (i128, &str) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (twos, tens) = powers(suffix)?;
    let value = digits.checked_mul(1 << twos)?;
    let tens = tens.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scale = 10_i128.checked_pow(tens.unsigned_abs())?;
    // What is finer than a billionth is rounded up.
    Some(sign * if tens < 0 { value / scale + i128::from(value % scale != 0) } else { value.checked_mul(scale)? })
}

/// Of two and of ten, what a suffix multiplies by.
fn powers(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// A quantity as it is told of; it may be written as a number.
pub(super) fn text(quantity: &Value) -> String {
    quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_of_one_amount_are_equal() {
        const ONE: i128 = 1_000_000_000;
        for (quantity, expected) in [
            (json!("1"), Some(ONE)),
            (json!("1000m"), Some(ONE)),
            (json!("0.25"), Some(ONE / 4)),
            (json!("-250m"), Some(-ONE / 4)),
            (json!("+1k"), Some(1000 * ONE)),
            (json!("1e3"), Some(1000 * ONE)),
            (json!("1E-3"), Some(ONE / 1000)),
            (json!("1Ki"), Some(1024 * ONE)),
            (json!("1.5Mi"), Some(1536 * 1024 * ONE)),
            (json!("1E"), Some(ONE * ONE * ONE)),
            (json!("8Ei"), Some((8_i128 << 60) * ONE)),
            (json!(65536), Some(65536 * ONE)),
            (json!(0.5), Some(ONE / 2)),
            (json!("0.1n"), Some(1)),
            (json!("1x"), None),
            (json!(""), None),
            (json!("1e99"), None),
        ] {
            assert_eq!(nanos(&quantity), expected, "{quantity}");
        }
    }
}
