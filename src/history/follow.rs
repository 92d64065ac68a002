//! An open log on the other side of a connection: lines, read when they are asked for. What is not asked for stays where
//! it is, and in the end holds up who sends it.

use std::sync::Arc;
use std::time::Duration;

use actors::commit::Commit;
use actors::event_store::StoreError;
use actors::history::{FollowHeads, Head};
use actors::log::{Follow, From, LogError, Position};
use async_trait::async_trait;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::wire::{self, ALIVE_EVERY, FORMAT, Line};

/// Whoever says nothing for so long is gone: keep-alive lines come much more often.
const SILENT_MAX: Duration = Duration::from_secs(5 * ALIVE_EVERY.as_secs());
/// Most bytes of a line. A commit has at most 1 MiB, or what one command brought about.
const LINE_BYTES_MAX: usize = 32 << 20;

/// Lines as they come.
pub(super) struct Stream {
    client: Client,
    answer: Response,
    /// What came and was not looked at.
    buffer: Vec<u8>,
    /// How much of the buffer has been looked at.
    read: usize,
    /// Since when the next bytes are waited for. Kept here, so that whoever asks again and again for a short while still
    /// learns that nobody is there.
    waiting_since: Option<Instant>,
    position: Position,
    /// Why nothing comes any more.
    ended: Option<LogError>,
}

/// What a line says.
enum Told {
    Commit(Arc<Commit>),
    Head(Head),
    /// The position has moved.
    Moved,
    Alive,
}

impl Stream {
    /// Opens the log from there on, with the events or with heads only.
    pub(super) async fn open(client: &Client, from: From, events: bool) -> Result<Self, LogError> {
        let from = match from {
            From::Now => "now".to_owned(),
            From::Position(position) => wire::position(&position),
        };
        let query = [("from", from.as_str()), ("events", if events { "true" } else { "false" })];
        let request = client.get("history/follow", &query);
        let answer = client.answer(request).await?;
        Self::begun(client.clone(), answer).await
    }

    /// The first line says where the log was opened.
    async fn begun(client: Client, answer: Response) -> Result<Self, LogError> {
        let nowhere = Position { log: actors::log::LogId(uuid::Uuid::nil()), token: String::new(), commit: None };
        let mut stream =
            Self { client, answer, buffer: Vec::new(), read: 0, waiting_since: None, position: nowhere, ended: None };
        loop {
            match stream.line()? {
                Some(Told::Moved) => return Ok(stream),
                Some(Told::Alive) => {}
                Some(Told::Commit(_) | Told::Head(_)) => return Err(stream.unreadable()),
                None => stream.more().await?,
            }
        }
    }

    /// What the next lines tell, of those that `wanted` takes, at most `max`; nothing when only the position moved.
    async fn next<T>(&mut self, max: usize, wanted: impl Fn(Told) -> Option<T>) -> Result<Vec<T>, LogError> {
        loop {
            if let Some(given) = self.here(max.max(1), &wanted)? {
                return Ok(given);
            }
            if let Err(error) = self.more().await {
                self.ended = Some(error.clone());
                return Err(error);
            }
        }
    }

    /// What has come already.
    fn here<T>(&mut self, max: usize, wanted: &impl Fn(Told) -> Option<T>) -> Result<Option<Vec<T>>, LogError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let (mut given, mut moved) = (Vec::new(), false);
        while given.len() < max {
            let told = match self.line() {
                Ok(Some(told)) => told,
                Ok(None) => break,
                Err(error) => {
                    // What came before it counts.
                    self.ended = Some(error.clone());
                    return if moved { Ok(Some(given)) } else { Err(error) };
                }
            };
            moved |= !matches!(told, Told::Alive);
            given.extend(wanted(told));
        }
        Ok(moved.then_some(given))
    }

    /// The next line that is whole.
    fn line(&mut self) -> Result<Option<Told>, LogError> {
        let Some(length) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = self.read..self.read + length;
        self.read = line.end + 1;
        let told = self.told(&self.buffer[line])?;
        Ok(Some(match told {
            (told, Some(position)) => {
                self.position = position;
                told
            }
            (told, None) => told,
        }))
    }

    fn told(&self, line: &[u8]) -> Result<(Told, Option<Position>), LogError> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|_| self.unreadable())?;
        if let Some(problem) = &line.problem {
            return Err(self.client.problem(problem));
        }
        if let Some(format) = line.format.filter(|format| *format != FORMAT) {
            let why = format!(
                "it gives its history in another form ({format}; this one reads {FORMAT}): run versions that fit"
            );
            return Err(self.client.away(why).into());
        }
        let position = line.position.as_deref().map(|text| wire::read_position(text).ok_or_else(|| self.unreadable()));
        let position = position.transpose()?;
        let told = match (line.commit, line.head, &position) {
            (Some(raw), None, Some(_)) => {
                let commit = wire::commit(raw).map_err(|error| StoreError::Damaged(error.to_string()))?;
                Told::Commit(Arc::new(commit))
            }
            (None, Some(head), Some(_)) => Told::Head(head),
            (None, None, Some(_)) => Told::Moved,
            (None, None, None) => Told::Alive,
            (Some(_), Some(_), _) | (Some(_), None, None) | (None, Some(_), None) => return Err(self.unreadable()),
        };
        Ok((told, position))
    }

    /// Waits for more bytes.
    async fn more(&mut self) -> Result<(), LogError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let chunk = timeout_at(since + SILENT_MAX, self.answer.chunk()).await;
        let chunk =
            chunk.map_err(|_| self.client.silent(SILENT_MAX))?.map_err(|error| self.client.broke_off(&error))?;
        let chunk = chunk.ok_or_else(|| self.client.away("it ended the stream"))?;
        self.waiting_since = None;
        self.buffer.drain(..std::mem::take(&mut self.read));
        if self.buffer.len() + chunk.len() > LINE_BYTES_MAX {
            return Err(self.client.away("it sent a line that is longer than any commit").into());
        }
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }

    fn unreadable(&self) -> LogError {
        self.client.away("it sent a line that cannot be read").into()
    }
}

/// A log that is followed with its events.
pub(super) struct Events(pub(super) Stream);

#[async_trait]
impl Follow for Events {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        let commit = |told| match told {
            Told::Commit(commit) => Some(commit),
            Told::Head(_) | Told::Moved | Told::Alive => None,
        };
        self.0.next(max, commit).await
    }

    fn position(&self) -> Position {
        self.0.position.clone()
    }
}

/// A log that is followed without them.
pub(super) struct Heads(pub(super) Stream);

#[async_trait]
impl FollowHeads for Heads {
    async fn next(&mut self, max: usize) -> Result<Vec<Head>, LogError> {
        let head = |told| match told {
            Told::Head(head) => Some(head),
            Told::Commit(_) | Told::Moved | Told::Alive => None,
        };
        self.0.next(max, head).await
    }

    fn position(&self) -> Position {
        self.0.position.clone()
    }
}
