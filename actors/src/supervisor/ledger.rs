//! Every restart and quarantine as data: live for followers, logged once, counted, the last thousand in memory and in
//! a store. A store that fails or is slow costs entries in the store, counted and said, and nothing else.

mod entry;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, mpsc};

pub use entry::{Cause, Decided, Entry, Message};
pub use store::{LedgerInMemory, LedgerStore};

use crate::event_store::StoreError;

/// How many entries are kept, in memory and in the store.
pub const ENTRIES_MAX: usize = 1_000;

/// The ledger of one node. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

/// How often what failed, why, and what followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// As [`Entry::kind`].
    pub kind: Arc<str>,
    /// As [`Cause::name`].
    pub cause: &'static str,
    /// As [`Decided::name`].
    pub decision: &'static str,
    /// How often since the process started.
    pub count: u64,
}

struct Inner {
    node: Arc<str>,
    book: Mutex<Book>,
    live: broadcast::Sender<Arc<Entry>>,
    to_store: mpsc::Sender<Arc<Entry>>,
    /// Where other nodes' entries are, too.
    store: OnceLock<Arc<dyn LedgerStore>>,
    unstored: tokio::sync::Mutex<Unstored>,
    lost: AtomicU64,
}

/// What waits for the store.
#[derive(Debug)]
struct Unstored {
    queue: mpsc::Receiver<Arc<Entry>>,
    batch: Vec<Arc<Entry>>,
    lost_said: u64,
}

#[derive(Debug, Default)]
struct Book {
    last_seq: u64,
    entries: VecDeque<Arc<Entry>>,
    counts: BTreeMap<(Arc<str>, &'static str, Decided), u64>,
}

const FOLLOWER_BEHIND_MAX: usize = 256;
const STORE_BATCH_MAX: usize = 100;
const STORE_RETRY: Duration = Duration::from_secs(5);

impl Ledger {
    /// An empty one.
    pub fn new(node: &str) -> Self {
        let (live, _) = broadcast::channel(FOLLOWER_BEHIND_MAX);
        let (to_store, queue) = mpsc::channel(ENTRIES_MAX);
        Self(Arc::new(Inner {
            node: node.into(),
            book: Mutex::default(),
            live,
            to_store,
            store: OnceLock::new(),
            unstored: tokio::sync::Mutex::new(Unstored { queue, batch: Vec::new(), lost_said: 0 }),
            lost: AtomicU64::new(0),
        }))
    }

    /// The node's name.
    pub fn node(&self) -> &Arc<str> {
        &self.0.node
    }

    /// Takes in what earlier runs have left in the store, which is the one that [`last_of_all`](Self::last_of_all) asks
    /// from now on. To be called once, before anything can fail.
    ///
    /// # Errors
    /// The store's; the ledger is then as before, and works.
    pub async fn load(&self, store: &Arc<dyn LedgerStore>) -> Result<(), StoreError> {
        let store = self.0.store.get_or_init(|| Arc::clone(store));
        let loaded = store.load().await?;
        let mut book = self.book();
        let first = book.entries.front().map_or(u64::MAX, |entry| entry.seq);
        for entry in loaded.into_iter().rev() {
            book.last_seq = book.last_seq.max(entry.seq);
            if entry.seq < first && book.entries.len() < ENTRIES_MAX {
                book.entries.push_front(Arc::new(entry));
            }
        }
        Ok(())
    }

    /// Writes what is recorded to the store, for ever: a job for a task child. When the store fails it is tried again
    /// a little later; entries that find the queue full are lost to the store, counted and said.
    pub async fn keep(self, store: Arc<dyn LedgerStore>) {
        let mut unstored = self.0.unstored.lock().await;
        // A batch stays with the queue until it is stored: a keeper that is begun again goes on with it.
        let Unstored { queue, batch, lost_said } = &mut *unstored;
        loop {
            if batch.is_empty() && queue.recv_many(batch, STORE_BATCH_MAX).await == 0 {
                return;
            }
            if let Err(error) = store.append(batch).await {
                tracing::warn!(%error, "the ledger cannot be stored now");
                tokio::time::sleep(STORE_RETRY).await;
                continue;
            }
            batch.clear();
            let lost = self.lost();
            if lost > *lost_said {
                tracing::warn!(lost = lost - *lost_said, "entries of the ledger were not stored: they came too fast");
                *lost_said = lost;
            }
        }
    }

    /// Writes what is recorded and not stored yet, once: for the end, when [`keep`](Self::keep) is over.
    pub async fn keep_rest(&self, store: &dyn LedgerStore) {
        let mut unstored = self.0.unstored.lock().await;
        let Unstored { queue, batch, .. } = &mut *unstored;
        while let Ok(entry) = queue.try_recv() {
            batch.push(entry);
        }
        if batch.is_empty() {
            return;
        }
        match store.append(batch).await {
            Ok(()) => batch.clear(),
            Err(error) => tracing::warn!(%error, "the end of the ledger could not be stored"),
        }
    }

    /// Records a failure: gives it its number, logs it, counts it, tells the followers, queues it for the store.
    ///
    /// Of a child that is restarted for ever only the attempts 1 to 4, 8, 16, 32 … in a row are kept and told: a broker
    /// that is away for a night would otherwise leave nothing else in the ledger. All are counted.
    pub fn record(&self, mut entry: Entry) -> Arc<Entry> {
        let entry = {
            let mut book = self.book();
            // Milliseconds as a floor: greater than those of earlier runs, also when the store could not be read.
            let floor = u64::try_from(entry.at.as_millis()).unwrap_or(0);
            entry.seq = floor.max(book.last_seq.saturating_add(1));
            book.last_seq = entry.seq;
            *book.counts.entry((Arc::clone(&entry.kind), entry.cause.name(), entry.decision)).or_default() += 1;
            let entry = Arc::new(entry);
            if is_repetition(&entry) {
                return entry;
            }
            if book.entries.len() == ENTRIES_MAX {
                book.entries.pop_front();
            }
            book.entries.push_back(Arc::clone(&entry));
            entry
        };
        log(&entry);
        // Nobody may follow.
        let _ = self.0.live.send(Arc::clone(&entry));
        if self.0.to_store.try_send(Arc::clone(&entry)).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        entry
    }

    /// The last entries, at most `limit`, the newest first.
    pub fn last(&self, limit: usize) -> Vec<Arc<Entry>> {
        self.book().entries.iter().rev().take(limit).cloned().collect()
    }

    /// The last entries of all nodes that share the store, at most `limit`, the newest first: what is stored, and what is
    /// known here. When the store does not answer, what is known here.
    pub async fn last_of_all(&self, limit: usize) -> Vec<Arc<Entry>> {
        let stored = match self.0.store.get() {
            Some(store) => store.load().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "other nodes' entries of the ledger cannot be read now");
                Vec::new()
            }),
            None => Vec::new(),
        };
        let known = self.book().entries.iter().cloned().collect::<Vec<_>>();
        let all = stored.into_iter().map(Arc::new).chain(known);
        let by_number: BTreeMap<_, _> = all.map(|entry| ((entry.seq, Arc::clone(&entry.node)), entry)).collect();
        by_number.into_values().rev().take(limit).collect()
    }

    /// Every entry from now on. Who is too far behind misses the oldest and is told how many.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.0.live.subscribe()
    }

    /// How often what happened since the process started.
    pub fn counts(&self) -> Vec<Count> {
        let count = |((kind, cause, decided), count): (&(Arc<str>, &'static str, Decided), &u64)| Count {
            kind: Arc::clone(kind),
            cause,
            decision: decided.name(),
            count: *count,
        };
        self.book().counts.iter().map(count).collect()
    }

    /// How many entries the store did not get because it was slower than they came.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.0.book)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("node", &self.0.node).finish_non_exhaustive()
    }
}

fn is_repetition(entry: &Entry) -> bool {
    entry.attempts_max.is_none() && entry.attempt > 4 && !entry.attempt.is_power_of_two()
}

fn log(entry: &Entry) {
    let message = entry.message.as_ref();
    let (name, detail) = (message.map(|m| m.name.as_str()), message.and_then(|m| m.detail.as_deref()));
    let (path, cause, decision) = (&*entry.path, &entry.cause, entry.decision.name());
    let next_try_at = entry.next_try_at.map(tracing::field::display);
    let (attempt, attempts_max) = (entry.attempt, entry.attempts_max);
    match entry.decision {
        Decided::Restart => {
            tracing::warn!(path, decision, attempt, attempts_max, next_try_at, handling = name, detail, "{cause}");
        }
        Decided::Quarantine | Decided::Escalate | Decided::End => {
            tracing::error!(path, decision, attempt, attempts_max, next_try_at, handling = name, detail, "{cause}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::supervisor::panic::Panic;

    fn entry(at_millis: i64) -> Entry {
        Entry {
            seq: 0,
            at: Timestamp::from_millis(at_millis),
            node: "test".into(),
            path: "docket/orders/0/o-1".into(),
            kind: "order".into(),
            cause: Cause::Error { text: "no".to_owned() },
            message: None,
            attempt: 1,
            attempts_max: Some(5),
            within_ms: 60_000,
            decision: Decided::Restart,
            next_try_at: Some(Timestamp::from_millis(at_millis + 100)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_outlive_the_process_and_numbers_never_repeat_also_when_the_clock_goes_back() {
        let store: Arc<dyn LedgerStore> = Arc::new(LedgerInMemory::default());
        let first = Ledger::new("test");
        let keeper = tokio::spawn(first.clone().keep(store.clone()));
        let seqs: Vec<_> = [1_000, 1_000, 900].map(|at| first.record(entry(at)).seq).into();
        assert_eq!(seqs, [1_000, 1_001, 1_002]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        keeper.abort();

        let second = Ledger::new("test");
        second.load(&store).await.expect("here");
        assert_eq!(second.record(entry(500)).seq, 1_003);
        let seqs: Vec<_> = second.last(9).iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1_003, 1_002, 1_001, 1_000]);
    }

    #[test]
    fn what_is_tried_for_ever_leaves_room_for_others() {
        let ledger = Ledger::new("test");
        for attempt in 1..=5_000 {
            ledger.record(Entry { attempt, attempts_max: None, ..entry(1_000) });
        }
        let attempts: Vec<_> = ledger.last(ENTRIES_MAX).iter().map(|entry| entry.attempt).collect();
        assert_eq!(attempts, [4_096, 2_048, 1_024, 512, 256, 128, 64, 32, 16, 8, 4, 3, 2, 1]);
        assert_eq!(ledger.counts().first().map(|count| count.count), Some(5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_disturbs_nobody_and_what_it_missed_is_counted() {
        let store = Arc::new(LedgerInMemory::default());
        store.set_away(true);
        let ledger = Ledger::new("test");
        ledger.load(&(store.clone() as Arc<dyn LedgerStore>)).await.expect_err("away");
        let keeper = tokio::spawn(ledger.clone().keep(store.clone()));
        tokio::task::yield_now().await;
        for at in 0..5_000 {
            ledger.record(entry(at));
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(ledger.last(usize::MAX).len(), ENTRIES_MAX);
        assert_eq!(ledger.counts()[0].count, 5_000);
        assert_eq!(store.load().await.map(|entries| entries.len()).ok(), None);
        store.set_away(false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let stored = store.load().await.expect("here").len() as u64;
        assert!(stored > 0 && stored + ledger.lost() >= 5_000, "{stored} stored, {} lost", ledger.lost());
        keeper.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_tells_of_all_that_share_the_store_and_of_itself_when_that_is_away() {
        let memory = Arc::new(LedgerInMemory::default());
        let store: Arc<dyn LedgerStore> = memory.clone();
        let (one, other) = (Ledger::new("one"), Ledger::new("other"));
        for ledger in [&one, &other] {
            ledger.load(&store).await.expect("here");
        }
        for (ledger, node, at) in [(&one, "one", 1), (&other, "other", 2), (&one, "one", 3), (&other, "other", 4)] {
            ledger.record(Entry { node: node.into(), ..entry(at) });
        }
        one.keep_rest(&*store).await;
        let seqs = async |ledger: &Ledger, limit| -> Vec<u64> {
            ledger.last_of_all(limit).await.iter().map(|entry| entry.seq).collect()
        };
        assert_eq!(seqs(&one, 9).await, [3, 1], "the other has stored nothing yet");
        assert_eq!(seqs(&other, 9).await, [4, 3, 2, 1]);
        other.keep_rest(&*store).await;
        assert_eq!(seqs(&one, 9).await, [4, 3, 2, 1]);
        assert_eq!(seqs(&one, 2).await, [4, 3]);
        memory.set_away(true);
        assert_eq!(seqs(&one, 9).await, [3, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_recorded_at_the_end_is_stored_too() {
        let store = LedgerInMemory::default();
        let ledger = Ledger::new("test");
        ledger.record(entry(1));
        ledger.record(entry(2));
        ledger.keep_rest(&store).await;
        assert_eq!(store.load().await.expect("here").len(), 2);
        ledger.keep_rest(&store).await;
        assert_eq!(store.load().await.expect("here").len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_is_started_again_goes_on_where_the_last_one_was() {
        let store = Arc::new(LedgerInMemory::default());
        store.set_away(true);
        let ledger = Ledger::new("test");
        let keeper = tokio::spawn(ledger.clone().keep(store.clone()));
        let recorded = ledger.record(entry(1)).seq;
        tokio::time::sleep(Duration::from_secs(1)).await;
        keeper.abort();
        store.set_away(false);
        let keeper = tokio::spawn(ledger.clone().keep(store.clone()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stored: Vec<_> = store.load().await.expect("here").iter().map(|entry| entry.seq).collect();
        assert_eq!(stored, [recorded]);
        keeper.abort();
    }

    #[tokio::test]
    async fn a_follower_that_is_slow_is_told_what_it_missed_and_holds_nobody_up() {
        let ledger = Ledger::new("test");
        let mut follower = ledger.follow();
        for at in 0..300 {
            ledger.record(entry(at));
        }
        let missed = follower.recv().await.expect_err("it was too far behind");
        assert!(matches!(missed, broadcast::error::RecvError::Lagged(44)), "{missed}");
        assert_eq!(follower.recv().await.expect("the oldest that is left").at.as_millis(), 44);
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let mut entry = entry(1);
        let inner = Cause::Panic(Panic { text: "boom".to_owned(), place: "a.rs:1:2".to_owned() });
        entry.cause = Cause::Escalated { path: "docket/journal".into(), cause: Box::new(inner) };
        entry.message =
            Some(Message { name: "PayOrder".to_owned(), detail: None, caller_told: Some("504".to_owned()) });
        let text = serde_json::to_string(&entry).expect("JSON");
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("own text"), entry);
    }
}
