//! The end of a subscriber's actor, when it is asked to end: what is under way is finished, and the store is told that the
//! term ended in order. After a failure nothing of this happens.

use std::time::Duration;

use actix::{ActorContext, Context};
use tokio::time::{sleep, timeout};

use super::{Life, SubscriberActor};
use crate::inbox::{InboxError, Term};
use crate::subscriber::engine::Input;

/// How long what is under way may go on when the process ends; then it is left to whoever begins next.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How long giving the term back may take. When it does not succeed a lease ends by itself, and whoever begins next takes
/// it for a crash.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

impl SubscriberActor {
    /// Finishes what is under way, and gives the term back, so that another process takes over at once.
    pub(super) fn leave(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            // A term may be given any moment, that nobody would use: the answer is waited for.
            Life::Beginning | Life::Standby { .. } if self.asking => {}
            Life::Beginning | Life::Standby { .. } => self.end(ctx),
            Life::Active(_) => self.take(Input::Leave, ctx),
        }
        self.spawn(sleep(LEAVE_WITHIN), |act, (), ctx| act.give_up(ctx), ctx);
    }

    pub(super) fn give_up(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            Life::Beginning | Life::Standby { .. } => self.end(ctx),
            Life::Active(active) => {
                let (term, leased) = (active.term, active.lease.renew_every().is_some());
                self.release(term, leased, ctx);
            }
        }
    }

    /// Says that the term ended in order, wherever the store is: whoever begins next need not be careful.
    pub(super) fn release(&mut self, term: Term, leased: bool, ctx: &mut Context<Self>) {
        self.drop_everything(ctx);
        self.publish();
        let inbox = self.ports.inbox.clone();
        let release = async move {
            let late = |_| Err(InboxError::Away("no answer in time".to_owned()));
            timeout(RELEASE_WITHIN, inbox.release(term)).await.unwrap_or_else(late)
        };
        self.spawn(
            release,
            move |act, released, ctx| {
                act.say_released(leased, released);
                act.end(ctx);
            },
            ctx,
        );
    }

    fn say_released(&self, leased: bool, released: Result<(), InboxError>) {
        let subscriber = self.name;
        match released {
            Ok(()) if leased => tracing::info!(subscriber, "the lease is given back"),
            Ok(()) => tracing::debug!(subscriber, "the term ended in order"),
            Err(error) if leased => tracing::info!(subscriber, %error, "the lease ends by itself"),
            Err(error) => tracing::info!(subscriber, %error, "that the term ended in order cannot be stored"),
        }
    }

    pub(super) fn end(&mut self, ctx: &mut Context<Self>) {
        self.left = true;
        ctx.stop();
    }
}
