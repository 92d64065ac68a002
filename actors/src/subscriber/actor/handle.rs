//! A subscriber as everybody else sees it: its figures, what it knows of an order, and the word to rest.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::present::Changed;
use super::{Activity, Intake, SubscriberActor};
use crate::clock::Timestamp;
use crate::inbox::{Discard, Generation, Inbox, InboxError, RecordedEffect, Row, Totals, Which};
use crate::log::{Log, Position};
use crate::order::OrderId;
use crate::subscriber::engine::Receipt;
use crate::subscriber::letters::Letters;
use crate::subscriber::status::{Ahead, Figures, QueueStatus, SubscriberState, SubscriberStatus};

/// Effects of an order that are shown.
const EFFECTS_SHOWN_MAX: usize = 1_000;
/// How long it is waited for here that it rests, or goes on, once the store has it.
const OBEYED_WITHIN: Duration = Duration::from_secs(1);
/// How long the store and the log have to say what is shown besides.
const FIGURES_WITHIN: Duration = Duration::from_secs(2);
/// What the rows add up to is as old as that at most, whoever asks: adding up is not free.
const TOTALS_FRESH: Duration = Duration::from_secs(1);

/// A subscriber as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct SubscriberHandle {
    pub(super) name: &'static str,
    pub(super) inbox: Arc<dyn Inbox>,
    /// Where it follows the log itself.
    pub(super) log: Option<Arc<dyn Log>>,
    pub(super) totals: Arc<LastTotals>,
    pub(super) address: Addr<SubscriberActor>,
    pub(super) status: watch::Receiver<SubscriberStatus>,
    pub(super) activity: watch::Receiver<Activity>,
    pub(super) acknowledged: watch::Receiver<Option<Receipt>>,
    pub(super) letters: Letters,
}

/// What a subscriber knows of one order.
#[derive(Clone, Debug, PartialEq)]
pub struct OfOrder {
    /// How far it is; as of one that it has not met, when it has not.
    pub row: Row,
    /// What the order's events asked for, the first of it.
    pub effects: Vec<RecordedEffect>,
    /// What operators decided, oldest first.
    pub discards: Vec<Discard>,
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

    /// Its figures, with what its store and the log say besides: where it is not at work here its lanes and whether it
    /// rests, where it follows the log itself what lies behind in it. What does not answer soon is left out.
    pub async fn figures(&self, now: Timestamp) -> Figures {
        let status = self.status();
        let (status, paused) = match status.state {
            SubscriberState::CatchingUp | SubscriberState::Running | SubscriberState::DependencyDown => {
                (status, Some(false))
            }
            SubscriberState::Paused => (status, Some(true)),
            SubscriberState::Starting
            | SubscriberState::Standby
            | SubscriberState::StoreAway
            | SubscriberState::Stopped => self.as_stored(status).await,
        };
        let ahead = self.ahead(&status).await;
        Figures::new(status, paused, ahead, now)
    }

    async fn as_stored(&self, status: SubscriberStatus) -> (SubscriberStatus, Option<bool>) {
        let ask = async {
            let present = self.inbox.present().await?;
            let totals = self.totals.of(&*self.inbox, present.generation).await?;
            Ok::<_, InboxError>((present, totals))
        };
        match timeout(FIGURES_WITHIN, ask).await {
            Ok(Ok((present, totals))) => (status.with_totals(&totals), Some(present.paused)),
            Ok(Err(error)) => {
                let trouble = status.trouble.or_else(|| Some(error.to_string()));
                (SubscriberStatus { trouble, ..status }, None)
            }
            Err(_) => (status, None),
        }
    }

    async fn ahead(&self, status: &SubscriberStatus) -> Ahead {
        match (&self.log, &status.read_to, &status.queue) {
            (Some(log), Some(read_to), _) => {
                let ahead = timeout(FIGURES_WITHIN, log.ahead(read_to)).await.ok().flatten();
                ahead.map_or(Ahead::Unknown, Ahead::InLog)
            }
            (None, _, Some(QueueStatus { waiting: Some(waiting), .. })) => Ahead::InQueue(*waiting),
            (Some(_), None, _) | (None, _, _) => Ahead::Unknown,
        }
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
        let telling = self.letters.telling();
        self.inbox.set_paused(paused).await?;
        drop(telling);
        let obeys = |status: &SubscriberStatus| {
            !status.state.is_at_work() || paused == (status.state == SubscriberState::Paused)
        };
        // It looks again by itself.
        let _ = timeout(OBEYED_WITHIN, self.status.clone().wait_for(obeys)).await;
        Ok(())
    }

    /// Says that somebody changed something in its store. To be said in this process; in the others it is seen.
    pub async fn changed(&self) {
        // One that is down reads the store when it begins, and one that is left alone for a while hears of it then.
        let _ = timeout(OBEYED_WITHIN, self.address.send(Changed)).await;
    }

    /// The effects of an order, with their outcomes, whichever process performs them.
    ///
    /// # Errors
    /// When its store did not answer.
    pub async fn effects(&self, order: OrderId) -> Result<Vec<RecordedEffect>, InboxError> {
        self.inbox.effects(vec![order], Which::All, EFFECTS_SHOWN_MAX).await
    }

    /// How far it is with an order, whichever process it is active in. Each part is as it was when that was asked for.
    ///
    /// # Errors
    /// When its store did not answer.
    pub async fn of_order(&self, order: OrderId) -> Result<OfOrder, InboxError> {
        let generation = self.inbox.present().await?.generation;
        let row = self.inbox.rows(generation, vec![order]).await?.pop().unwrap_or_else(|| Row::new(order));
        let effects = self.effects(order).await?;
        let discards = self.inbox.discards(order).await?;
        Ok(OfOrder { row, effects, discards })
    }

    /// What its lanes hold, and what operators do about it.
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    /// What its consumer needs.
    pub(crate) fn intake(&self) -> Intake {
        Intake::new(self.address.clone(), self.activity.clone(), self.acknowledged.clone())
    }
}

/// What the rows added up to when somebody asked last.
#[derive(Default)]
pub(super) struct LastTotals(Mutex<Option<(Instant, Totals)>>);

impl LastTotals {
    async fn of(&self, inbox: &dyn Inbox, generation: Generation) -> Result<Totals, InboxError> {
        let mut last = self.0.lock().await;
        if let Some((at, totals)) = *last
            && at.elapsed() < TOTALS_FRESH
        {
            return Ok(totals);
        }
        let totals = inbox.totals(generation).await?;
        *last = Some((Instant::now(), totals));
        Ok(totals)
    }
}
