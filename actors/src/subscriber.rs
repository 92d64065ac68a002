//! Subscribers: what wants to know what happened to orders.
//!
//! A subscriber is one file: a type with a permanent name, a handler that turns an event into documents and effects, and
//! a function that performs an effect. The engine beside it does the rest: order, duplicates, gaps, retries, the one
//! transaction, and effects after it. A subscriber never reads the order service's store and never changes an order.

pub mod actor;
mod batch;
pub mod engine;
pub mod intervention;
mod lease;
pub mod letters;
pub mod notification;
pub mod overlay;
pub mod registry;
pub mod settings;
pub mod status;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::inbox::{EffectId, Failure, FailureKind, Outcome, OutcomeKind};
pub use overlay::Documents;
pub use registry::Registered;
pub use settings::{Backoff, Settings};
pub use status::{Figures, QueueState, QueueStatus, SubscriberState, SubscriberStatus};

use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::event::{Envelope, EventId};
use crate::inbox::DocumentKey;
use crate::order::{OrderEvent, OrderId, Version};

/// What one file provides. Registered by one line in [`registry`].
///
/// Events of an order come in version order, each once; those of different orders come in any order.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Its name, for ever: queue, database, inbox and figures are named after it. `a-z`, `0-9` and `-`.
    const NAME: &'static str;

    /// What it does outside, as it is recorded: [`NoEffect`] when nothing.
    type Effect: Serialize + DeserializeOwned + Send + Sync;

    /// The documents that handling this event will read, when that is known: they are fetched for a whole batch at
    /// once. Others are fetched when asked for.
    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        let _ = event;
        Vec::new()
    }

    /// Handles an event: changes documents and says what is to be done outside, in that order, after they are stored.
    ///
    /// It may be called again for an event that is not applied yet, and then sees documents without its earlier
    /// changes. It must do nothing outside.
    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Self::Effect>, Failure>;

    /// Performs an effect: at least once, in order within an order, under an id that stays the same.
    ///
    /// A final no from outside is an [`Outcome`], not a failure: a failure is tried again.
    async fn perform(&self, effect: &Self::Effect, cause: &Cause) -> Result<Outcome, Failure>;
}

/// An event as a handler gets it: in the newest schema, whatever it was written in.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The event as it was stored.
    pub envelope: &'a Envelope,
    /// What happened.
    pub event: &'a OrderEvent,
}

impl Event<'_> {
    /// Of which order.
    pub fn order(&self) -> OrderId {
        self.envelope.order
    }

    /// Its number within the order.
    pub fn version(&self) -> Version {
        self.envelope.version
    }
}

/// Why an effect is performed.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The effect's own id: the same when it is performed again.
    pub effect: EffectId,
    /// Of which order.
    pub order: OrderId,
    /// The version of the event that asked for it.
    pub version: Version,
    /// When that event was recorded.
    pub recorded_at: Timestamp,
    /// Who caused it.
    pub origin: Origin,
}

impl Cause {
    /// The event that asked for it.
    pub fn event(&self) -> EventId {
        self.effect.event
    }
}

/// The effect of a subscriber that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NoEffect {}
