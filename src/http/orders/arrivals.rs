//! Tells those who wait for an order's next event when there may be one. The log is followed once for all of them, by
//! whichever of them is there: where nobody waits nothing follows, and whoever leaves leaves the follower to the next.
//!
//! It says when to look, never what there is: whoever is told reads the trail, so a reader that is slow holds nothing here,
//! and what was missed while the log could not be followed is found all the same.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::log::{Follow, From, Log};
use actors::order::OrderId;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;

/// Commits taken from the log at a time.
const PAGE: usize = 1_000;
/// The first wait before the log is opened again, and the longest.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// Who waits in this process. Cheap to clone.
#[derive(Clone, Default)]
pub(in super::super) struct Arrivals {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<OrderId, watch::Sender<()>>>,
    /// The open log, held by whoever waits in it for the others.
    follower: tokio::sync::Mutex<Option<Box<dyn Follow>>>,
}

/// One that waits for an order's events.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    order: OrderId,
    told: watch::Receiver<()>,
}

impl Arrivals {
    /// Waits from now on: of everything that is committed after this [`Waiting::next`] tells.
    pub(super) fn of(&self, order: OrderId) -> Waiting {
        let mut waiting = self.shared.waiting();
        let told = waiting.entry(order).or_insert_with(|| watch::Sender::new(())).subscribe();
        drop(waiting);
        Waiting { shared: Arc::clone(&self.shared), order, told }
    }
}

impl Waiting {
    /// Returns when the order may have an event that was not told of. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, log: &dyn Log) {
        tokio::select! {
            biased;
            // The sender is there for as long as anybody waits.
            _ = self.told.changed() => {}
            never = self.shared.follow(log) => match never {},
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting();
        // This one still counts.
        if waiting.get(&self.order).is_some_and(|others| others.receiver_count() <= 1) {
            waiting.remove(&self.order);
        }
        // A log that nobody reads from any more would have to be read through later.
        if waiting.is_empty()
            && let Ok(mut follower) = self.shared.follower.try_lock()
        {
            *follower = None;
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the log for all, as soon as nobody else does.
    async fn follow(&self, log: &dyn Log) -> Infallible {
        let mut follower = self.follower.lock().await;
        let mut wait = AGAIN_AFTER;
        loop {
            let Some(open) = follower.as_mut() else {
                match log.follow(From::Now).await {
                    Ok(open) => {
                        *follower = Some(open);
                        wait = AGAIN_AFTER;
                        // What came before it was open nobody has told of.
                        self.tell_all();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the log cannot be followed for those who wait for an order's events");
                        sleep(wait).await;
                        wait = (wait * 2).min(AGAIN_AFTER_MAX);
                    }
                }
                continue;
            };
            match open.next(PAGE).await {
                Ok(commits) => {
                    let waiting = self.waiting();
                    for told in commits.iter().filter_map(|commit| waiting.get(&commit.order())) {
                        told.send_replace(());
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the log is opened again for those who wait for an order's events");
                    *follower = None;
                    sleep(AGAIN_AFTER).await;
                }
            }
            // So that one that follows for others learns of its own order, however much happens.
            yield_now().await;
        }
    }

    fn tell_all(&self) {
        for told in self.waiting().values() {
            told.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use actors::commit::{Commit, StreamEnd};
    use actors::event_store::EventStore;
    use actors::testing::commits::{commit, group};
    use actors::testing::memory::Memory;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    async fn appended(store: &Memory, end: &StreamEnd) -> StreamEnd {
        let commit: Arc<Commit> = commit(end, 1);
        store.append(group([Arc::clone(&commit)])).await;
        commit.stored_end()
    }

    /// Until it is told; false when it is not within a minute of virtual time.
    async fn is_told(waiting: &mut Waiting, store: &Memory) -> bool {
        timeout(SOON, waiting.next(store)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_of_its_own_order_and_of_no_other() {
        let (store, arrivals) = (Memory::new(), Arrivals::default());
        let (mine, other) = (StreamEnd::nothing(OrderId::generate()), StreamEnd::nothing(OrderId::generate()));
        let mut waiting = arrivals.of(mine.order());
        assert!(is_told(&mut waiting, &store).await, "the log was opened: something may have been missed");
        let other = appended(&store, &other).await;
        assert!(!is_told(&mut waiting, &store).await);
        let mine = appended(&store, &mine).await;
        appended(&store, &other).await;
        assert!(is_told(&mut waiting, &store).await);
        assert!(!is_told(&mut waiting, &store).await);
        appended(&store, &mine).await;
        assert!(is_told(&mut waiting, &store).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_nobody_looks_is_told_afterwards() {
        let (store, arrivals) = (Memory::new(), Arrivals::default());
        let end = StreamEnd::nothing(OrderId::generate());
        let (mut first, mut second) = (arrivals.of(end.order()), arrivals.of(end.order()));
        assert!(is_told(&mut first, &store).await && is_told(&mut second, &store).await);
        let end = appended(&store, &end).await;
        assert!(is_told(&mut first, &store).await);
        // Whoever followed for both has left.
        drop(first);
        assert!(is_told(&mut second, &store).await);
        appended(&store, &end).await;
        assert!(is_told(&mut second, &store).await);
        assert!(!is_told(&mut second, &store).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_follows_for_others_and_stands_still_lets_them_follow() {
        let (store, arrivals) = (Memory::new(), Arrivals::default());
        let end = StreamEnd::nothing(OrderId::generate());
        let (mut first, mut second) = (arrivals.of(OrderId::generate()), arrivals.of(end.order()));
        assert!(is_told(&mut first, &store).await && is_told(&mut second, &store).await);
        {
            let mut follows = pin!(first.next(&store));
            assert!(follows.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            appended(&store, &end).await;
            assert!(arrivals.shared.follower.try_lock().is_err(), "it follows");
        }
        assert!(is_told(&mut second, &store).await);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_waits_nothing_follows_and_nothing_is_kept() {
        let (store, arrivals) = (Memory::new(), Arrivals::default());
        let order = OrderId::generate();
        let (mut first, second) = (arrivals.of(order), arrivals.of(order));
        assert!(is_told(&mut first, &store).await);
        drop(second);
        assert_eq!(arrivals.shared.waiting().len(), 1);
        assert!(arrivals.shared.follower.try_lock().is_ok_and(|follower| follower.is_some()));
        drop(first);
        assert!(arrivals.shared.waiting().is_empty());
        assert!(arrivals.shared.follower.try_lock().is_ok_and(|follower| follower.is_none()));
    }
}
