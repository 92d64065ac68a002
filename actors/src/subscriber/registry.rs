//! Which subscribers there are. A new one is its file and one line here.

use std::sync::Arc;

use async_trait::async_trait;

use super::notification::Notification;
use super::overlay::Documents;
use super::{Cause, Event, Failure, Outcome, Subscriber};
use crate::inbox::{Body, DocumentKey};
use crate::mailer::Mailer;

/// What subscribers are made of: the outside things that they may use.
#[derive(Clone)]
pub struct Parts {
    /// Sends mails.
    pub mailer: Arc<dyn Mailer>,
}

/// All subscribers of docket.
pub fn all(parts: &Parts) -> Vec<Registered> {
    vec![Registered::new(Notification::new(parts.mailer.clone()))]
}

/// A subscriber of any type.
#[derive(Clone)]
pub struct Registered {
    name: &'static str,
    subscriber: Arc<dyn Erased>,
}

impl Registered {
    /// That subscriber.
    pub fn new<S: Subscriber>(subscriber: S) -> Self {
        Self { name: S::NAME, subscriber: Arc::new(subscriber) }
    }

    /// Its permanent name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn subscriber(&self) -> &Arc<dyn Erased> {
        &self.subscriber
    }
}

/// A [`Subscriber`] whose effects are JSON, so that subscribers of all types are one type.
#[async_trait]
pub(crate) trait Erased: Send + Sync {
    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey>;
    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Body>, Failure>;
    async fn perform(&self, effect: &str, cause: &Cause) -> Result<Outcome, Failure>;
}

#[async_trait]
impl<S: Subscriber> Erased for S {
    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        Subscriber::reads(self, event)
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Body>, Failure> {
        let effects = Subscriber::handle(self, event, documents).await?;
        let encoded: Result<Vec<Body>, _> =
            effects.iter().map(|effect| serde_json::to_string(effect).map(Body::from)).collect();
        encoded.map_err(|error| Failure::permanent(format!("an effect cannot be recorded: {error}")))
    }

    async fn perform(&self, effect: &str, cause: &Cause) -> Result<Outcome, Failure> {
        let effect: S::Effect = serde_json::from_str(effect)
            .map_err(|error| Failure::permanent(format!("a recorded effect cannot be read: {error}")))?;
        Subscriber::perform(self, &effect, cause).await
    }
}
