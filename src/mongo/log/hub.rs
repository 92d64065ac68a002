//! The process's change stream: one, opened when the first follower comes and closed when nobody follows. What it tells
//! goes into a ring from which everybody reads at their own pace; nobody holds it up.
//!
//! When the server does not answer, the followers that wait are told so and open the log again from their own positions;
//! the hub goes on from its last event, for as long as somebody follows or may come back. When it cannot go on from
//! there, it ends, and so does everybody who reads from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actors::event_store::StoreError;
use actors::log::LogError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::place::{Entry, Place, Witness};
use super::ring::Ring;
use super::source::{Broken, Source};
use super::tail::Tail;

/// How long it stays open for nobody: who lost the server comes back.
const KEPT: Duration = Duration::from_secs(10);
/// The first wait before the server is tried again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The hub when there is one, and what outlives it.
pub(in crate::mongo) struct Hubs {
    source: Arc<Source>,
    current: Mutex<Option<Arc<Hub>>>,
    replaced: watch::Sender<Option<String>>,
    /// Where the hub runs: a follower's own thread may end before another's.
    runtime: Handle,
}

/// A stretch of the log that is being read, without a gap from its beginning to its end.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    state: watch::Sender<State>,
}

/// What followers wait for.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The number of the next event of the ring.
    pub(super) end: u64,
    pub(super) condition: Condition,
}

/// How the hub is.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// It has seen nothing yet.
    Opening,
    /// It reads.
    Open,
    /// The server does not answer.
    Away(StoreError),
    /// It will not go on.
    Ended(LogError),
}

/// A follower's hold on the hub.
pub(super) struct Attached {
    pub(super) hub: Arc<Hub>,
    pub(super) state: watch::Receiver<State>,
}

impl Hubs {
    pub(in crate::mongo) fn new(source: Arc<Source>) -> Self {
        Self { source, current: Mutex::default(), replaced: watch::Sender::new(None), runtime: Handle::current() }
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Takes part in the hub, which is opened if need be.
    pub(super) fn attach(self: &Arc<Self>) -> Attached {
        let mut current = self.current();
        let hub = match current.as_ref().filter(|hub| !hub.has_ended()) {
            Some(hub) => Arc::clone(hub),
            None => {
                let hub = Arc::new(Hub::new());
                *current = Some(Arc::clone(&hub));
                self.runtime.spawn(run(Arc::clone(self), Arc::clone(&hub)));
                hub
            }
        };
        let state = hub.state.subscribe();
        Attached { hub, state }
    }

    /// Takes part in it once it is known whether the log can be followed.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Attached, LogError> {
        let mut attached = self.attach();
        let opened = tokio::time::timeout(self.source.answer_within(), attached.opened()).await;
        let unknown = |_| Condition::Away(StoreError::Away("the change stream shows nothing yet".to_owned()));
        let condition = opened.unwrap_or_else(unknown);
        condition.passable()?;
        Ok(attached)
    }

    /// Why the store is not the one any more that this process began with, once that was seen.
    pub(super) async fn replaced(self: &Arc<Self>) -> String {
        let mut replaced = self.replaced.subscribe();
        loop {
            let attached = self.attach();
            tokio::select! {
                seen = replaced.wait_for(Option::is_some) => {
                    if let Some(why) = seen.ok().and_then(|why| why.clone()) {
                        return why;
                    }
                }
                () = attached.ended() => {}
            }
            // Whatever ended it: not at once again.
            tokio::time::sleep(RETRY_MAX).await;
        }
    }

    /// Forgets a hub unless somebody follows it.
    fn close(&self, hub: &Arc<Hub>) -> bool {
        let mut current = self.current();
        let followed = hub.state.receiver_count() > 0;
        if !followed && current.as_ref().is_some_and(|current| Arc::ptr_eq(current, hub)) {
            *current = None;
        }
        !followed
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Hub>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attached {
    async fn opened(&mut self) -> Condition {
        let known = |state: &State| !matches!(state.condition, Condition::Opening);
        // Whose sender is gone has ended; the last condition says how.
        let state = self.state.wait_for(known).await.map(|state| state.condition.clone());
        state.unwrap_or_else(|_| self.state.borrow().condition.clone())
    }

    /// Waits until there is something new in the ring, or of the hub.
    pub(super) async fn changed(&mut self) -> Result<(), StoreError> {
        self.state.changed().await.map_err(|_| StoreError::Away("the change stream was closed".to_owned()))
    }

    async fn ended(mut self) {
        let _state = self.state.wait_for(|state| matches!(state.condition, Condition::Ended(_))).await;
    }
}

impl Condition {
    /// Whether there is something to wait for.
    pub(super) fn passable(self) -> Result<(), LogError> {
        match self {
            Self::Opening | Self::Open => Ok(()),
            Self::Away(error) => Err(LogError::Store(error)),
            Self::Ended(error) => Err(error),
        }
    }
}

impl Hub {
    fn new() -> Self {
        Self { ring: Mutex::default(), state: watch::Sender::new(State { end: 0, condition: Condition::Opening }) }
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state.borrow().condition, Condition::Ended(_))
    }

    fn push(&self, entries: Vec<Entry>) {
        let mut ring = self.ring();
        for entry in entries {
            ring.push(entry);
        }
        let end = ring.end();
        drop(ring);
        self.state.send_modify(|state| state.end = end);
    }

    fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    /// Waits until nobody has followed for a while.
    async fn unneeded(&self) {
        loop {
            self.state.closed().await;
            tokio::time::sleep(KEPT).await;
            if self.state.receiver_count() == 0 {
                return;
            }
        }
    }
}

/// Ends the hub however its task ends.
struct Ending(Arc<Hub>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.set(Condition::Ended(LogError::Store(StoreError::Away("the change stream was closed".to_owned()))));
        }
    }
}

async fn run(hubs: Arc<Hubs>, hub: Arc<Hub>) {
    let ending = Ending(Arc::clone(&hub));
    let mut reader = Reader::new(Arc::clone(&hubs.source), Arc::clone(&hub));
    loop {
        tokio::select! {
            broken = reader.read() => {
                if let Broken::Replaced(why) = &broken {
                    hubs.replaced.send_replace(Some(why.clone()));
                }
                tracing::error!(error = %LogError::from(broken.clone()), "the log cannot be followed any more from here");
                hub.set(Condition::Ended(broken.into()));
                break;
            }
            () = hub.unneeded() => {
                if hubs.close(&hub) {
                    break;
                }
            }
        }
    }
    drop(ending);
}

/// Fills the ring.
struct Reader {
    source: Arc<Source>,
    hub: Arc<Hub>,
    /// Behind the last event of the ring.
    place: Option<Place>,
    /// The last commit of the ring.
    commit: Option<Witness>,
    /// When the last event came.
    heard: Instant,
    /// How often the server has failed to answer in a row.
    failures: u32,
}

impl Reader {
    fn new(source: Arc<Source>, hub: Arc<Hub>) -> Self {
        Self { source, hub, place: None, commit: None, heard: Instant::now(), failures: 0 }
    }

    /// Reads for ever; ends when it cannot go on from where it is.
    async fn read(&mut self) -> Broken {
        loop {
            match self.read_until_broken().await {
                Broken::Store(error) => self.wait(error).await,
                Broken::Lost(why) => match self.what_is_lost(why).await {
                    Broken::Store(error) => self.wait(error).await,
                    lost @ (Broken::Lost(_) | Broken::Replaced(_)) => return lost,
                },
                replaced @ Broken::Replaced(_) => return replaced,
            }
        }
    }

    /// Whether a place is lost alone, or with the store. The last commit says it: where that is, everything is that was
    /// committed before it. A hub that saw none has only its opening, which is too young to have been deleted.
    async fn what_is_lost(&self, why: String) -> Broken {
        let opening = self.place.as_ref().map(|place| place.witness);
        let Some(witness) = self.commit.or(opening) else { return Broken::Lost(why) };
        match self.source.has(&witness).await {
            Ok(()) => Broken::Lost(why),
            Err(Broken::Lost(gone)) => Broken::Replaced(gone),
            Err(broken @ (Broken::Replaced(_) | Broken::Store(_))) => broken,
        }
    }

    async fn read_until_broken(&mut self) -> Broken {
        let mut tail = match self.open().await {
            Ok(tail) => tail,
            Err(broken) => return broken,
        };
        loop {
            match tail.page().await {
                Ok(entries) => self.take(entries, tail.has_seen_mark()),
                Err(broken) => return broken,
            }
            if let Err(broken) = self.end_silence().await {
                return broken;
            }
        }
    }

    /// Writes an event when none has come for long, so that every position stays near the end of the log.
    async fn end_silence(&mut self) -> Result<(), Broken> {
        if self.heard.elapsed() >= self.source.quiet_max() {
            self.source.write_opening().await?;
            self.heard = Instant::now();
        }
        Ok(())
    }

    async fn open(&self) -> Result<Tail, Broken> {
        if self.place.is_none() {
            // Without it openings stay for ever, which is no reason not to follow.
            if let Err(Broken::Store(error)) = self.source.make_index().await {
                tracing::warn!(%error, "the index by which openings are deleted is not there");
            }
        }
        Tail::open(&self.source, self.place.clone()).await
    }

    /// A hub that goes on does so from its place. A new one begins with its mark: what came before the mark may have
    /// a gap, since there is no place yet from which the stream could be opened again.
    fn take(&mut self, entries: Vec<Entry>, marked: bool) {
        if self.place.is_none() && !marked {
            return;
        }
        // A stream that was only opened has not shown that it can be read.
        if marked {
            self.failures = 0;
        }
        if let Some(last) = entries.last() {
            self.place = Some(last.place());
            self.heard = Instant::now();
        }
        if let Some(commit) = entries.iter().rev().find_map(Entry::commit) {
            self.commit = Some(Witness::Commit(commit.key(), commit.id()));
        }
        if !entries.is_empty() {
            self.hub.push(entries);
        }
        let open = matches!(self.hub.state.borrow().condition, Condition::Open);
        if !open {
            self.hub.set(Condition::Open);
        }
    }

    /// Once it is tried again without a word: a primary may have stepped down.
    async fn wait(&mut self, error: StoreError) {
        self.failures += 1;
        let opened = self.place.is_some();
        if self.failures == 1 && opened {
            return;
        }
        if self.failures <= 2 {
            tracing::warn!(%error, "the change stream broke off, and is opened again until the server answers");
        }
        self.hub.set(Condition::Away(error));
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(10));
        tokio::time::sleep(doubled.min(RETRY_MAX)).await;
    }
}
