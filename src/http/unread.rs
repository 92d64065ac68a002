//! The body of a request that is refused before any of it is read.
//!
//! The web server would read a body that nobody wants to its end, however long that takes. One that is kept until the
//! refusal is written makes it close the connection instead, a second later.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::web::Bytes;

/// A body that is still to come.
pub(super) struct Unread(Payload);

impl Unread {
    /// That of a request, if it has one.
    pub(super) fn of(payload: Payload) -> Option<Self> {
        (!matches!(payload, Payload::None)).then_some(Self(payload))
    }

    /// The refusal, which keeps it until it is written.
    pub(super) fn refused_with(self, response: HttpResponse) -> HttpResponse {
        response.map_body(|_, body| Refusal { body, _unread: self.0 }.boxed())
    }
}

struct Refusal {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for Refusal {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
