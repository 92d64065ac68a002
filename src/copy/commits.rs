//! The commits: brought in the order of their keys, and compared one by one.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::commit::{Commit, CommitId, CommitKey};
use actors::event_store::Appended;
use actors::log::Log;
use serde::{Deserialize, Serialize};

use super::compare::{Sum, Summing};
use super::{CopyError, Copying, Source, Step, unreadable};
use crate::mongo::Store;

/// Commits of a page. They are read and written together.
const PAGE_MAX: usize = 1_000;

/// How far the commits are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Brought {
    /// The end of the folder's log when they were read. With another one there may be new ones anywhere.
    pub(super) end: (i64, Option<CommitId>),
    /// Everything up to this key is there.
    after: Option<String>,
    /// How many those are.
    count: u64,
    all: bool,
    /// When the copy is complete: what was read back.
    pub(super) total: Option<Sum>,
}

impl Brought {
    /// Nothing yet.
    pub(super) fn nothing(of: &Source) -> Self {
        Self { end: of.store.end(), after: None, count: 0, all: false, total: None }
    }
}

/// Brings those that are not there yet.
pub(super) async fn copy(
    copying: &mut Copying<'_>,
    store: &Store,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<(), CopyError> {
    if copying.progress.commits.all {
        return Ok(());
    }
    let of = u64::try_from(copying.progress.commits.end.0).unwrap_or(0);
    watch(Step::Begins { what: "commits", of, done: copying.progress.commits.count });
    loop {
        let after = copying.progress.commits.after.as_deref().and_then(|key| key.parse().ok());
        let page = copying.source.store.scan(after, PAGE_MAX).await.map_err(unreadable("a commit in the folder"))?;
        match page.last() {
            Some(last) => copying.progress.commits.after = Some(last.key().to_string()),
            None => copying.progress.commits.all = true,
        }
        insert(copying, store, &page).await?;
        copying.progress.commits.count += page.len() as u64;
        copying.save().await?;
        watch(Step::Done(page.len() as u64));
        if page.is_empty() {
            return Ok(());
        }
    }
}

/// Inserts them until each is certainly there.
async fn insert(copying: &Copying<'_>, store: &Store, page: &[Arc<Commit>]) -> Result<(), CopyError> {
    let mut open = page.to_vec();
    let mut taken = None;
    let patience = copying.target.patience;
    let inserted = patience.done(async || {
        if open.is_empty() || taken.is_some() {
            return Ok(());
        }
        let outcomes = store.append_all(&open).await;
        let mut failed = None;
        let mut still_open = Vec::new();
        for (commit, outcome) in std::mem::take(&mut open).into_iter().zip(outcomes) {
            match outcome {
                Appended::Written => {}
                Appended::Conflict => taken = taken.or(Some(commit.key())),
                Appended::NotDone(why) | Appended::Unknown(why) => {
                    failed = Some(why);
                    still_open.push(commit);
                }
            }
        }
        open = still_open;
        failed.map_or(Ok(()), Err)
    });
    inserted.await?;
    taken.map_or(Ok(()), |key| {
        Err(CopyError::NotOurs(format!(
            "under the key {key} the database {} holds another commit than the folder: somebody else has written there. \
             Copy into another one (--database)",
            copying.target.database
        )))
    })
}

/// Reads both sides through, and says what they have, or where they differ first.
pub(super) async fn compare(
    copying: &Copying<'_>,
    store: &Store,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Sum, CopyError> {
    watch(Step::Begins { what: "commits, read back", of: copying.progress.commits.count, done: 0 });
    let (mut here, mut there) = (Pages::default(), Pages::default());
    let (mut sum_here, mut sum_there) = (Summing::default(), Summing::default());
    let mut unwatched = 0;
    loop {
        if here.is_empty() {
            let page = copying.source.store.scan(here.after, PAGE_MAX).await;
            here.turn(page.map_err(unreadable("a commit in the folder"))?);
            watch(Step::Done(std::mem::take(&mut unwatched)));
        }
        if there.is_empty() {
            let page = copying.target.patience.done(async || store.scan(there.after, PAGE_MAX).await).await?;
            there.turn(page);
        }
        let (ours, theirs) = match (here.next(), there.next()) {
            (None, None) => break,
            (Some(ours), Some(theirs)) => (ours, theirs),
            (Some(ours), None) => return Err(missing(ours.key())),
            (None, Some(theirs)) => return Err(foreign(theirs.key())),
        };
        match ours.key().cmp(&theirs.key()) {
            std::cmp::Ordering::Less => return Err(missing(ours.key())),
            std::cmp::Ordering::Greater => return Err(foreign(theirs.key())),
            std::cmp::Ordering::Equal if ours.id() != theirs.id() || ours.encoded() != theirs.encoded() => {
                return Err(CopyError::Differs(format!("the commit {} is another one there", ours.key())));
            }
            std::cmp::Ordering::Equal => {}
        }
        add(&mut sum_here, &ours);
        add(&mut sum_there, &theirs);
        unwatched += 1;
    }
    let (here, there) = (sum_here.sum(), sum_there.sum());
    if here == there { Ok(here) } else { Err(CopyError::Differs(format!("{here} here, {there} there"))) }
}

fn add(sum: &mut Summing, commit: &Commit) {
    sum.add(&[commit.key().to_string().as_bytes(), commit.id().0.as_bytes(), commit.encoded().as_bytes()]);
}

fn missing(key: CommitKey) -> CopyError {
    CopyError::Differs(format!("the commit {key} is not there"))
}

fn foreign(key: CommitKey) -> CopyError {
    CopyError::Differs(format!("the commit {key} is there and not in the folder"))
}

/// The commits of one side, page by page.
#[derive(Default)]
struct Pages {
    page: VecDeque<Arc<Commit>>,
    after: Option<CommitKey>,
}

impl Pages {
    fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    fn turn(&mut self, page: Vec<Arc<Commit>>) {
        self.after = page.last().map_or(self.after, |last| Some(last.key()));
        self.page = page.into();
    }

    fn next(&mut self) -> Option<Arc<Commit>> {
        self.page.pop_front()
    }
}
