//! Durations as Go writes them, on command lines and in the environment.

use std::time::Duration;

/// Reads `300ms`, `1.5s`, `1m30s`, `0`. Negative durations are refused: there is nothing to wait for.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a Go duration such as \"300ms\" or \"1m30s\", found \"{text}\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let amount: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += amount
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[letters..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, millis) in [("0", 0), ("300ms", 300), ("1.5s", 1500), ("1m30s", 90_000), ("2h", 7_200_000)] {
            assert_eq!(parse(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "5", "ms", "1d", "-1s", "1..5s"] {
            assert!(parse(text).unwrap_err().contains("expected a Go duration"), "{text}");
        }
    }
}
