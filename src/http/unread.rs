//! The body of a request that is answered before all of it was read.
//!
//! The web server would read what is left of a chunked body to its end, however long that takes. A body that is kept
//! until the answer is written makes it close the connection instead, a second later.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

/// A request's body, beside whoever reads it.
pub(super) struct Unread(Rc<Body>);

struct Body {
    payload: RefCell<Payload>,
    ended: Cell<bool>,
}

impl Unread {
    /// That of a request, if it has one. It is read as before.
    pub(super) fn of(request: &mut ServiceRequest) -> Option<Self> {
        let payload = request.take_payload();
        if matches!(payload, Payload::None) {
            return None;
        }
        let body = Rc::new(Body { payload: RefCell::new(payload), ended: Cell::new(false) });
        request.set_payload(Payload::Stream { payload: Box::pin(Reader(Rc::clone(&body))) });
        Some(Self(body))
    }

    /// The answer, which keeps it until it is written, unless all of it was read.
    pub(super) fn kept_by(self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        if self.0.ended.get() {
            return response;
        }
        response.map_body(|_, body| Answer { body, _unread: self }.boxed())
    }
}

/// What reads it.
struct Reader(Rc<Body>);

impl Stream for Reader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(Pin::new(&mut *self.0.payload.borrow_mut()).poll_next(context));
        self.0.ended.set(chunk.is_none());
        Poll::Ready(chunk)
    }
}

struct Answer {
    body: BoxBody,
    _unread: Unread,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
