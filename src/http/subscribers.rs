//! `/api/subscribers`: how far each subscriber is, and what became of what an order's events set off in the outside world.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use actors::clock::Timestamp;
use actors::commit::Origin;
use actors::event::EventId;
use actors::inbox::{OutcomeKind, RecordedEffect};
use actors::order::error::NotDone;
use actors::order::{OrderId, Version};
use actors::subscriber::actor::SubscriberHandle;
use actors::subscriber::status::SubscriberStatus;
use serde::Serialize;

use super::Service;
use super::error;
use super::problem::Problem;

/// The subscribers of this process.
#[derive(Serialize)]
struct Subscribers {
    subscribers: Vec<SubscriberStatus>,
}

/// What one order's events set off, in their order.
#[derive(Serialize)]
struct Effects {
    effects: Vec<Effect>,
}

/// A mail, a request: something outside, with what became of it.
#[derive(Serialize)]
struct Effect {
    /// The event that asked for it.
    event_id: EventId,
    /// That event's version.
    version: Version,
    /// Its place among the effects of that event, from 0.
    index: u32,
    /// When that event was recorded.
    recorded_at: Timestamp,
    correlation_id: String,
    authid: String,
    /// `waiting`, or the final answer.
    outcome: &'static str,
    /// Under which id it was done, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// When the final answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

impl From<RecordedEffect> for Effect {
    fn from(RecordedEffect { effect, outcome }: RecordedEffect) -> Self {
        let Origin { correlation_id, authid, .. } = effect.origin;
        let (outcome, at) = outcome.unzip();
        Self {
            event_id: effect.id.event,
            version: effect.version,
            index: effect.id.index,
            recorded_at: effect.recorded_at,
            correlation_id,
            authid: authid.into_owned(),
            outcome: outcome.as_ref().map_or("waiting", |outcome| OutcomeKind::name(outcome.kind)),
            detail: outcome.map(|outcome| outcome.detail),
            at,
        }
    }
}

/// How far each subscriber is.
pub(super) async fn all(service: Data<Service>) -> HttpResponse {
    let subscribers = service.subscribers.iter().map(SubscriberHandle::status).collect();
    HttpResponse::Ok().json(Subscribers { subscribers })
}

/// What an order's events set off through one subscriber.
pub(super) async fn effects(service: Data<Service>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (name, order) = path.into_inner();
    let subscriber = service.subscribers.iter().find(|subscriber| subscriber.name() == name);
    let subscriber = subscriber.ok_or_else(|| Problem::not_found("No subscriber of that name runs here."))?;
    let order: OrderId = order.parse().map_err(|_| Problem::not_found("There is no such order."))?;
    let effects = subscriber.effects(order).await.map_err(|error| {
        tracing::warn!(subscriber = name, %error, "the effects of an order cannot be read");
        error::not_done(NotDone::StoreAway)
    })?;
    Ok(HttpResponse::Ok().json(Effects { effects: effects.into_iter().map(Effect::from).collect() }))
}
