//! The term of a subscriber's actor: how it is asked for, waited for, held on to and lost.

use std::time::Duration;

use actix::{AsyncContext, Context};
use tokio::time::{Instant, sleep, timeout};

use super::feed::Feed;
use super::{Active, Life, SubscriberActor};
use crate::inbox::{Begun, Committed, InboxError, Renewed};
use crate::subscriber::engine::{Engine, Input};
use crate::subscriber::lease::Lease;
use crate::subscriber::status::SubscriberState;

/// Whoever stands by asks for the lease at least that often, and a little later at random: it may have been released.
const STANDBY_MAX: Duration = Duration::from_secs(1);
/// And not more often than that: the lease may be about to end.
const STANDBY_MIN: Duration = Duration::from_millis(50);

impl SubscriberActor {
    pub(super) fn begin(&mut self, ctx: &mut Context<Self>) {
        self.publish();
        self.asking = true;
        let inbox = self.ports.inbox.clone();
        self.looks_with_begin();
        let asked_at = Instant::now();
        let begin = async move { inbox.begin().await };
        self.spawn(begin, move |act, begun, ctx| act.answered_begin(asked_at, begun, ctx), ctx);
    }

    fn begin_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        self.publish();
        self.spawn(sleep(wait), |act, (), ctx| act.begin(ctx), ctx);
    }

    fn answered_begin(&mut self, asked_at: Instant, begun: Result<Begun, InboxError>, ctx: &mut Context<Self>) {
        self.asking = false;
        match begun {
            Ok(begun) if self.leaving => self.release(begun.term, begun.lease.is_some(), ctx),
            Ok(begun) => self.begun(asked_at, begun, ctx),
            Err(_) if self.leaving => self.end(ctx),
            Err(InboxError::Held { by, ends_in }) => self.stand_by(by, ends_in, ctx),
            Err(
                error @ (InboxError::Away(_) | InboxError::Full(_) | InboxError::Unknown(_) | InboxError::Damaged(_)),
            ) => {
                tracing::warn!(subscriber = self.name, %error, "the subscriber cannot begin");
                self.feed.trouble = Some(error.to_string());
                self.life = Life::Beginning;
                let wait = self.retry_after();
                self.begin_in(wait, ctx);
            }
        }
    }

    fn begun(&mut self, asked_at: Instant, begun: Begun, ctx: &mut Context<Self>) {
        if let Life::Standby { active_in } = &self.life {
            let term = begun.term.0;
            tracing::info!(
                subscriber = self.name,
                term,
                was_active_in = active_in,
                "the subscriber is active here now"
            );
        }
        self.failures = 0;
        self.feed = Feed::default();
        self.begun_at = (Instant::now(), self.ports.clock.now());
        self.handling.generation = begun.present.generation;
        let progress = begun.progress.clone();
        if let Some(catching_up) = progress.as_ref().and_then(|progress| progress.catching_up) {
            self.feed.begin_scan(catching_up.after);
        }
        self.feed.position = progress.map(|progress| progress.position);
        let seed = begun.term.0 ^ self.begun_at.1.as_millis().unsigned_abs();
        self.lives += 1;
        self.life = Life::Active(Box::new(Active {
            number: self.lives,
            term: begun.term,
            lease: Lease::new(begun.lease, asked_at + begun.held_after),
            said_over: false,
            before: self.said.status.borrow().at_rest(SubscriberState::Starting),
            engine: Engine::new(self.name, (*self.handling.settings).clone(), begun, seed),
        }));
        self.renew_later(ctx);
        self.open(Duration::ZERO, ctx);
        self.looked_with_begin(asked_at, ctx);
        self.take(Input::Tick, ctx);
    }

    fn stand_by(&mut self, active_in: String, ends_in: Duration, ctx: &mut Context<Self>) {
        let news = match &self.life {
            Life::Standby { active_in: before } => *before != active_in,
            Life::Beginning | Life::Active(_) => true,
        };
        if news {
            tracing::info!(subscriber = self.name, active_in, "the subscriber is active elsewhere and stands by here");
        }
        self.failures = 0;
        self.feed = Feed::default();
        self.life = Life::Standby { active_in };
        // Somewhat later than the others who stand by, or somewhat sooner.
        let spread = STANDBY_MAX.mul_f64(self.node.chance() / 4.0);
        self.begin_in(ends_in.clamp(STANDBY_MIN, STANDBY_MAX) + spread, ctx);
    }

    /// Another process began a later term (or something that an earlier life of this one had left under way did): nothing
    /// that is known here holds any more, and nothing that is under way here may go on.
    pub(super) fn deposed(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let term = active.term.0;
        tracing::info!(
            subscriber = self.name,
            term,
            "a later term of the subscriber has begun: what is here is dropped"
        );
        active.lease.lose();
        self.drop_everything(ctx);
        if self.leaving {
            return self.end(ctx);
        }
        // Not at once: should two who cannot see each other take the term from one another, they do not spin.
        let wait = STANDBY_MAX.mul_f64(self.node.chance() / 4.0);
        self.begin_in(wait, ctx);
    }

    pub(super) fn drop_everything(&mut self, ctx: &mut Context<Self>) {
        self.life = Life::Beginning;
        self.feed = Feed::default();
        self.wake = None;
        self.asides.clear();
        for (_, handle) in self.under_way.drain() {
            ctx.cancel_future(handle);
        }
    }

    // Its lease.

    fn renew_later(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let Some(wait) = active.lease.renew_every() else { return };
        self.spawn(sleep(wait), |act, (), ctx| act.renew(ctx), ctx);
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let (inbox, term, patience) = (self.ports.inbox.clone(), active.term, active.lease.patience());
        let asked_at = Instant::now();
        let renewal = async move {
            let late = |_| Err(InboxError::Away("no answer in time".to_owned()));
            timeout(patience, inbox.renew(term)).await.unwrap_or_else(late)
        };
        self.spawn(renewal, move |act, renewed, ctx| act.renewed(asked_at, renewed, ctx), ctx);
    }

    fn renewed(&mut self, asked_at: Instant, renewed: Result<Renewed, InboxError>, ctx: &mut Context<Self>) {
        let Life::Active(active) = &mut self.life else { return };
        match renewed {
            Ok(Renewed::Held { lease, present }) => {
                active.lease.renewed(lease, asked_at);
                if std::mem::take(&mut active.said_over) {
                    tracing::info!(subscriber = self.name, "the lease is held again");
                }
                self.take(Input::Renewed, ctx);
                self.learned(asked_at, present, ctx);
            }
            Ok(Renewed::Superseded) => return self.deposed(ctx),
            Err(error) => {
                if active.lease.is_over() && !std::mem::replace(&mut active.said_over, true) {
                    tracing::warn!(subscriber = self.name, %error, "the lease is over: no effect begins until it is held");
                }
                self.publish();
            }
        }
        self.renew_later(ctx);
    }

    pub(super) fn committed(
        &mut self,
        asked_at: Instant,
        committed: Result<Committed, InboxError>,
        ctx: &mut Context<Self>,
    ) {
        if let (Life::Active(active), Ok(Committed::Written)) = (&self.life, &committed) {
            active.lease.written(asked_at);
        }
        self.take(Input::Committed(committed), ctx);
    }
}
