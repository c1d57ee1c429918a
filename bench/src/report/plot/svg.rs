//! As much of SVG as the plot needs.

use std::fmt::Write as _;

use super::super::tables::number;

const WIDTH: f64 = 900.0;
/// The height of one panel.
pub(super) const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const ABOVE: f64 = 40.0;
const BELOW: f64 = 40.0;
/// The height of the legend, above all panels.
const LEGEND: f64 = 40.0;

/// Colours that people tell apart who see fewer than others (Okabe and Ito's), with one more.
const COLOURS: [&str; 8] = ["#999999", "#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#000000"];

/// One curve: its colour, name, whether it is dashed, and its points.
pub(super) type Curve = (usize, String, bool, Vec<Option<f64>>);

/// An image that is being drawn.
pub(super) struct Canvas {
    body: String,
}

/// A part of it, with a title.
pub(super) struct Panel {
    top: f64,
    title: &'static str,
}

impl Panel {
    /// The panel with this many others above it.
    pub fn at(index: u8, title: &'static str) -> Self {
        Self { top: LEGEND + f64::from(index) * HEIGHT, title }
    }

    fn base(&self) -> f64 {
        self.top + HEIGHT - BELOW
    }

    fn height_of(value: f64, most: f64) -> f64 {
        value / most * (HEIGHT - ABOVE - BELOW)
    }
}

impl Canvas {
    pub fn new() -> Self {
        Self { body: String::new() }
    }

    /// Says which colour is whose.
    pub fn legend(&mut self, names: &[&str]) {
        let step = (WIDTH - LEFT) / names.len().max(1) as f64;
        for (index, name) in names.iter().enumerate() {
            let x = LEFT + step * index as f64;
            self.add(format_args!(
                "<rect x=\"{x:.1}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{}\"/>",
                colour(index)
            ));
            self.text(x + 18.0, 24.0, "start", name);
        }
    }

    /// For each group a bar of each series. `values` are by series, then by group.
    pub fn bars(&mut self, panel: Panel, groups: &[String], values: &[Vec<Option<f64>>]) {
        let most = self.axis(&panel, values.iter().flatten().flatten().copied());
        let group_width = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
        let width = group_width * 0.8 / values.len().max(1) as f64;
        for (group, name) in groups.iter().enumerate() {
            let left = LEFT + group_width * group as f64;
            self.text(left + group_width / 2.0, panel.base() + 18.0, "middle", name);
            for (series, values) in values.iter().enumerate() {
                let Some(value) = values.get(group).copied().flatten() else { continue };
                let height = Panel::height_of(value, most);
                let (x, y) = (left + group_width * 0.1 + width * series as f64, panel.base() - height);
                let fill = colour(series);
                self.add(format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
                ));
            }
        }
    }

    /// Lines over the same steps.
    pub fn curves(&mut self, panel: Panel, steps: &[String], curves: &[Curve]) {
        let most = self.axis(&panel, curves.iter().flat_map(|curve| &curve.3).flatten().copied());
        let step_width = (WIDTH - LEFT - RIGHT) / steps.len().max(1) as f64;
        let x = |step: usize| LEFT + step_width * (step as f64 + 0.5);
        for (step, name) in steps.iter().enumerate() {
            self.text(x(step), panel.base() + 18.0, "middle", name);
        }
        for (series, name, dashed, values) in curves {
            let points: Vec<String> = values
                .iter()
                .enumerate()
                .filter_map(|(step, value)| {
                    Some(format!("{:.1},{:.1}", x(step), panel.base() - Panel::height_of((*value)?, most)))
                })
                .collect();
            let dashes = if *dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            self.add(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{dashes}><title>{}</title></polyline>",
                points.join(" "),
                colour(*series),
                escaped(name)
            ));
        }
    }

    /// The image.
    pub fn finish(self, height: f64) -> String {
        let height = height + LEGEND;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }

    /// Draws title and scale, and says what the highest value on it is.
    fn axis(&mut self, panel: &Panel, values: impl Iterator<Item = f64>) -> f64 {
        let (step, count) = scale(values.fold(0.0, f64::max));
        let most = step * f64::from(count);
        self.text(LEFT, panel.top + 22.0, "start", panel.title);
        for index in 0..=count {
            let value = step * f64::from(index);
            let y = panel.base() - Panel::height_of(value, most);
            let right = WIDTH - RIGHT;
            self.add(format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>"
            ));
            let decimals = if step < 0.1 { 2 } else { usize::from(step < 1.0) };
            self.text(LEFT - 8.0, y + 4.0, "end", &number(value, decimals));
        }
        most
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>"
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Four to eight steps of a round size that reach this value.
fn scale(most: f64) -> (f64, u32) {
    if most <= 0.0 || !most.is_finite() {
        return (1.0, 1);
    }
    let power = 10_f64.powf(most.log10().floor());
    let step = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0].map(|part| part * power).into_iter().find(|step| most / step <= 8.0);
    let step = step.unwrap_or(2.0 * power);
    (step, (most / step).ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_reach_the_top() {
        assert_eq!(scale(58_000.0), (10_000.0, 6));
        assert_eq!(scale(1.0), (0.2, 5));
        assert_eq!(scale(0.0), (1.0, 1));
        for most in [0.013, 3.7, 99.0, 12_345.0] {
            let (step, count) = scale(most);
            assert!(step * f64::from(count) >= most && (4..=8).contains(&count), "{most}: {step} x {count}");
        }
    }

    #[test]
    fn an_image_is_well_formed() {
        let mut canvas = Canvas::new();
        canvas.legend(&["a<b", "c"]);
        canvas.bars(Panel::at(0, "bars"), &["x".to_owned()], &[vec![Some(1.0)], vec![None]]);
        canvas.curves(Panel::at(1, "curves"), &["1".to_owned()], &[(0, "a & b".to_owned(), true, vec![Some(1.0)])]);
        let image = canvas.finish(2.0 * HEIGHT);
        assert!(image.starts_with("<svg") && image.ends_with("</svg>\n"), "{image}");
        assert!(image.contains("a&lt;b") && image.contains("a &amp; b"));
        assert_eq!(image.matches("<text").count(), image.matches("</text>").count());
    }
}
