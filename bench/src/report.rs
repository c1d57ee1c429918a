//! What people read: a table and a plot.

mod markdown;
mod plot;
mod tables;

pub(crate) use markdown::markdown;
pub(crate) use plot::plot;

use crate::load::Shape;

/// What a load is called.
fn title(shape: Shape) -> String {
    match shape {
        Shape::Http1 { connections } => tables::number(connections as f64, 0),
        Shape::Http2 { connections, streams } => format!("HTTP/2 {connections}x{streams}"),
    }
}
