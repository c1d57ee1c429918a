//! The plot: bars for requests per second and CPU time, and how the latter grows with routes and endpoints.

mod svg;

use svg::{Canvas, HEIGHT, Panel};

use super::title;
use crate::{
    results::{Results, Row, RowOf, SHAPES},
    services::SCALES,
};

/// An SVG image.
pub(crate) fn plot(results: &Results) -> String {
    let subjects: Vec<&str> = results.subjects.iter().map(String::as_str).collect();
    let groups: Vec<String> = SHAPES.map(title).to_vec();
    let values = |number: &dyn Fn(&str, Row) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
        subjects
            .iter()
            .map(|subject| SHAPES.iter().map(|shape| number(subject, Row::Plain(*shape))).collect())
            .collect()
    };
    let rps = |subject: &str, row| Some(results.spread(subject, |visit| visit.per_second(row))?.median);
    let cpu = |subject: &str, row| Some(results.spread(subject, |visit| visit.cpu_per_100k(row))?.median);

    let mut canvas = Canvas::new();
    canvas.legend(&subjects);
    canvas.bars(Panel::at(0, "requests per second, by connections"), &groups, &values(&rps));
    canvas.bars(Panel::at(1, "CPU seconds per 100,000 requests, by connections"), &groups, &values(&cpu));

    let kinds: [(&str, RowOf, bool); 2] = [("routes", Row::Routes, false), ("endpoints", Row::Endpoints, true)];
    let mut curves = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        for (what, row, dashed) in kinds.into_iter().filter(|(_, row, _)| results.has(subject, row(1))) {
            let points = SCALES.iter().map(|scale| cpu(subject, row(*scale))).collect();
            curves.push((index, format!("{subject}, {what}"), dashed, points));
        }
    }
    let scales: Vec<String> = SCALES.iter().map(usize::to_string).collect();
    if !curves.is_empty() {
        canvas.curves(
            Panel::at(2, "CPU seconds per 100,000 requests, by number of routes (line) and endpoints (dashed)"),
            &scales,
            &curves,
        );
    }
    canvas.finish(if curves.is_empty() { 2.0 * HEIGHT } else { 3.0 * HEIGHT })
}
