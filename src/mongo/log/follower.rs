//! Who follows: from the ring while they keep up, from a change stream of their own while they are behind it. They go
//! over to the ring at an event that both have told, so nothing is left out and nothing comes twice.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::commit::Commit;
use actors::log::{Follow, LogError, Position};
use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt};

use super::hub::{Attached, Hubs};
use super::place::{Entry, Inserted, Place};
use super::source::{Broken, Source};
use super::tail::Tail;

/// Most events taken from the ring at once.
const ENTRIES_AT_ONCE: usize = 1_024;

/// Most pages of a follower's own stream that are read before it is opened to its caller.
const PAGES_UNTIL_CLEAR_MAX: u32 = 3;

/// What its own stream gives.
type Page = Result<(Tail, Vec<Entry>), Broken>;

/// A follower.
pub(super) struct Follower {
    hubs: Arc<Hubs>,
    attached: Attached,
    /// Behind the last commit given, and the openings that follow it.
    given: Place,
    /// Behind the last event read.
    read: Place,
    /// Read and not yet given.
    ahead: VecDeque<Entry>,
    from: From,
}

/// From where it reads.
enum From {
    /// The ring, the event with that number next.
    Ring(u64),
    /// A change stream of its own. The page is kept here so that reading goes on when [`Follow::next`] is dropped and
    /// called again.
    Tail(BoxFuture<'static, Page>),
    /// Nowhere any more.
    Nowhere(LogError),
}

impl Follower {
    /// Behind the event of the ring with that number.
    pub(super) fn in_ring(hubs: &Arc<Hubs>, attached: Attached, number: u64, place: Place) -> Self {
        let from = From::Ring(number + 1);
        Self { hubs: Arc::clone(hubs), attached, given: place.clone(), read: place, ahead: VecDeque::new(), from }
    }

    /// Behind a place that the ring does not have. Usually ends when it is clear that the place is one of this log.
    pub(super) async fn behind(hubs: &Arc<Hubs>, attached: Attached, place: Place) -> Result<Self, LogError> {
        let mut follower = Self::in_ring(hubs, attached, 0, place.clone());
        let mut tail = open(Arc::clone(hubs.source()), place).await?;
        for _ in 0..PAGES_UNTIL_CLEAR_MAX {
            let page = tail.page().await?;
            follower.take(page);
            if tail.has_seen_mark() || tail.has_given() {
                break;
            }
        }
        follower.read_on(tail);
        Ok(follower)
    }

    fn take(&mut self, entries: Vec<Entry>) {
        if let Some(last) = entries.last() {
            self.read = last.place();
        }
        self.ahead.extend(entries);
    }

    /// The next commits of those events that were read; none when these are openings.
    fn give(&mut self, max: usize) -> Option<Vec<Arc<Commit>>> {
        let mut commits = Vec::new();
        let mut moved = false;
        while let Some(entry) = self.ahead.pop_front_if(|entry| commits.len() < max || entry.commit().is_none()) {
            self.given = entry.place();
            moved = true;
            match entry.inserted {
                Inserted::Commit(commit) => commits.push(commit),
                Inserted::Opening(_) => {}
            }
        }
        moved.then_some(commits)
    }

    /// Goes over to the ring when it has the last event read, else reads the next page.
    fn read_on(&mut self, tail: Tail) {
        if self.attached.hub.has_ended() {
            self.attached = self.hubs.attach();
        }
        // The mark shows that the stream goes on from its place at all.
        let met = self.attached.hub.ring().find(&self.read.token).map(|(number, _)| number);
        self.from = match met.filter(|_| tail.has_seen_mark()) {
            Some(number) => From::Ring(number + 1),
            None => From::Tail(page(tail).boxed()),
        };
    }

    async fn read_ring(&mut self, number: u64) -> Result<(), LogError> {
        let condition = self.attached.state.borrow_and_update().condition.clone();
        let entries = self.attached.hub.ring().from(number, ENTRIES_AT_ONCE);
        match entries {
            Some(entries) if entries.is_empty() => {
                condition.passable()?;
                self.attached.changed().await?;
            }
            Some(entries) => {
                self.from = From::Ring(number + entries.len() as u64);
                self.take(entries);
            }
            None => {
                let source = Arc::clone(self.hubs.source());
                self.from = From::Tail(reopen(source, self.read.clone()).boxed());
            }
        }
        Ok(())
    }
}

async fn open(source: Arc<Source>, place: Place) -> Result<Tail, Broken> {
    Tail::open(&source, Some(place)).await
}

async fn page(mut tail: Tail) -> Page {
    let entries = tail.page().await?;
    Ok((tail, entries))
}

async fn reopen(source: Arc<Source>, place: Place) -> Page {
    page(open(source, place).await?).await
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        loop {
            if let Some(commits) = self.give(max.max(1)) {
                return Ok(commits);
            }
            let read = match &mut self.from {
                From::Ring(number) => {
                    let number = *number;
                    self.read_ring(number).await
                }
                From::Tail(page) => match page.await {
                    Ok((tail, entries)) => {
                        self.take(entries);
                        self.read_on(tail);
                        Ok(())
                    }
                    Err(broken) => Err(broken.into()),
                },
                From::Nowhere(error) => Err(error.clone()),
            };
            if let Err(error) = read {
                self.from = From::Nowhere(error.clone());
                return Err(error);
            }
        }
    }

    fn position(&self) -> Position {
        self.given.position(self.hubs.source().log)
    }
}
