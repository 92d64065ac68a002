//! How events are printed: columns for people, or JSON, a line an event: the CloudEvent, with the position behind it where
//! the log is followed. Everything of a commit is written at once.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use actors::event::Envelope;
use serde::Serialize;

use super::super::{CommandError, Printable};

/// Most characters of an event's data in a column.
const DATA_CHARS_MAX: usize = 160;

/// What is printed, line by line.
pub(super) struct Lines {
    json: bool,
    began: bool,
    waiting: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Envelope,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a str>,
}

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    On,
    /// Whoever read has read enough.
    NoMore,
}

impl Lines {
    pub(super) fn new(json: bool) -> Self {
        Self { json, began: false, waiting: String::new() }
    }

    /// Adds an event, to be written. `position` is behind its commit, of which it is the last that is printed.
    pub(super) fn add(&mut self, event: &Envelope, position: Option<&str>) -> Result<(), CommandError> {
        if self.json {
            let line = serde_json::to_string(&Line { event, position });
            let line = line.map_err(|error| CommandError::not_done(format!("an event is no JSON: {error}")))?;
            // A line break between two tokens of what is stored is a blank as good as any; in a text it is written \n.
            self.waiting += &Printable(line.replace('\n', " ")).to_string();
            self.waiting.push('\n');
        } else {
            if !self.began {
                self.waiting += &row("recorded at", "order", "version", "type", "by", "data");
            }
            self.waiting += &columns(event);
        }
        self.began = true;
        Ok(())
    }

    /// Writes what was added.
    pub(super) fn write(&mut self) -> Result<Read, CommandError> {
        if self.waiting.is_empty() {
            return Ok(Read::On);
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(self.waiting.as_bytes()).and_then(|()| out.flush());
        self.waiting.clear();
        match written {
            Ok(()) => Ok(Read::On),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Read::NoMore),
            Err(error) => Err(CommandError::not_done(format!("cannot write the result: {error}"))),
        }
    }
}

fn columns(event: &Envelope) -> String {
    let (time, order, version) = (event.recorded_at.to_string(), event.order.to_string(), event.version.to_string());
    let mut data: String = event.data.get().chars().take(DATA_CHARS_MAX).collect();
    if data.len() < event.data.get().len() {
        data.push('…');
    }
    row(&time, &order, &version, &event.event_type, &event.origin.authid, &data)
}

fn row(time: &str, order: &str, version: &str, event_type: &str, by: &str, data: &str) -> String {
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(line, "{time:<24}  {order:<36}  {version:>7}  {event_type:<18}  {by:<12}  {data}");
    // A line break between two tokens of what is stored is a blank as good as any.
    let mut line = Printable(line.replace('\n', " ")).to_string();
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}
