//! `/api/subscribers`: how far each subscriber is, whether it rests, and how it stands to an order.

mod order;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use actors::clock::{Clock, SystemClock};
use actors::inbox::InboxError;
use actors::nodes::Seen;
use actors::order::OrderId;
use actors::order::error::NotDone;
use actors::subscriber::Figures;
use actors::subscriber::actor::SubscriberHandle;
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;

use super::problem::{self, Problem};
use super::{NOT_HERE_RETRY, Service, error, headers};
use order::{Effects, OrderSubscriber, OrderSubscribers};

/// The subscribers of this process.
#[derive(Serialize)]
struct Subscribers {
    subscribers: Vec<Figures>,
}

/// How far each subscriber is.
pub(super) async fn all(service: Data<Service>) -> HttpResponse {
    let now = SystemClock.now();
    let subscribers = join_all(service.subscribers.iter().map(|subscriber| subscriber.figures(now))).await;
    HttpResponse::Ok().json(Subscribers { subscribers })
}

/// Tells one to rest, in whichever process it is active.
pub(super) async fn pause(
    service: Data<Service>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    told_to_rest(&service, &request, &name, true).await
}

/// Tells one to go on.
pub(super) async fn resume(
    service: Data<Service>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    told_to_rest(&service, &request, &name, false).await
}

async fn told_to_rest(
    service: &Service,
    request: &HttpRequest,
    name: &str,
    paused: bool,
) -> Result<HttpResponse, Problem> {
    let subscriber = named(service, name)?;
    subscriber.pause(paused).await.map_err(|error| not_told(name, error))?;
    let by = headers::origin(request).authid;
    tracing::info!(subscriber = name, by = &*by, "the subscriber is told to {}", if paused { "rest" } else { "go on" });
    Ok(HttpResponse::Ok().json(subscriber.figures(SystemClock.now()).await))
}

/// What an order's events set off through one subscriber.
pub(super) async fn effects(service: Data<Service>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (name, order) = path.into_inner();
    let subscriber = named(&service, &name)?;
    let order = order_named(&order)?;
    let effects = subscriber.effects(order).await.map_err(|error| store_away(&name, &error))?;
    Ok(HttpResponse::Ok().json(Effects::from(effects)))
}

/// How far each subscriber of this process is with an order.
pub(super) async fn of_order(service: Data<Service>, order: Path<String>) -> Result<HttpResponse, Problem> {
    let order = order_named(&order)?;
    let known = service.subscribers.iter().map(|subscriber| async move {
        let of_order = subscriber.of_order(order).await.map_err(|error| store_away(subscriber.name(), &error))?;
        Ok::<_, Problem>(OrderSubscriber::new(subscriber.name(), of_order))
    });
    let subscribers = try_join_all(known).await?;
    Ok(HttpResponse::Ok().json(OrderSubscribers { subscribers }))
}

/// The subscriber of that name, when it runs in this process, also when it only stands by.
///
/// # Errors
/// Where it runs else, as far as that is known.
pub(super) fn named<'a>(service: &'a Service, name: &str) -> Result<&'a SubscriberHandle, Problem> {
    let here = service.subscribers.iter().find(|subscriber| subscriber.name() == name);
    here.ok_or_else(|| {
        let nodes = service.nodes.list();
        let there = nodes.iter().filter(|seen| seen.is_alive() && seen.process.roles.iter().any(|role| role == name));
        let there: Vec<_> = there.map(address).collect();
        if there.is_empty() { unknown(service, name) } else { elsewhere(name, &there) }
    })
}

fn address(Seen { process, .. }: &Seen) -> String {
    format!("{} ({})", process.name, process.ops)
}

fn elsewhere(name: &str, there: &[String]) -> Problem {
    let there = there.join(", ");
    Problem::new(problem::NOT_HERE, format!("{name} does not run in this process. It does in {there}."))
        .retry_after(NOT_HERE_RETRY)
}

fn unknown(service: &Service, name: &str) -> Problem {
    let here: Vec<_> = service.subscribers.iter().map(SubscriberHandle::name).collect();
    let here = if here.is_empty() { "None does.".to_owned() } else { format!("These do: {}.", here.join(", ")) };
    Problem::not_found(format!("No subscriber {name} runs here. {here}"))
}

fn order_named(order: &str) -> Result<OrderId, Problem> {
    order.parse().map_err(|_| error::no_such_order())
}

/// It may be told although nobody can say so.
fn not_told(subscriber: &str, error: InboxError) -> Problem {
    tracing::warn!(subscriber, %error, "the subscriber's store does not take what an operator says");
    match error {
        InboxError::Unknown(_) => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "No definite answer came: it may be told. Look at its state, or say it again: twice is the same as once.",
        ),
        InboxError::Away(_) | InboxError::Full(_) | InboxError::Held { .. } | InboxError::Damaged(_) => error.into(),
    }
}

fn store_away(subscriber: &str, error: &InboxError) -> Problem {
    tracing::warn!(subscriber, %error, "the subscriber's store does not answer an operator");
    error::not_done(NotDone::StoreAway).retry_after(error::STORE_RETRY)
}
