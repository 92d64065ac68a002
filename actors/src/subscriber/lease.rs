//! What this process knows of its lease: how long the term is certainly its own, by a clock of this machine that never
//! jumps. The store has the last word: it refuses whatever an earlier term writes. This is for what no store can refuse,
//! effects.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A lease is renewed at least that often: a renewal also brings the news that somebody paused the subscriber elsewhere.
const RENEW_EVERY_MAX: Duration = Duration::from_secs(1);
/// Renewals within the length of a lease: several may fail.
const RENEWALS_PER_LEASE: u32 = 5;

/// The lease of one term.
#[derive(Debug)]
pub(super) struct Lease {
    length: Option<Duration>,
    until: watch::Sender<Until>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Until {
    /// No other process can begin a term.
    ForEver,
    /// Certainly this process's own so long.
    At(Instant),
    /// Somebody else's.
    Lost,
}

/// Whoever must not begin something without the lease.
#[derive(Clone, Debug)]
pub(super) struct Held(watch::Receiver<Until>);

impl Lease {
    /// As long as the store says, last held at that moment, or a little later.
    pub(super) fn new(length: Option<Duration>, asked_at: Instant) -> Self {
        let until = length.map_or(Until::ForEver, |length| Until::At(asked_at + length));
        Self { length, until: watch::Sender::new(until) }
    }

    /// A transaction was written: the store holds it for as long again, counted from when it was asked to.
    pub(super) fn written(&self, asked_at: Instant) {
        self.renewed(self.length, asked_at);
    }

    /// The store holds it for so long, counted from when it was asked to.
    pub(super) fn renewed(&self, length: Option<Duration>, asked_at: Instant) {
        let Some(length) = length else { return };
        self.until.send_if_modified(|until| match until {
            Until::At(at) if *at < asked_at + length => {
                *at = asked_at + length;
                true
            }
            Until::At(_) | Until::ForEver | Until::Lost => false,
        });
    }

    /// Another term has begun: nothing begins under this one any more.
    pub(super) fn lose(&self) {
        self.until.send_replace(Until::Lost);
    }

    /// Whether another process may have begun a term by now.
    pub(super) fn is_over(&self) -> bool {
        !self.until.borrow().holds()
    }

    /// How often it is to be renewed; `None`: it needs not.
    pub(super) fn renew_every(&self) -> Option<Duration> {
        self.length.map(|length| (length / RENEWALS_PER_LEASE).min(RENEW_EVERY_MAX))
    }

    /// How long one renewal may take before another is tried.
    pub(super) fn patience(&self) -> Duration {
        self.length.map_or(RENEW_EVERY_MAX, |length| length / 3)
    }

    /// For whoever must not begin something without it.
    pub(super) fn held(&self) -> Held {
        Held(self.until.subscribe())
    }
}

impl Held {
    /// Waits until it is certainly this process's own, at this moment. For ever, when it is lost.
    pub(super) async fn now(mut self) {
        if self.0.wait_for(Until::holds).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Until {
    fn holds(&self) -> bool {
        match self {
            Self::ForEver => true,
            Self::At(at) => Instant::now() < *at,
            Self::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_is_over_holds_nothing_until_it_is_renewed() {
        let lease = Lease::new(Some(LENGTH), Instant::now());
        lease.held().now().await;
        tokio::time::advance(LENGTH).await;
        assert!(lease.is_over());
        let mut waits = Box::pin(lease.held().now());
        assert!(poll!(&mut waits).is_pending());
        lease.written(Instant::now() - LENGTH);
        assert!(poll!(&mut waits).is_pending(), "the answer came too late to hold anything");
        lease.written(Instant::now());
        assert!(poll!(&mut waits).is_ready() && !lease.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_stays_lost() {
        let lease = Lease::new(Some(LENGTH), Instant::now());
        lease.lose();
        lease.written(Instant::now());
        assert!(lease.is_over());
        assert!(poll!(Box::pin(lease.held().now())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_takes_nothing_back() {
        let lease = Lease::new(Some(LENGTH), Instant::now());
        tokio::time::advance(LENGTH / 2).await;
        lease.written(Instant::now());
        lease.written(Instant::now() - LENGTH / 2);
        tokio::time::advance(LENGTH * 3 / 4).await;
        assert!(!lease.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn alone_on_a_store_there_is_nothing_to_renew() {
        let lease = Lease::new(None, Instant::now());
        tokio::time::advance(LENGTH * 1_000).await;
        assert!(!lease.is_over() && lease.renew_every().is_none());
    }
}
