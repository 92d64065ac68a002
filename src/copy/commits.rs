//! The commits: brought in the order of their keys, and compared one by one.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::commit::{Commit, CommitKey};
use actors::event_store::Appended;
use actors::log::Log;

use super::compare::{Sum, Summing};
use super::{CopyError, Copying, Step, unreadable};
use crate::mongo::Store;

/// Commits of a page. They are read and written together.
const PAGE_MAX: usize = 1_000;

/// Brings those that are not there yet.
pub(super) async fn copy(
    copying: &mut Copying<'_>,
    store: &Store,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<(), CopyError> {
    if copying.progress.all {
        return Ok(());
    }
    let of = u64::try_from(copying.progress.end.0).unwrap_or(0);
    watch(Step::Begins { what: "commits", of, done: copying.progress.commits });
    loop {
        let after = copying.progress.after.as_deref().and_then(|key| key.parse().ok());
        let page = copying.source.store.scan(after, PAGE_MAX).await.map_err(unreadable("a commit in the folder"))?;
        match page.last() {
            Some(last) => copying.progress.after = Some(last.key().to_string()),
            None => copying.progress.all = true,
        }
        insert(copying, store, &page).await?;
        copying.progress.commits += page.len() as u64;
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
    watch(Step::Begins { what: "commits, read back", of: copying.progress.commits, done: 0 });
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
            let page = copying.target.patience.done(async || store.commits_after(there.after, PAGE_MAX).await).await?;
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
