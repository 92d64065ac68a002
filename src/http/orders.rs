//! `/orders`: place an order, move it on, read it and its trail. Decides nothing about orders: it turns a request into a
//! command or a read, and the answer into a response.

mod arrivals;
mod query;
mod request;
mod stream;
mod view;

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use actors::order::directory::{Answer, Request};
use actors::order::error::NotDone;
use actors::order::{Command, Order, OrderId, Version};
use serde::Serialize;

pub(super) use arrivals::Arrivals;
pub(crate) use query::{TrailQuery, VersionQuery};
pub(crate) use request::{Cancel, Deliver, NewItem, NewOrder, Pay, Refund, Ship};
pub(crate) use view::{OrderView, TrailView};

use super::edge::About;
use super::headers::Held;
use super::problem::Problem;
use super::streams::Streams;
use super::{Service, body, error, headers};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Kept by the caller at most, and asked for again each time.
const UNSHARED: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// Places an order.
///
/// With an Idempotency-Key the same request is the same order, however often it is sent.
#[utoipa::path(post, path = "/orders", operation_id = "placeOrder", tag = "orders", request_body = NewOrder,
    responses((status = 201, description = "The order is placed.", body = OrderView)))]
pub(super) async fn create(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let promise = Promise::of(&request)?;
    let body: NewOrder = body::json(&request, payload, service.limits.body_timeout).await?;
    let order = match &promise.key {
        Some(key) => OrderId::of_creation(&body.customer_id, key),
        None => OrderId::generate(),
    };
    let answer = carry_out(&service, &request, promise, order, body.into()).await?;
    let location = headers::written(format_args!("/orders/{}", answer.order.id));
    let mut response = answered(StatusCode::CREATED, &answer);
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Adds a line.
///
/// With the sku and price of a line that is there, the quantities add up.
#[utoipa::path(post, path = "/orders/{id}/items", operation_id = "addItem", tag = "orders", request_body = NewItem,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order with the line.", body = OrderView)))]
pub(super) async fn add_item(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: NewItem = body::json(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// Takes a whole line away.
#[utoipa::path(delete, path = "/orders/{id}/items/{sku}", operation_id = "removeItem", tag = "orders",
    params(("id" = String, Path, format = Uuid, description = "Which order."),
        ("sku" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._~-]+$",
            description = "Which line.")),
    responses((status = 200, description = "The order without the line.", body = OrderView)))]
pub(super) async fn remove_item(
    service: Data<Service>,
    request: HttpRequest,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let (_, sku) = path.into_inner();
    told(&service, &request, promise, order, Command::RemoveItem { sku }).await
}

/// Records the payment of the whole total.
#[utoipa::path(post, path = "/orders/{id}/pay", operation_id = "payOrder", tag = "orders", request_body = Pay,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order is paid.", body = OrderView)))]
pub(super) async fn pay(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: Pay = body::json(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// Hands the order to the carrier.
#[utoipa::path(post, path = "/orders/{id}/ship", operation_id = "shipOrder", tag = "orders", request_body = Ship,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order is shipped.", body = OrderView)))]
pub(super) async fn ship(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: Ship = body::json(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// Records that the order has arrived.
#[utoipa::path(post, path = "/orders/{id}/deliver", operation_id = "deliverOrder", tag = "orders",
    request_body = Deliver,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order is delivered.", body = OrderView)))]
pub(super) async fn deliver(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: Deliver = body::json_or_nothing(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// Calls the order off.
///
/// What was paid is refunded with it.
#[utoipa::path(post, path = "/orders/{id}/cancel", operation_id = "cancelOrder", tag = "orders", request_body = Cancel,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order is cancelled.", body = OrderView)))]
pub(super) async fn cancel(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: Cancel = body::json(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// Gives money back.
#[utoipa::path(post, path = "/orders/{id}/refund", operation_id = "refundOrder", tag = "orders", request_body = Refund,
    params(("id" = String, Path, format = Uuid, description = "Which order.")),
    responses((status = 200, description = "The order with the refund.", body = OrderView)))]
pub(super) async fn refund(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let order = order_id(&request)?;
    let promise = Promise::of(&request)?;
    let body: Refund = body::json(&request, payload, service.limits.body_timeout).await?;
    told(&service, &request, promise, order, body.into()).await
}

/// The order, present or earlier.
#[utoipa::path(get, path = "/orders/{id}", operation_id = "readOrder", tag = "orders",
    params(("id" = String, Path, format = Uuid, description = "Which order."), VersionQuery),
    responses((status = 200, description = "The order.", body = OrderView),
        (status = 304, description = "The caller has this version (If-None-Match).")))]
pub(super) async fn read(service: Data<Service>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = order_read(&request)?;
    let at = query::at(request.query_string())?;
    let held = Held::of(request.headers())?;
    let order = in_time(service.limits.answer_timeout, service.orders()?.get(id, at)).await?;
    if held.has(order.version) {
        let etag = headers::etag(order.version);
        let held = HttpResponse::NotModified().insert_header((header::ETAG, etag)).insert_header(UNSHARED).finish();
        return Ok(held);
    }
    Ok(order_response(StatusCode::OK, &order))
}

/// The order's events, oldest first.
///
/// With `Accept: text/event-stream` as server-sent events (`id` is the version, `event` the type, `data` the event as a page
/// has it), and then each as it happens, until the caller leaves. `Last-Event-ID`, or `after`, says where to go on; `limit`
/// is for pages. A comment comes every 15 seconds.
#[utoipa::path(get, path = "/orders/{id}/events", operation_id = "readTrail", tag = "orders",
    params(("id" = String, Path, format = Uuid, description = "Which order."), TrailQuery),
    responses((status = 200, description = "A page of events, or all of them as they happen.",
        content((TrailView = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn events(
    service: Data<Service>,
    streams: Data<Streams>,
    arrivals: Data<Arrivals>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let id = order_read(&request)?;
    if stream::is_asked_for(&request) {
        return stream::open(service, streams, arrivals, &request, id).await;
    }
    stream::last_event(&request)?;
    let (after, limit) = query::page(request.query_string())?;
    let trail = in_time(service.limits.answer_timeout, service.orders()?.trail(id, after, limit)).await?;
    let mut response = json(StatusCode::OK, &TrailView::from(&trail));
    response.headers_mut().insert(UNSHARED.0, UNSHARED.1);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What a caller promises and expects with a command.
struct Promise {
    if_match: Option<Vec<Version>>,
    key: Option<String>,
}

impl Promise {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        query::nothing(request.query_string())?;
        Ok(Self { if_match: headers::if_match(request.headers())?, key: headers::idempotency_key(request.headers())? })
    }
}

async fn told(
    service: &Service,
    request: &HttpRequest,
    promise: Promise,
    order: OrderId,
    command: Command,
) -> Result<HttpResponse, Problem> {
    let answer = carry_out(service, request, promise, order, command).await?;
    Ok(answered(StatusCode::OK, &answer))
}

async fn carry_out(
    service: &Service,
    request: &HttpRequest,
    Promise { if_match, key }: Promise,
    order: OrderId,
    command: Command,
) -> Result<Answer, Problem> {
    let origin = headers::origin(request);
    request.extensions_mut().insert(About { order });
    let command = service.orders()?.command(Request { order, command, if_match, key, origin });
    match tokio::time::timeout(service.limits.answer_timeout, command).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(error::outcome_unknown()),
    }
}

async fn in_time<T, E: Into<Problem>>(
    timeout: Duration,
    read: impl Future<Output = Result<T, E>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(timeout, read).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(error::not_done(NotDone::Overloaded).retry_after(Duration::from_secs(1))),
    }
}

/// Which order the path names: an id that no order can have is an order that is not there.
fn order_id(request: &HttpRequest) -> Result<OrderId, Problem> {
    let id = request.match_info().get("id").filter(|id| id.len() == 36);
    id.and_then(|id| id.parse().ok()).ok_or_else(error::no_such_order)
}

fn order_read(request: &HttpRequest) -> Result<OrderId, Problem> {
    let order = order_id(request)?;
    request.extensions_mut().insert(About { order });
    Ok(order)
}

fn answered(status: StatusCode, answer: &Answer) -> HttpResponse {
    let mut response = order_response(status, &answer.order);
    if answer.replayed {
        response.headers_mut().insert(headers::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn order_response(status: StatusCode, order: &Order) -> HttpResponse {
    let mut response = json(status, &OrderView::from(order));
    let etag = headers::etag(order.version);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(UNSHARED.0, UNSHARED.1);
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> HttpResponse {
    // Strings, numbers and stored JSON under fixed names: cannot fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    HttpResponse::build(status).insert_header((header::CONTENT_TYPE, JSON)).body(body)
}
