//! A subscriber as everybody else sees it: its figures, what it knows of an order, and the word to rest.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::timeout;

use super::present::Changed;
use super::{Activity, Intake, SubscriberActor};
use crate::inbox::{Inbox, InboxError, RecordedEffect, Which};
use crate::log::Position;
use crate::order::OrderId;
use crate::subscriber::engine::Receipt;
use crate::subscriber::status::{SubscriberState, SubscriberStatus};

/// Effects of an order that are shown.
const EFFECTS_SHOWN_MAX: usize = 1_000;
/// How long it is waited for here that it rests, or goes on, once the store has it.
const OBEYED_WITHIN: Duration = Duration::from_secs(1);

/// A subscriber as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct SubscriberHandle {
    pub(super) name: &'static str,
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) address: Addr<SubscriberActor>,
    pub(super) status: watch::Receiver<SubscriberStatus>,
    pub(super) activity: watch::Receiver<Activity>,
    pub(super) acknowledged: watch::Receiver<Option<Receipt>>,
}

impl SubscriberHandle {
    /// Its permanent name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its figures now, in this process.
    pub fn status(&self) -> SubscriberStatus {
        self.status.borrow().clone()
    }

    /// Waits until everything that was committed before `position` is applied and performed. For ever, when it never
    /// is: the caller says how long it has.
    pub async fn settled(&self, position: &Position) {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| status.is_settled_at(position)).await.is_ok();
        if !settled {
            // The actor is gone for good and will never be there.
            std::future::pending::<()>().await;
        }
    }

    /// Tells it to rest, or to go on, in whichever process it is active: there it is known within a second. Where it is
    /// active here it is waited for. Kept over restarts.
    ///
    /// # Errors
    /// When its store did not take it: nothing is changed, or nobody knows, and it may be told again.
    pub async fn pause(&self, paused: bool) -> Result<(), InboxError> {
        self.inbox.set_paused(paused).await?;
        self.changed().await;
        let obeys = |status: &SubscriberStatus| {
            !status.state.is_at_work() || paused == (status.state == SubscriberState::Paused)
        };
        // It looks again by itself.
        let _ = timeout(OBEYED_WITHIN, self.status.clone().wait_for(obeys)).await;
        Ok(())
    }

    /// Says that somebody changed something in its store. To be said in this process; in the others it is seen.
    pub async fn changed(&self) {
        // One that is down reads the store when it begins.
        let _ = self.address.send(Changed).await;
    }

    /// The effects of an order, with their outcomes, whichever process performs them.
    ///
    /// # Errors
    /// When its store did not answer.
    pub async fn effects(&self, order: OrderId) -> Result<Vec<RecordedEffect>, InboxError> {
        self.inbox.effects(vec![order], Which::All, EFFECTS_SHOWN_MAX).await
    }

    /// What its consumer needs.
    pub(crate) fn intake(&self) -> Intake {
        Intake::new(self.address.clone(), self.activity.clone(), self.acknowledged.clone())
    }
}
