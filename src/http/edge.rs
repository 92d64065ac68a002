//! What surrounds every request: it gets a correlation id, a foreign page is refused, a panic becomes an answer, an error
//! becomes a problem. Nothing behind the edge writes a problem's body, so all of them look alike.

use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::http::{Method, Uri};
use actix_web::{Error, HttpMessage};
use actors::commit::ANONYMOUS;
use actors::order::OrderId;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tracing::Level;

use super::guard::Caller;
use super::headers::{CORRELATION_ID, CorrelationId};
use super::origin::Names;
use super::problem::{INTERNAL, OUTCOME_UNKNOWN, Problem};
use super::unread::Unread;
use crate::auth::KeyName;

/// The edge of an address with these names.
#[derive(Clone)]
pub(crate) struct Edge {
    names: Rc<Names>,
}

impl Edge {
    /// For an address with these names.
    pub(crate) fn new(names: Names) -> Self {
        Self { names: Rc::new(names) }
    }
}

impl<S> Transform<S, ServiceRequest> for Edge
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = EdgeService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(EdgeService { inner, names: Rc::clone(&self.names) }))
    }
}

/// The edge around what answers.
pub(crate) struct EdgeService<S> {
    inner: S,
    names: Rc<Names>,
}

impl<S> Service<ServiceRequest> for EdgeService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let CorrelationId(correlation) = CorrelationId::of(request.headers());
        let line = Line::begin(&request);
        let unread = Unread::of(&mut request);
        if let Err(problem) = self.names.check(&request) {
            let response = Ok(written(request.into_response(problem.response(&correlation)), unread));
            line.end(&response, &correlation);
            return Box::pin(ready(response));
        }
        request.extensions_mut().insert(CorrelationId(correlation.clone()));
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let answer = match answer.await {
                Ok(answer) => answer,
                // The panic hook has said where and why.
                Err(_) => Err(Panicked(correlation.clone()).into()),
            };
            let response = answer.map(|response| written(finished(response, &correlation), unread));
            line.end(&response, &correlation);
            response
        })
    }
}

fn finished(mut response: ServiceResponse<BoxBody>, correlation: &HeaderValue) -> ServiceResponse<BoxBody> {
    if let Some(error) = response.response().error() {
        let problem = Problem::of(error).response(correlation);
        return response.into_response(problem);
    }
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CORRELATION_ID, correlation.clone());
    response
}

/// However long the rest of the body may be: nobody waits for it.
fn written(response: ServiceResponse<BoxBody>, unread: Option<Unread>) -> ServiceResponse<BoxBody> {
    match unread {
        Some(unread) => unread.kept_by(response),
        None => response,
    }
}

/// A handler panicked. The request is gone with it, so the answer is written without it.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked(HeaderValue);

impl actix_web::ResponseError for Panicked {
    fn error_response(&self) -> actix_web::HttpResponse {
        Problem::internal().response(&self.0)
    }
}

/// What a request turned out to be about, for its log line.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Which order.
    pub(crate) order: OrderId,
}

/// A request's log line: debug for all of them, warn for those that say that something is broken.
struct Line {
    asked: Option<(Method, Uri, Instant)>,
}

impl Line {
    fn begin(request: &ServiceRequest) -> Self {
        let wanted = tracing::enabled!(Level::DEBUG);
        Self { asked: wanted.then(|| (request.method().clone(), request.uri().clone(), Instant::now())) }
    }

    fn end<B>(self, response: &Result<ServiceResponse<B>, Error>, correlation: &HeaderValue) {
        let correlation = correlation.to_str().unwrap_or_default();
        let status = response.as_ref().map_or(INTERNAL.status, |response| response.status().as_u16());
        let extensions = response.as_ref().ok().map(|response| response.request().extensions());
        let about = extensions.as_ref().and_then(|extensions| extensions.get::<About>());
        let order = about.map(|About { order }| tracing::field::display(order));
        let caller = extensions.as_ref().and_then(|extensions| Caller::of(extensions));
        let authid = caller.map_or(ANONYMOUS, KeyName::as_str);
        if status == INTERNAL.status || status == OUTCOME_UNKNOWN.status {
            tracing::warn!(
                order.id = order,
                correlation.id = correlation,
                authid,
                http.status = status,
                "request failed"
            );
        }
        if let Some((method, uri, began)) = self.asked {
            let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(%method, path = uri.path(), http.status = status, duration_us,
                order.id = order, correlation.id = correlation, authid, "request");
        }
    }
}
