//! The end of a subscriber's actor, when it is asked to end: what is under way is finished, and the store is told that the
//! term ended in order. After a failure nothing of this happens.

use std::time::Duration;

use actix::{ActorContext, Context};
use tokio::time::{sleep, timeout};

use super::{Life, SubscriberActor};
use crate::inbox::Term;
use crate::subscriber::engine::Input;

/// How long what is under way may go on when the process ends; then it is left to whoever begins next.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How long giving the term back may take. When it does not succeed a lease ends by itself, and whoever begins next takes
/// it for a crash.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

impl SubscriberActor {
    /// Finishes what is under way, and gives the lease back, so that another process takes over at once.
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

    pub(super) fn release(&mut self, term: Term, leased: bool, ctx: &mut Context<Self>) {
        self.drop_everything(ctx);
        self.publish();
        if !leased {
            return self.end(ctx);
        }
        let inbox = self.ports.inbox.clone();
        let release = async move { timeout(RELEASE_WITHIN, inbox.release(term)).await };
        self.spawn(
            release,
            |act, released, ctx| {
                match released {
                    Ok(Ok(())) => tracing::info!(subscriber = act.name, "the lease is given back"),
                    Ok(Err(_)) | Err(_) => tracing::info!(subscriber = act.name, "the lease ends by itself"),
                }
                act.end(ctx);
            },
            ctx,
        );
    }

    pub(super) fn end(&mut self, ctx: &mut Context<Self>) {
        self.left = true;
        ctx.stop();
    }
}
