//! What holds for the subscriber, whoever said so: its store has the word, and the actor looks there. What an operator does
//! in this process it is told of at once; where others share the store it looks twice a second.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use tokio::time::{Instant, sleep, timeout};

use super::{Life, SubscriberActor};
use crate::inbox::{InboxError, Present};
use crate::subscriber::engine::Input;

/// What operators do by way of any process is obeyed within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An answer that takes longer is not waited for: another is asked for.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// When it looks, and what it knows.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The next one, when it is waited for.
    later: Option<u64>,
    /// When what is known was asked for: an answer that was asked for before it may be older.
    known: Option<Instant>,
    /// It was told to look since the store was asked for a term: that answer may be older.
    told: bool,
}

/// Somebody changed something in the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::subscriber) struct Changed;

impl Handler<Changed> for SubscriberActor {
    type Result = ();

    fn handle(&mut self, Changed: Changed, ctx: &mut Self::Context) {
        self.look.told = true;
        self.look(ctx);
    }
}

impl SubscriberActor {
    /// The store is asked for a term: its answer says what holds.
    pub(super) fn looks_with_begin(&mut self) {
        self.look = Look::default();
    }

    /// A term has begun, with what held then.
    pub(super) fn looked_with_begin(&mut self, asked_at: Instant, ctx: &mut Context<Self>) {
        self.look.known = Some(asked_at);
        if self.look.told {
            self.look(ctx);
        } else {
            self.look_later(ctx);
        }
    }

    /// The store said what holds when it was asked.
    pub(super) fn learned(&mut self, asked_at: Instant, present: Present, ctx: &mut Context<Self>) {
        if self.look.known.is_none_or(|known| known <= asked_at) {
            self.look.known = Some(asked_at);
            self.take(Input::Present(present), ctx);
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(_) = &self.life else { return };
        let inbox = self.ports.inbox.clone();
        let asked_at = Instant::now();
        let look = async move {
            let late = |_| Err(InboxError::Away("no answer in time".to_owned()));
            timeout(LOOK_WITHIN, inbox.present()).await.unwrap_or_else(late)
        };
        self.spawn(look, move |act, present, ctx| act.looked(asked_at, present, ctx), ctx);
    }

    fn looked(&mut self, asked_at: Instant, present: Result<Present, InboxError>, ctx: &mut Context<Self>) {
        match present {
            Ok(present) => {
                self.learned(asked_at, present, ctx);
                self.look_later(ctx);
            }
            Err(error) => {
                tracing::debug!(subscriber = self.name, %error, "what operators changed cannot be looked at, and is again");
                self.look_in(LOOK_EVERY, ctx);
            }
        }
    }

    /// Alone on its store it is told of everything.
    fn look_later(&mut self, ctx: &mut Context<Self>) {
        if let Life::Active(active) = &self.life
            && active.lease.renew_every().is_some()
        {
            self.look_in(LOOK_EVERY, ctx);
        }
    }

    fn look_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(later) = self.look.later.take().and_then(|later| self.under_way.remove(&later)) {
            ctx.cancel_future(later);
        }
        self.look.later = Some(self.spawn(sleep(wait), |act, (), ctx| act.look(ctx), ctx));
    }
}
