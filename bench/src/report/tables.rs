//! Markdown tables, and numbers as people read them.

use std::fmt::Write as _;

use crate::statistics::Spread;

/// What stands where nothing was measured.
pub(super) const NOTHING: &str = "–";

/// A table with a heading for each column; the first column is words, the others are numbers.
pub(super) fn table(headings: &[String], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).chain([heading]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    line(&mut text, headings, &widths);
    for (column, width) in widths.iter().enumerate() {
        // Writing into a String cannot fail.
        let _ = match column {
            0 => write!(text, "|{}", "-".repeat(width + 2)),
            _ => write!(text, "|{}:", "-".repeat(width + 1)),
        };
    }
    text.push_str("|\n");
    for row in rows {
        line(&mut text, row, &widths);
    }
    text
}

fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ = match column {
            0 => write!(text, "| {cell:<width$} "),
            _ => write!(text, "| {cell:>width$} "),
        };
    }
    text.push_str("|\n");
}

/// The median, or a sign that there is none.
pub(super) fn median(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| NOTHING.to_owned(), |spread| number(spread.median, decimals))
}

/// The median with the least and the greatest.
pub(super) fn with_range(spread: Option<Spread>, decimals: usize) -> String {
    match spread {
        None => NOTHING.to_owned(),
        Some(Spread { median, min, max }) => {
            let [median, min, max] = [median, min, max].map(|value| number(value, decimals));
            if min == max { median } else { format!("{median} ({min}..{max})") }
        }
    }
}

/// A number with so many decimals and a comma at each thousand.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((&text[..], None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        out.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(999.4, 0), "999");
        assert_eq!(number(-1234.5, 1), "-1,234.5");
        assert_eq!(number(-0.001, 1), "0.0");
    }

    #[test]
    fn columns_are_aligned() {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&cells(["proxy", "1"]), &[cells(["a", "1,000"]), cells(["b", NOTHING])]);
        assert_eq!(text, "| proxy |     1 |\n|-------|------:|\n| a     | 1,000 |\n| b     |     – |\n");
    }

    #[test]
    fn a_range_is_shown_where_there_is_one() {
        let spread = |min, max| Some(Spread { median: 1.5, min, max });
        assert_eq!(with_range(spread(1.0, 2.0), 1), "1.5 (1.0..2.0)");
        assert_eq!(with_range(spread(1.5, 1.5), 1), "1.5");
        assert_eq!(with_range(None, 1), NOTHING);
    }
}
