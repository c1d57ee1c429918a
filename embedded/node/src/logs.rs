//! The log of a container instance: the last lines it wrote, kept in memory.

use std::collections::VecDeque;

use jiff::Timestamp;
use meshgate_store::LogOptions;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

/// Bytes of lines that are kept; older lines are dropped.
const KEPT: usize = 2 * 1024 * 1024;
/// Longer lines are cut into pieces of this size, as container runtimes do.
const LONGEST_LINE: usize = 16 * 1024;
/// Lines handed to a reader at a time.
const CHUNK: usize = 512;

/// One line without its end.
#[derive(Clone, Debug)]
struct Line {
    at: Timestamp,
    text: Vec<u8>,
    /// Cut because it was too long; the next one continues it.
    partial: bool,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Line>,
    bytes: usize,
    /// Number of the first kept line, counted from the start of the instance.
    first: u64,
    closed: bool,
}

impl Lines {
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}

/// The log of one instance of a container.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    lines: Mutex<Lines>,
    /// Number of the next line; sent again when the log closes.
    changed: watch::Sender<u64>,
}

impl Default for LogBuffer {
    fn default() -> Self {
        Self { lines: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl LogBuffer {
    /// Reads a container's output to its end. The log is not closed by that: see [`LogBuffer::close`].
    pub(crate) async fn collect(&self, mut output: impl AsyncRead + Unpin) {
        let mut pending = Vec::new();
        let mut buffer = vec![0; LONGEST_LINE];
        loop {
            let read = match output.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let mut rest = &buffer[..read];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                pending.extend_from_slice(&rest[..end]);
                self.push(std::mem::take(&mut pending), false);
                rest = &rest[end + 1..];
            }
            pending.extend_from_slice(rest);
            while pending.len() >= LONGEST_LINE {
                let tail = pending.split_off(LONGEST_LINE);
                self.push(std::mem::replace(&mut pending, tail), true);
            }
        }
        if !pending.is_empty() {
            self.push(pending, false);
        }
    }

    fn push(&self, text: Vec<u8>, partial: bool) {
        let mut lines = self.lines.lock();
        lines.bytes += text.len();
        lines.kept.push_back(Line { at: Timestamp::now(), text, partial });
        while lines.bytes > KEPT {
            let Some(dropped) = lines.kept.pop_front() else { break };
            lines.bytes -= dropped.text.len();
            lines.first += 1;
        }
        let next = lines.next();
        drop(lines);
        self.changed.send_replace(next);
    }

    /// Nothing more will come: followers end.
    pub(crate) fn close(&self) {
        let mut lines = self.lines.lock();
        lines.closed = true;
        let next = lines.next();
        drop(lines);
        self.changed.send_replace(next);
    }

    /// The last `bytes` of the log, for `terminationMessagePolicy: FallbackToLogsOnError`.
    pub(crate) fn tail(&self, bytes: usize) -> String {
        let lines = self.lines.lock();
        let mut text = Vec::new();
        for line in &lines.kept {
            render(line, false, &mut text);
        }
        let start = text.len().saturating_sub(bytes);
        String::from_utf8_lossy(&text[start..]).into_owned()
    }

    /// Sends the chosen lines, and new ones while `follow` and the instance runs. Ends early when nobody reads.
    pub(crate) async fn send(&self, options: &LogOptions, to: &mpsc::Sender<Vec<u8>>) {
        let mut changed = self.changed.subscribe();
        let mut next = self.start(options);
        loop {
            changed.mark_unchanged();
            let (chunk, after, closed) = self.chunk(next, options.timestamps);
            next = after;
            if !chunk.is_empty() {
                if to.send(chunk).await.is_err() {
                    return;
                }
                continue;
            }
            if closed || !options.follow {
                return;
            }
            tokio::select! {
                result = changed.changed() => if result.is_err() { return },
                () = to.closed() => return,
            }
        }
    }

    /// Number of the first line that `options` ask for.
    fn start(&self, options: &LogOptions) -> u64 {
        let lines = self.lines.lock();
        let mut skipped = 0;
        if let Some(seconds) = options.since_seconds {
            let since = Timestamp::now().as_second().saturating_sub_unsigned(seconds);
            skipped = lines.kept.partition_point(|line| line.at.as_second() < since);
        }
        if let Some(tail) = options.tail_lines {
            let mut whole = 0;
            let from_end = lines
                .kept
                .iter()
                .rev()
                .take_while(|line| {
                    whole += usize::from(!line.partial);
                    whole <= tail
                })
                .count();
            skipped = skipped.max(lines.kept.len() - from_end);
        }
        lines.first + skipped as u64
    }

    /// Up to [`CHUNK`] lines from number `next` on, the number after them, and whether the log is closed.
    fn chunk(&self, next: u64, timestamps: bool) -> (Vec<u8>, u64, bool) {
        let lines = self.lines.lock();
        let skip = usize::try_from(next.saturating_sub(lines.first)).unwrap_or(usize::MAX);
        let mut text = Vec::new();
        let mut count = 0;
        for line in lines.kept.iter().skip(skip).take(CHUNK) {
            render(line, timestamps, &mut text);
            count += 1;
        }
        (text, next.max(lines.first) + count, lines.closed)
    }
}

fn render(line: &Line, timestamps: bool, into: &mut Vec<u8>) {
    if timestamps {
        into.extend_from_slice(format!("{:.9} ", line.at).as_bytes());
    }
    into.extend_from_slice(&line.text);
    if !line.partial {
        into.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn text(log: &LogBuffer, options: LogOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        log.send(&options, &sender).await;
        drop(sender);
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend(chunk);
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn tail_counts_lines_and_an_unfinished_last_line_is_kept() {
        let log = LogBuffer::default();
        log.collect(&b"one\ntwo\nthree"[..]).await;
        assert_eq!(text(&log, LogOptions::default()).await, "one\ntwo\nthree\n");
        assert_eq!(text(&log, LogOptions { tail_lines: Some(2), ..Default::default() }).await, "two\nthree\n");
        assert_eq!(text(&log, LogOptions { tail_lines: Some(0), ..Default::default() }).await, "");
    }

    #[tokio::test]
    async fn timestamps_are_rfc3339() {
        let log = LogBuffer::default();
        log.collect(&b"line\n"[..]).await;
        let text = text(&log, LogOptions { timestamps: true, ..Default::default() }).await;
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(rest, "line\n");
    }

    #[tokio::test]
    async fn a_follower_sees_later_lines_and_ends_with_the_log() {
        let log = Arc::new(LogBuffer::default());
        log.collect(&b"early\n"[..]).await;
        let (sender, mut receiver) = mpsc::channel(64);
        let follower = tokio::spawn({
            let log = log.clone();
            async move { log.send(&LogOptions { follow: true, ..Default::default() }, &sender).await }
        });
        assert_eq!(receiver.recv().await.unwrap(), b"early\n");
        log.collect(&b"late\n"[..]).await;
        assert_eq!(receiver.recv().await.unwrap(), b"late\n");
        log.close();
        assert_eq!(receiver.recv().await, None);
        follower.await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_lines_go_first() {
        let log = LogBuffer::default();
        let line = [b'x'; 1023];
        for _ in 0..4096 {
            log.push(line.to_vec(), false);
        }
        let kept = text(&log, LogOptions::default()).await.len();
        assert!(kept <= KEPT + CHUNK * 4 && kept > KEPT / 2, "{kept} bytes kept");
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_reads_as_one() {
        let log = LogBuffer::default();
        let line = "y".repeat(40_000);
        log.collect(format!("{line}\n").as_bytes()).await;
        assert_eq!(text(&log, LogOptions::default()).await, format!("{line}\n"));
    }
}
