//! The matrix on the terminal: a row per cell under its controller, a column per area, within so many columns.
//!
//! Areas stand as short heads with a legend below. A row whose name leaves no room for its counts has them on a line of its own,
//! and counts that do not fit one line go on in the next: nothing is cut off.

use std::collections::BTreeSet;
use std::fmt::Write;

use meshgate_clusters::Kind;

use crate::matrix::Mesh;
use crate::report::{CellReport, Report};
use crate::verdict::Verdict;

/// The width for what is no terminal, and what every terminal has.
pub const WIDTH: usize = 80;

/// Between two columns: the most that leaves names and counts on one line.
const GAPS: [usize; 2] = [2, 1];

/// The areas of a report's cases, in the order of their first case.
pub fn areas(report: &Report) -> Vec<String> {
    let mut areas = Vec::new();
    for case in report.cells.iter().flat_map(|cell| &cell.cases) {
        let area = case.id.split('/').next().unwrap_or_default().to_owned();
        if !areas.contains(&area) {
            areas.push(area);
        }
    }
    areas
}

/// What came of the cases of one area in a cell: `12`, `11 +1` (a finding), `10 !2` (failures), `-`.
pub fn summary(cell: &CellReport, area: &str) -> String {
    let count = |verdict: Verdict| {
        let prefix = format!("{area}/");
        cell.cases.iter().filter(|case| case.id.starts_with(&prefix) && case.verdict == verdict).count()
    };
    let (pass, finding) = (count(Verdict::Pass), count(Verdict::Finding));
    let (fail, not_run) = (count(Verdict::Fail), count(Verdict::NotRun));
    if pass + finding + fail + not_run == 0 {
        return "-".to_owned();
    }
    let mut text = pass.to_string();
    for (mark, count) in [('+', finding), ('!', fail), ('?', not_run)] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, " {mark}{count}");
        }
    }
    text
}

/// The matrix with its legend and totals, in lines of at most `width` columns as far as single words allow it.
pub fn render(report: &Report, width: usize) -> String {
    let areas = areas(report);
    let heads = heads(&areas);
    // `11+1`: columns may stand so near to each other that a blank would be taken for the next.
    let compact = |cell, area: &String| summary(cell, area).replace(' ', "");
    let counts: Vec<Vec<String>> =
        report.cells.iter().map(|cell| areas.iter().map(|area| compact(cell, area)).collect()).collect();
    let names: Vec<String> = report.cells.iter().map(name).collect();
    let columns: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| counts.iter().map(|row| row[column].len()).chain([head.len()]).max().unwrap_or_default())
        .collect();
    let table = Table::fit(&names, columns, width);
    let mut text = String::new();
    let mut controller = None;
    for ((cell, name), counts) in report.cells.iter().zip(&names).zip(&counts) {
        let of = (&cell.controller, &cell.version, &cell.implementation);
        if controller != Some(of) {
            // A blank line between controllers, and the heads again beside each: a long matrix is read without scrolling back.
            text.push_str(if controller.is_some() { "\n" } else { "" });
            table.row(&heading(cell), &heads, &mut text);
            controller = Some(of);
        }
        table.row(name, counts, &mut text);
    }
    let legend: Vec<String> = heads
        .iter()
        .zip(&areas)
        .filter(|(head, area)| head != area)
        .map(|(head, area)| format!("{head} {area}"))
        .collect();
    let totals = &report.totals;
    let sums = [
        format!("{} passed", totals.pass),
        format!("{} findings (+)", totals.finding),
        format!("{} failed (!)", totals.fail),
        format!("{} not run (?)", totals.not_run),
        format!("{} not applicable", totals.not_applicable),
        format!("in {:.1} s", report.environment.seconds),
    ];
    text.push('\n');
    wrap(&legend, "  ", width, &mut text);
    text.push('\n');
    wrap(&sums, ", ", width, &mut text);
    // What is usual goes without saying to whoever has just run it.
    for place in report.cells.iter().filter(|cell| !is_usual(cell)).map(CellReport::place).collect::<BTreeSet<_>>() {
        text += &format!("judged: {place}\n");
    }
    text
}

fn is_usual(cell: &CellReport) -> bool {
    cell.mesh == Mesh::Bundled && cell.cluster == Kind::Embedded.as_str()
}

/// A controller, and who plays it where it is not itself.
fn heading(cell: &CellReport) -> String {
    let note = cell.implementation.note().map(|note| format!(" ({note})")).unwrap_or_default();
    format!("{}@{}{note}", cell.controller, cell.version)
}

/// A cell below its controller: its recipe, and its dialect or mode.
fn name(cell: &CellReport) -> String {
    format!("  {}/{}", cell.recipe, cell.dialect.map_or(cell.mode.as_str(), |dialect| dialect.as_str()))
}

/// Where what stands.
struct Table {
    /// Of the first column; 0 when names stand on lines of their own.
    name: usize,
    columns: Vec<usize>,
    gap: usize,
    /// How many counts each line takes.
    lines: Vec<usize>,
}

impl Table {
    /// As wide as the longest name, or as the counts leave room for.
    fn fit(names: &[String], columns: Vec<usize>, width: usize) -> Self {
        let longest = names.iter().map(String::len).max().unwrap_or_default();
        let counts = |gap: usize| columns.iter().map(|column| gap + column).sum::<usize>();
        let fitting = GAPS.into_iter().find(|gap| longest + counts(*gap) <= width);
        let gap = fitting.unwrap_or(GAPS[0]);
        let counts = counts(gap);
        // Below this a name would hardly ever fit, and all room goes to the counts.
        const LEAST: usize = 12;
        let name = match width.saturating_sub(counts) {
            room if room < LEAST => LEAST.min(longest),
            room => room.min(longest),
        };
        let mut lines = vec![0];
        let mut used = name;
        for column in &columns {
            if used + gap + column > width && lines.last().is_some_and(|taken| *taken > 0) {
                lines.push(0);
                used = name;
            }
            used += gap + column;
            lines.last_mut().into_iter().for_each(|taken| *taken += 1);
        }
        Self { name, columns, gap, lines }
    }

    fn row(&self, name: &str, values: &[String], text: &mut String) {
        let mut first = name;
        if name.len() > self.name {
            text.push_str(name);
            text.push('\n');
            first = "";
        }
        let mut cells = values.iter().zip(&self.columns);
        for taken in &self.lines {
            let mut line = format!("{first:<0$}", self.name);
            for (value, column) in cells.by_ref().take(*taken) {
                let _ = write!(line, "{:1$}{value:<column$}", "", self.gap);
            }
            text.push_str(line.trim_end());
            text.push('\n');
            first = "";
        }
    }
}

/// Words with something between them, in as many lines as it takes.
fn wrap(words: &[String], between: &str, width: usize, text: &mut String) {
    let mut line = String::new();
    for (index, word) in words.iter().enumerate() {
        let last = index + 1 == words.len();
        let tail = if last { "" } else { between.trim_end() };
        if !line.is_empty() && line.len() + between.len() + word.len() + tail.len() > width {
            text.push_str(&line);
            text.push_str(between.trim_end());
            text.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push_str(between);
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// Column heads: the initials of `traffic_split`, else the first three letters, or as many more as tell areas apart.
fn heads(areas: &[String]) -> Vec<String> {
    let mut heads: Vec<String> = Vec::new();
    for area in areas {
        let words: Vec<&str> = area.split('_').collect();
        let initials: String = words.iter().filter_map(|word| word.chars().next()).collect();
        let shortened = (3..=area.len()).filter_map(|letters| area.get(..letters));
        let candidates = Some(initials.as_str()).filter(|_| words.len() > 1).into_iter().chain(shortened);
        let head = candidates.into_iter().find(|head| !heads.iter().any(|taken| taken == head));
        heads.push(head.unwrap_or(area).to_owned());
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Dialect;
    use crate::report::tests::{case, cell, report};

    /// A cell of this recipe with so many cases of each area and verdict.
    fn row(recipe: &str, dialect: Option<Dialect>, counts: &[(&str, usize, Verdict)]) -> CellReport {
        let cases = counts.iter().flat_map(|(area, count, verdict)| {
            (0..*count).map(move |number| case(&format!("{area}/n{number}"), *verdict))
        });
        cell(recipe, dialect, cases.collect())
    }

    const EVERY_AREA: [(&str, usize, Verdict); 11] = [
        ("routing", 23, Verdict::Pass),
        ("modes", 15, Verdict::Pass),
        ("route_metrics", 10, Verdict::Pass),
        ("traffic_split", 7, Verdict::Pass),
        ("loops", 4, Verdict::Pass),
        ("headers", 19, Verdict::Pass),
        ("headers", 1, Verdict::Finding),
        ("resilience", 9, Verdict::Fail),
        ("tls", 12, Verdict::NotRun),
        ("policies", 2, Verdict::Pass),
        ("recipe", 1, Verdict::NotApplicable),
    ];

    #[test]
    fn short_names_stand_beside_their_counts() {
        let report = report(vec![
            row("a", None, &[("routing", 2, Verdict::Pass), ("loops", 1, Verdict::Finding)]),
            row("b", Some(Dialect::Modern), &[("routing", 1, Verdict::Fail), ("loops", 1, Verdict::NotApplicable)]),
        ]);
        let expected = "\
c@1.0.0      rou  loo
  a/default  2    0+1
  b/modern   0!1  -

rou routing  loo loops

2 passed, 1 findings (+), 1 failed (!), 0 not run (?), 1 not applicable,
in 12.0 s
";
        assert_eq!(render(&report, WIDTH), expected);
    }

    #[test]
    fn the_longest_names_fit_beside_all_counts() {
        let report = report(vec![
            row("ingress-middleware", Some(Dialect::Modern), &EVERY_AREA),
            row("custom-headers-as-printed", Some(Dialect::Documented), &EVERY_AREA[..2]),
        ]);
        let expected = "\
c@1.0.0                                rou mod rm ts loo hea  res tls  pol rec
  ingress-middleware/modern            23  15  10 7  4   19+1 0!9 0?12 2   -
  custom-headers-as-printed/documented 23  15  -  -  -   -    -   -    -   -

rou routing  mod modes  rm route_metrics  ts traffic_split  loo loops
hea headers  res resilience  pol policies  rec recipe

118 passed, 1 findings (+), 9 failed (!), 12 not run (?), 1 not applicable,
in 12.0 s
";
        assert_eq!(render(&report, WIDTH), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let report = report(vec![row("custom-headers-as-printed", Some(Dialect::Documented), &EVERY_AREA)]);
        for width in [40, 60, 80, 120, 200] {
            let text = render(&report, width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{width}: {widest}\n{text}");
            for part in ["23", "19+1", "0!9", "0?12", "custom-headers-as-printed/documented", "rm route_metrics"] {
                assert!(text.contains(part), "{width}: no {part}\n{text}");
            }
        }
    }

    #[test]
    fn heads_tell_areas_apart() {
        let areas = ["routing", "route_metrics", "resilience", "resources", "tls"].map(str::to_owned);
        assert_eq!(heads(&areas), ["rou", "rm", "res", "reso", "tls"]);
    }
}
