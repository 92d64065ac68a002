//! `POST /api/import`: orders of the older shape, one JSON object a line; answers one JSON object a line, in their order.
//!
//! Streams both ways: what is held is a line and a bounded number of commands under way. A repeated line is recognised by
//! the order it names, so an import that was cut off is simply sent again.

use std::time::Duration;

use actix_web::web::{Bytes, BytesMut, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actors::commit::Origin;
use actors::order::directory::Request;
use actors::order::error::{CommandError, FieldError, Refusal};
use actors::order::import::{Import, LINE_BYTES_MAX};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use super::problem::Problem;
use super::{Service, headers};

/// Lines that are being carried out at once: enough to fill a write of the journal.
const UNDER_WAY_MAX: usize = 256;
/// How often a line that was certainly not done is tried again before it is given back.
const ATTEMPTS_MAX: u32 = 5;
/// The longest pause before that.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is answered to a line.
#[derive(Serialize)]
struct Outcome {
    /// The line's number in this request; the first is 1.
    line: u64,
    #[serde(flatten)]
    what: What,
}

/// What became of a line.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum What {
    /// It is an order now.
    Imported { order: String },
    /// It has been one before.
    AlreadyThere { order: String },
    /// It cannot be one. Skipped.
    Bad { reason: String },
    /// It could not be done now: send it again.
    NotDone { problem: &'static str },
}

/// Takes over every line.
pub(super) async fn import(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    service.orders()?;
    let origin = headers::origin(&request);
    let outcomes = lines(payload, service.limits.body_timeout).map(move |(line, text)| {
        let service = service.clone();
        let origin = origin.clone();
        async move { Outcome { line, what: taken_over(&service, &origin, text).await } }
    });
    let body = outcomes.buffered(UNDER_WAY_MAX).map(|outcome| {
        let mut text = serde_json::to_vec(&outcome).unwrap_or_default();
        text.push(b'\n');
        Ok::<_, actix_web::Error>(Bytes::from(text))
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(body))
}

async fn taken_over(service: &Service, origin: &Origin, line: Result<String, String>) -> What {
    let (id, command) = match line.and_then(|line| Import::parse(&line)) {
        Ok(parsed) => parsed,
        Err(reason) => return What::Bad { reason },
    };
    let mut attempt = 1;
    loop {
        let request = Request::import(id, command.clone(), origin.clone());
        let answer = match service.orders() {
            Ok(orders) => orders.command(request).await,
            Err(problem) => return What::NotDone { problem: problem.kind().name },
        };
        let order = id.to_string();
        let (error, pause) = match answer {
            Ok(answer) if answer.replayed => return What::AlreadyThere { order },
            Ok(_) => return What::Imported { order },
            Err(CommandError::Refused(refusal)) => return What::Bad { reason: in_words(&refusal) },
            Err(CommandError::KeyReused) => {
                return What::Bad { reason: format!("order {order} was imported before, with another content") };
            }
            Err(error @ CommandError::NotDone { retry_after, .. }) => (error, retry_after.min(PAUSE_MAX)),
            // With its key it can be repeated: it then answers what became of it.
            Err(error @ (CommandError::OutcomeUnknown | CommandError::KeyInProgress)) => (error, PAUSE_MAX),
            Err(error @ (CommandError::VersionMismatch { .. } | CommandError::Internal)) => {
                return What::NotDone { problem: Problem::from(error).kind().name };
            }
        };
        if attempt == ATTEMPTS_MAX {
            return What::NotDone { problem: Problem::from(error).kind().name };
        }
        attempt += 1;
        tokio::time::sleep(pause).await;
    }
}

fn in_words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Invalid { errors } => {
            let reasons = errors.iter().map(|FieldError { field, reason }| format!("{field} {reason}"));
            reasons.collect::<Vec<_>>().join("; ")
        }
        Refusal::NotFound
        | Refusal::UnknownSku { .. }
        | Refusal::NotAllowed { .. }
        | Refusal::PriceDiffers { .. }
        | Refusal::AmountDiffers { .. }
        | Refusal::OrderFull => refusal.to_string(),
    }
}

/// The lines of a body, each with its number; blank ones are counted and left out. Of a line that is too long only the
/// fact is kept. When the body is cut off or stalls, the last item says so.
fn lines(payload: Payload, timeout: Duration) -> impl Stream<Item = (u64, Result<String, String>)> {
    let reader = Reader { payload, timeout, buffer: BytesMut::new(), line: 0, too_long: false, over: false };
    stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })
}

struct Reader {
    payload: Payload,
    timeout: Duration,
    buffer: BytesMut,
    line: u64,
    too_long: bool,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<(u64, Result<String, String>)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                match self.finished(&line[..end]) {
                    Some(item) => return Some(item),
                    None => continue,
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                self.too_long = true;
                self.buffer.clear();
            }
            if self.over {
                let rest = self.buffer.split();
                return if rest.is_empty() && !self.too_long { None } else { self.finished(&rest) };
            }
            match tokio::time::timeout(self.timeout, self.payload.next()).await {
                Ok(Some(Ok(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => self.over = true,
                Ok(Some(Err(_))) | Err(_) => {
                    self.over = true;
                    self.too_long = false;
                    self.buffer.clear();
                    self.line += 1;
                    return Some((self.line, Err("the request broke off here".to_owned())));
                }
            }
        }
    }

    fn finished(&mut self, line: &[u8]) -> Option<(u64, Result<String, String>)> {
        self.line += 1;
        if std::mem::take(&mut self.too_long) || line.len() > LINE_BYTES_MAX {
            return Some((self.line, Err(format!("longer than {LINE_BYTES_MAX} bytes"))));
        }
        match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some((self.line, Ok(text.to_owned()))),
            Err(_) => Some((self.line, Err("not UTF-8".to_owned()))),
        }
    }
}
