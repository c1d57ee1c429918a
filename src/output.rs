//! Writing to a standard output or error that may be a pipe whose reader has left.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Prints to standard output. A reader that has left (`meshgate list cases | head -1`) has seen what it wanted, which is
/// no error.
///
/// # Errors
/// Any other reason why the text did not get there, such as a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// Columns of the terminal that standard output is; 80 when it is none.
pub fn width() -> usize {
    let found = terminal_size::terminal_size_of(io::stdout());
    found.map_or(meshgate_harness::report::terminal::WIDTH, |(width, _)| usize::from(width.0))
}

/// Says something on standard error, if anybody is there.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
