//! What every adapter of event store, log and snapshots has to do, as tests that run against any of them. Where one
//! adapter shows a gap the suite grows for all; it never branches.
//!
//! An adapter's tests are one line, `actors::conformance!(MyAdapter);`, and what only a process of its own can show
//! ([`killed`]).

pub mod append;
pub mod broker;
pub mod checkpoint;
pub mod follow;
pub mod inbox;
pub mod killed;
pub mod read;
pub mod reopen;
pub mod snapshots;
pub mod unknown;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::commit::{Commit, CommitId};
use crate::event_store::{Appended, EventStore, StoreError};
use crate::log::{Follow, Log};
use crate::order::OrderId;
use crate::snapshots::Snapshots;
use crate::testing::commits::group;

/// How long something may take that is to happen at all.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The three ports as one store.
pub trait Store: EventStore + Log + Snapshots {}

impl<S: EventStore + Log + Snapshots + ?Sized> Store for S {}

/// An adapter with its server or file.
#[async_trait]
pub trait Adapter: Send + Sync + Sized {
    /// One whose store is new and empty.
    async fn new() -> Self;

    /// Opens the store as a process does when it starts. One at a time.
    async fn open(&self) -> Arc<dyn Store>;

    /// Stops using what [`Adapter::open`] gave, as a process does when it ends.
    async fn close(&self, store: Arc<dyn Store>);

    /// Keeps a copy of the store, which is closed.
    async fn back_up(&self);

    /// Puts the copy in the place of the store, which is closed.
    async fn restore(&self);

    /// Begins to write a commit that becomes visible only later. `None` where none can be written meanwhile.
    async fn begin_late(&self, store: &Arc<dyn Store>, commit: Arc<Commit>) -> Option<Box<dyn Late>>;
}

/// A commit that is being written by somebody slow.
#[async_trait]
pub trait Late: Send {
    /// Now it becomes visible.
    async fn land(self: Box<Self>);
}

/// Appends one commit.
///
/// # Panics
/// When the store gives another number of outcomes.
pub async fn append(store: &(impl EventStore + ?Sized), commit: &Arc<Commit>) -> Appended {
    let mut outcomes = store.append(group([Arc::clone(commit)])).await;
    assert_eq!(outcomes.len(), 1, "one outcome a commit");
    outcomes.remove(0)
}

/// Appends one commit that nothing can be wrong with.
///
/// # Panics
/// When it is not written.
#[track_caller]
pub fn written<'a, S: EventStore + ?Sized>(store: &'a S, commit: &'a Arc<Commit>) -> impl Future<Output = ()> + 'a {
    let place = std::panic::Location::caller();
    async move {
        let outcome = append(store, commit).await;
        assert!(matches!(outcome, Appended::Written), "{outcome:?} at {place}");
    }
}

/// What `follow` gives until there are `count`, at most `max` at once, and in good time.
///
/// # Panics
/// When it fails, gives too much at once, or takes too long.
pub async fn next(follow: &mut Box<dyn Follow>, count: usize, max: usize) -> Vec<Arc<Commit>> {
    let all = async {
        let mut commits = Vec::new();
        while commits.len() < count {
            let some = follow.next(max.min(count - commits.len())).await.expect("the log can be followed");
            assert!(some.len() <= max, "{} commits at once, at most {max}", some.len());
            commits.extend(some);
        }
        commits
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the commits arrive")
}

/// Which commits these are.
pub fn ids(commits: &[Arc<Commit>]) -> Vec<CommitId> {
    commits.iter().map(|commit| commit.id()).collect()
}

/// All commits of an order, read in pages of one.
///
/// # Errors
/// When the store fails.
pub async fn stream(store: &dyn Store, order: OrderId) -> Result<Vec<Arc<Commit>>, StoreError> {
    let mut commits: Vec<Arc<Commit>> = Vec::new();
    loop {
        let from = commits.last().map_or(crate::order::Version::FIRST, |last| last.last().next());
        let page = EventStore::read(store, order, from, 1).await?;
        match page.into_iter().next() {
            // Behind the end the last commit is given again.
            Some(commit) if commits.last().is_none_or(|last| last.id() != commit.id()) => commits.push(commit),
            Some(_) | None => return Ok(commits),
        }
    }
}

/// The tests of an adapter: each function of the suite as a test of its own.
#[macro_export]
macro_rules! conformance {
    ($adapter:ty) => {
        $crate::conformance! { $adapter:
            append::{written_is_stored_as_it_was, the_first_writer_of_a_version_wins, the_same_commit_again_is_written,
                a_refused_member_keeps_nobody_from_being_written, an_end_is_continued_once_whatever_its_commits_hold,
                nothing_newer_is_told_truly, an_empty_group_has_no_outcomes, the_largest_group_is_written,
                of_two_at_once_one_wins},
            read::{from_every_version, beyond_the_end_and_of_nobody, whole_streams_in_pages, scanned_from_any_key,
                scanned_by_any_number},
            follow::{from_now, from_any_position, by_several_at_once, behind_others_who_write, what_lands_late,
                a_dropped_future_loses_nothing, far_behind},
            reopen::{everything_is_there, positions_stay, another_log, a_restored_copy, nonsense},
            snapshots::{saved_and_replaced, of_nobody, at_a_commit_that_is_not_there, many},
            unknown::{repeated_until_definite_is_there_once, a_late_one_loses_to_another,
                dropped_and_appended_again_is_there_once},
        }
    };
    ($adapter:ty: $($module:ident::{$($name:ident),+ $(,)?}),+ $(,)?) => {
        mod conformance {
            use super::*;

            $(mod $module {
                use super::*;

                $(#[::core::prelude::v1::test]
                fn $name() {
                    $crate::testing::conformance::block_on($crate::testing::conformance::$module::$name::<$adapter>());
                })+
            })+
        }
    };
}

/// Runs a test of the suite.
///
/// # Panics
/// When there is no runtime to be had.
pub fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[cfg(test)]
mod tests;
