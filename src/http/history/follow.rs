//! `GET /history/follow`: the open log, a line an event's commit or head, each with the position behind it.
//!
//! A line is made when the one before it is on its way, so a reader that is slow holds up its own stream and nothing
//! else. When nothing happens an empty line is sent every few seconds, so that both ends notice when the other is gone.

use std::borrow::Cow;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use actors::event_store::StoreError;
use actors::history::{FollowHeads, History};
use actors::log::{Follow, From, Log, LogError};
use futures_util::{FutureExt, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use super::super::parameters::parameters;
use super::super::streams::Streams;
use super::{Problem, Service, failed, in_time};
use crate::history::wire::{self, ALIVE_EVERY, FORMAT, Line, PROBLEMS};

/// Lines that are there already are sent together, up to so many bytes.
const TOGETHER_BYTES: usize = 32 << 10;

/// Opens the log.
pub(in super::super) async fn follow(
    service: Data<Service>,
    streams: Data<Streams>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (from, events) = asked(request.query_string())?;
    let log = &service.history()?.log;
    let place = streams.place()?;
    let feed = in_time(&service, Feed::open(&**log, from, events)).await?;
    let lines = Lines { feed, closing: streams.closing(), began: false, ended: false, _place: place };
    let lines = stream::unfold(lines, |mut lines| async move {
        let some = lines.next().await?;
        Some((Ok::<_, std::convert::Infallible>(some), lines))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .streaming(Box::pin(lines)))
}

/// From where, and whether with the events.
fn asked(query: &str) -> Result<(From, bool), Problem> {
    let [from, events] = parameters(query, ["from", "events"])?;
    let from = match from.as_deref() {
        Some("now") => From::Now,
        Some(word) => From::Position(wire::read_position(word).ok_or_else(no_word)?),
        None => return Err(no_word()),
    };
    let events = match events.as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Problem::malformed("events must be true or false.")),
    };
    Ok((from, events))
}

fn no_word() -> Problem {
    Problem::malformed("from must be now, or a position as a line of this stream has given it.")
}

/// The open log, with the events or with heads only.
enum Feed {
    Events(Box<dyn Follow>),
    Heads(Box<dyn FollowHeads>),
}

impl Feed {
    async fn open(log: &dyn Log, from: From, events: bool) -> Result<Self, LogError> {
        match events {
            true => Ok(Self::Events(log.follow(from).await?)),
            false => Ok(Self::Heads(History::follow(log, from).await?)),
        }
    }

    /// Writes the next line: one commit, so that each has the position behind it.
    async fn next(&mut self, into: &mut Vec<u8>) -> Result<(), LogError> {
        match self {
            Self::Events(follow) => {
                let commit = follow.next(1).await?.pop();
                let raw = commit.as_ref().map(|commit| wire::raw(commit)).transpose().map_err(damaged)?;
                let position = Some(Cow::Owned(wire::position(&follow.position())));
                write(into, &Line { position, commit: raw, ..Line::default() })
            }
            Self::Heads(follow) => {
                let head = follow.next(1).await?.pop();
                let position = Some(Cow::Owned(wire::position(&follow.position())));
                write(into, &Line { position, head, ..Line::default() })
            }
        }
    }

    /// Writes in which format the lines are, and where the log stands.
    fn position(&self, into: &mut Vec<u8>) -> Result<(), LogError> {
        let position = match self {
            Self::Events(follow) => follow.position(),
            Self::Heads(follow) => follow.position(),
        };
        let position = Some(Cow::Owned(wire::position(&position)));
        write(into, &Line { format: Some(FORMAT), position, ..Line::default() })
    }
}

/// What is sent, piece by piece.
struct Lines {
    feed: Feed,
    closing: watch::Receiver<bool>,
    began: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Lines {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut lines = Vec::new();
        let wrote = if self.began { self.wait(&mut lines).await? } else { self.feed.position(&mut lines) };
        self.began = true;
        if let Err(error) = wrote {
            self.ended = true;
            farewell(&mut lines, error);
        }
        Some(lines.into())
    }

    /// Waits for something to say. `None` when the address is closed.
    async fn wait(&mut self, lines: &mut Vec<u8>) -> Option<Result<(), LogError>> {
        let wrote = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => return None,
            wrote = self.feed.next(lines) => wrote,
            () = sleep(ALIVE_EVERY) => return Some(write(lines, &Line::default())),
        };
        if wrote.is_err() {
            return Some(wrote);
        }
        while lines.len() < TOGETHER_BYTES {
            match self.feed.next(lines).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        Some(Ok(()))
    }
}

/// The last line says why it is the last.
fn farewell(lines: &mut Vec<u8>, error: LogError) {
    let problem = failed(error);
    let r#type = format!("{PROBLEMS}{}", problem.kind().name);
    let problem = wire::Problem { r#type: r#type.into(), detail: problem.detail().into() };
    // Without this line the stream ends all the same.
    let _ = write(lines, &Line { problem: Some(problem), ..Line::default() });
}

fn write(into: &mut Vec<u8>, line: &Line<'_>) -> Result<(), LogError> {
    let start = into.len();
    serde_json::to_writer(&mut *into, line).map_err(damaged)?;
    // A line break between two tokens of what is stored is a blank as good as any; in a text it is written \n.
    into[start..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    into.push(b'\n');
    Ok(())
}

fn damaged(error: serde_json::Error) -> LogError {
    StoreError::Damaged(error.to_string()).into()
}
