//! `GET /orders/{id}/events` as server-sent events: the trail from a version on, and then what happens, until the caller
//! leaves or the address is closed.
//!
//! Each piece is a page of the trail, read when the one before it is on its way: a reader that is slow has the version that
//! it reached and nothing else here. An answer that has begun does not end because the store is away for a while: whoever
//! reads in a browser would not come back.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, Accept, Header, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use actors::event::Envelope;
use actors::log::Log;
use actors::order::directory::Trail;
use actors::order::{OrderId, Version};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::super::parameters::{parameters, whole};
use super::super::streams::Streams;
use super::arrivals::{Arrivals, Waiting};
use super::view::EventView;
use super::{Problem, Service, in_time};

/// What a stream of events is called.
const MEDIA_TYPE: &str = "text/event-stream";
/// What a reader that comes again has had.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Events of a piece.
const PAGE: usize = 100;
/// A comment is sent at least as often, so that both ends, and what is between them, know that the other is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Comes first: how long a reader waits before it comes again.
const BEGINNING: &str = "retry: 2000\n\n";
const ALIVE: &str = ":\n\n";
/// The trail could not be read: it is tried again after that.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether the caller wants a stream rather than a page.
pub(super) fn is_asked_for(request: &HttpRequest) -> bool {
    let Ok(Accept(accepted)) = Accept::parse(request) else { return false };
    let quality = |of: &str| {
        let named = accepted.iter().filter(|accepted| accepted.item.essence_str() == of);
        named.map(|accepted| accepted.quality).max()
    };
    let stream = quality(MEDIA_TYPE).filter(|quality| *quality > header::Quality::ZERO);
    stream.is_some_and(|stream| quality("application/json").is_none_or(|page| page < stream))
}

/// Which version a reader had last, if it says so.
pub(super) fn last_event(request: &HttpRequest) -> Result<Option<Version>, Problem> {
    let Some(id) = request.headers().get(&LAST_EVENT_ID) else { return Ok(None) };
    let version = id.to_str().ok().and_then(whole).map(Version);
    version.map(Some).ok_or_else(|| Problem::malformed("Last-Event-ID must be a version, as the stream gave it."))
}

/// Opens the stream.
pub(super) async fn open(
    service: Data<Service>,
    streams: Data<Streams>,
    arrivals: Data<Arrivals>,
    request: &HttpRequest,
    order: OrderId,
) -> Result<HttpResponse, Problem> {
    let [after] = parameters(request.query_string(), ["after"])?;
    let after = match after.as_deref().map(whole) {
        None => Version::NONE,
        Some(Some(after)) => Version(after),
        Some(None) => return Err(Problem::malformed("after must be a whole number from 0 to 4294967295.")),
    };
    // A browser that comes again asks as it did the first time, and says beside it what it has had since.
    let after = last_event(request)?.unwrap_or(after);
    let log = Arc::clone(&service.history()?.log);
    let place = streams.place()?;
    let waiting = arrivals.of(order);
    let first = page(&service, order, after).await?;
    let mut response = HttpResponse::Ok();
    response
        .content_type(MEDIA_TYPE)
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((header::VARY, HeaderValue::from_static("accept")))
        // A proxy that gathers an answer before it passes it on would gather for ever.
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let mut events = Events {
        service,
        log,
        order,
        after,
        waiting,
        closing: streams.closing(),
        due: None,
        begun: None,
        _place: place,
    };
    events.begun = Some(format!("{BEGINNING}{}", events.told(&first)).into());
    let pieces = stream::unfold(events, |mut events| async move {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    Ok(response.streaming(Box::pin(pieces)))
}

async fn page(service: &Service, order: OrderId, after: Version) -> Result<Trail, Problem> {
    in_time(service.limits.answer_timeout, service.orders()?.trail(order, after, PAGE)).await
}

/// What is sent, piece by piece.
struct Events {
    service: Data<Service>,
    log: Arc<dyn Log>,
    order: OrderId,
    /// The version of the last event that was sent.
    after: Version,
    waiting: Waiting,
    closing: watch::Receiver<bool>,
    /// When to look at the trail, if not only when there is something new.
    due: Option<Instant>,
    /// The first piece, until it is sent.
    begun: Option<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Events {
    /// The next piece; `None` when the address is closed.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(begun) = self.begun.take() {
            return Some(begun);
        }
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            piece = self.piece() => Some(piece),
        }
    }

    async fn piece(&mut self) -> Bytes {
        let alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            let look_at = self.due.unwrap_or(alive_at);
            let arrived = tokio::select! {
                biased;
                () = self.waiting.next(&*self.log) => true,
                () = sleep_until(look_at.min(alive_at)) => false,
            };
            let is_due = arrived || self.due.is_some_and(|due| due <= Instant::now());
            if !is_due {
                return Bytes::from_static(ALIVE.as_bytes());
            }
            match page(&self.service, self.order, self.after).await {
                Ok(trail) if trail.events.is_empty() => self.due = None,
                Ok(trail) => return self.told(&trail).into(),
                Err(_) => self.due = Some(Instant::now() + AGAIN_AFTER),
            }
        }
    }

    /// The events of a page as they are sent. What is behind it is due at once.
    fn told(&mut self, trail: &Trail) -> String {
        self.due = trail.next_after.map(|_| Instant::now());
        if let Some(last) = trail.events.last() {
            self.after = last.version;
        }
        trail.events.iter().map(event).collect()
    }
}

/// An event as it is sent: its data is what a page has of it, on one line.
fn event(envelope: &Envelope) -> String {
    // Strings, numbers and stored JSON under fixed names: cannot fail.
    let data = serde_json::to_string(&EventView::from(envelope)).unwrap_or_default();
    // A line break between two tokens of what is stored is a blank as good as any; in a text it is written \\n.
    let data = data.replace(['\n', '\r'], " ");
    let event_type: String = envelope.event_type.chars().filter(|c| !c.is_control()).collect();
    let mut text = String::with_capacity(data.len() + 64);
    // Writing to a string cannot fail.
    let _ = write!(text, "id: {}\nevent: {event_type}\ndata: {data}\n\n", envelope.version);
    text
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_stream_is_given_to_those_who_ask_for_one_rather_than_for_json() {
        let asked =
            |accept: &str| is_asked_for(&TestRequest::get().insert_header(("Accept", accept)).to_http_request());
        for stream in [
            "text/event-stream",
            "Text/Event-Stream;charset=utf-8",
            "text/event-stream, */*;q=0.1",
            "application/json;q=0.5, text/event-stream",
        ] {
            assert!(asked(stream), "{stream}");
        }
        for page in [
            "*/*",
            "text/*",
            "application/json",
            "text/html",
            "text/event-stream;q=0",
            "application/json, text/event-stream;q=0.9",
            "application/json, text/event-stream",
            "nonsense",
        ] {
            assert!(!asked(page), "{page}");
        }
        assert!(!is_asked_for(&TestRequest::get().to_http_request()));
    }

    #[test]
    fn an_event_is_one_line_whatever_was_stored() {
        let text = include_str!("../../../tests/fixtures/events/order.cancelled.v1.plain.json");
        let text = text.replace(r#""data":{"#, "\"data\":{\r\n ").replace("order.cancelled", "order.\\nid: 9");
        let sent = event(&serde_json::from_str(&text).expect("an envelope"));
        let lines: Vec<_> = sent.split('\n').collect();
        assert_eq!((lines[0], lines[1]), ("id: 2", "event: order.id: 9"));
        let data = lines[2].strip_prefix("data: ").expect("its data");
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["version"], &data["data"]["reason"]), (&2.into(), &"changed my mind".into()));
        assert_eq!(lines[3..], ["", ""]);
    }
}
