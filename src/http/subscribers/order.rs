//! How a subscriber stands to one order, as it is shown: its lane, what the order's events set off, and what operators
//! decided. Nothing of it is the order's: it is beside its events, and never among them.

use actors::clock::Timestamp;
use actors::commit::Origin;
use actors::event::EventId;
use actors::inbox::{Discard, Hold, Lane, OutcomeKind, RecordedEffect};
use actors::order::Version;
use actors::subscriber::actor::OfOrder;
use serde::Serialize;

/// How far each subscriber of a process is with an order.
#[derive(Serialize)]
pub(super) struct OrderSubscribers {
    pub(super) subscribers: Vec<OrderSubscriber>,
}

/// How far one is.
#[derive(Serialize)]
pub(super) struct OrderSubscriber {
    name: &'static str,
    /// The version of the last event that it has handled.
    applied: Version,
    /// The highest version that it knows to exist.
    seen: Version,
    /// Every effect of the events up to this version has its outcome.
    performed: Version,
    /// How it is with handling the next event.
    applying: LaneView,
    /// How it is with performing the next effect.
    performing: LaneView,
    effects: Vec<Effect>,
    /// What operators decided that it does not handle, or not perform.
    discards: Vec<DiscardView>,
}

/// A lane.
#[derive(Serialize)]
struct LaneView {
    /// `ready`, or why it is not.
    state: &'static str,
    #[serde(flatten)]
    held: Option<Held>,
}

/// A lane that is not ready.
#[derive(Serialize)]
struct Held {
    since: Timestamp,
    attempts: u32,
    /// `null`: not by itself.
    next_attempt_at: Option<Timestamp>,
    #[serde(flatten)]
    error: Option<Error>,
}

/// How something failed last.
#[derive(Serialize)]
struct Error {
    error: String,
    error_kind: &'static str,
    /// Where in the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// What one order's events set off, in their order.
#[derive(Serialize)]
pub(super) struct Effects {
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

/// An event that is not handled, or an effect that is not performed, because somebody decided so.
#[derive(Serialize)]
struct DiscardView {
    version: Version,
    event_id: Option<EventId>,
    event_type: Option<String>,
    /// The place of the effect among those of that event; `null`: it is the event.
    effect: Option<u32>,
    reason: String,
    by: String,
    at: Timestamp,
    /// How often it had been tried.
    attempts: u32,
    #[serde(flatten)]
    error: Option<Error>,
}

impl OrderSubscriber {
    pub(super) fn new(name: &'static str, OfOrder { row, effects, discards }: OfOrder) -> Self {
        Self {
            name,
            applied: row.applied,
            seen: row.seen,
            performed: row.performed,
            applying: (&row.applying).into(),
            performing: (&row.performing).into(),
            effects: effects.into_iter().map(Effect::from).collect(),
            discards: discards.into_iter().map(DiscardView::from).collect(),
        }
    }
}

impl From<&Lane> for LaneView {
    fn from(lane: &Lane) -> Self {
        match lane {
            Lane::Ready => Self { state: "ready", held: None },
            Lane::Held(hold) => {
                let Hold { state, since, attempts, next_attempt_at, .. } = **hold;
                Self {
                    state: state.name(),
                    held: Some(Held { since, attempts, next_attempt_at, error: Error::of(hold) }),
                }
            }
        }
    }
}

impl Error {
    fn of(hold: &Hold) -> Option<Self> {
        hold.failure().map(|failure| Self {
            error: failure.text.to_string(),
            error_kind: failure.kind.name(),
            place: failure.place.as_ref().map(ToString::to_string),
        })
    }
}

impl From<Vec<RecordedEffect>> for Effects {
    fn from(effects: Vec<RecordedEffect>) -> Self {
        Self { effects: effects.into_iter().map(Effect::from).collect() }
    }
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

impl From<Discard> for DiscardView {
    fn from(Discard { order: _, version, event, event_type, effect, reason, by, at, hold }: Discard) -> Self {
        let (attempts, error) = (hold.attempts, Error::of(&hold));
        Self { version, event_id: event, event_type, effect, reason, by, at, attempts, error }
    }
}
