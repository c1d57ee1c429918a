//! Kubernetes quantities (`500m`, `1`, `1.5k`) and Go durations (`1m30s`), as weights and timeouts are written.

use std::time::Duration;

use crate::objects::wire::NumberOrString;

/// A quantity in thousandths, rounded up as Kubernetes does; `None` if it is none, or negative.
pub(crate) fn millis(quantity: &NumberOrString) -> Option<u64> {
    let value = match quantity {
        NumberOrString::Number(number) => *number,
        NumberOrString::String(text) => parse(text.trim())?,
    };
    // Rounding errors of the multiplication must not push 0.0049 over the next whole number.
    let millis = (value * 1000.0 - 1e-6).ceil();
    (0.0..=1e15).contains(&millis).then_some(millis as u64)
}

fn parse(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// A duration as Go writes it: numbers with units, `300ms`, `1.5h`, `2h45m`; `None` if it is none, or negative.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let text = |text: &str| millis(&NumberOrString::String(text.into()));
        for (quantity, want) in [
            ("500m", Some(500)),
            ("1", Some(1000)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            ("1.5k", Some(1_500_000)),
            ("1n", Some(1)),
        ] {
            assert_eq!(text(quantity), want, "{quantity}");
        }
        for none in ["", "m", "-1", "1x", "abc", "1 m"] {
            assert_eq!(text(none), None, "{none}");
        }
        assert_eq!(millis(&NumberOrString::Number(80.0)), Some(80_000));
    }

    #[test]
    fn durations() {
        let ms = |text: &str| go_duration(text).map(|duration| duration.as_millis());
        for (text, want) in [
            ("250ms", Some(250)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("2h", Some(7_200_000)),
        ] {
            assert_eq!(ms(text), want, "{text}");
        }
        for none in ["", "5", "-1s", "1d", "s", "1..s"] {
            assert_eq!(ms(none), None, "{none}");
        }
    }
}
