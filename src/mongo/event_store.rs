//! The event store port on the collection `commits`: a group is one unordered insert, and the primary key refuses the
//! second commit of a version.
//!
//! A group goes to the server in one message: the driver cuts what is larger into several, and its error about a later
//! one would then say of an earlier one, which is stored, that nothing was done. So a group is bounded.

use std::sync::Arc;

use actors::commit::{Commit, StreamEnd};
use actors::event_store::{Appended, EventStore, Group, StoreError};
use actors::order::{OrderId, Version};
use async_trait::async_trait;
use futures_util::future::join_all;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, InsertManyError};

use super::commits::{document, fits, keys, name};
use super::error::{DUPLICATE_KEY, refused};
use super::server::Failed;
use super::store::Store;

/// Most commits of a group; a message takes as many documents.
pub const GROUP_COMMITS_MAX: u32 = 100_000;
/// Most bytes of a group's commits. A message takes 48,000,000, and around the text of a commit there are some hundred.
pub const GROUP_BYTES_MAX: u64 = 32 << 20;

#[async_trait]
impl EventStore for Store {
    async fn append(&self, group: Group) -> Vec<Appended> {
        self.append_all(&group.into_commits()).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read(self, order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        Ok(self.shared.lookup.commit_at(end.next_key()).await?.is_none())
    }

    /// Any process may write at any time.
    fn sole_writer(&self) -> bool {
        false
    }
}

impl Store {
    /// As [`EventStore::append`], for commits that another store has accepted: there may be several of one order. At most
    /// [`GROUP_COMMITS_MAX`] and [`GROUP_BYTES_MAX`] of them.
    pub async fn append_all(&self, commits: &[Arc<Commit>]) -> Vec<Appended> {
        let fitting: Vec<&Commit> = commits.iter().map(Arc::as_ref).filter(|commit| fits(commit)).collect();
        let mut outcomes = self.insert(&fitting).await.into_iter();
        let too_large = || Appended::NotDone(StoreError::Full("the commit is too large for a document".to_owned()));
        let outcome = |commit: &Arc<Commit>| {
            if fits(commit) { outcomes.next().unwrap_or_else(no_outcome) } else { too_large() }
        };
        commits.iter().map(outcome).collect()
    }

    async fn insert(&self, commits: &[&Commit]) -> Vec<Appended> {
        if commits.is_empty() {
            return Vec::new();
        }
        let documents: Vec<RawDocumentBuf> = commits.iter().map(|commit| document(commit)).collect();
        let insert = self.shared.commits.insert_many(documents).ordered(false);
        let answered = self.shared.server.answer(async {
            match insert.await {
                Ok(_) => Ok(None),
                Err(error) => {
                    if let ErrorKind::InsertMany(in_part) = &*error.kind {
                        return Ok(Some(in_part.clone()));
                    }
                    Err(error)
                }
            }
        });
        let all = |outcome: Appended| vec![outcome; commits.len()];
        match answered.await {
            Ok(None) => all(Appended::Written),
            Ok(Some(in_part)) => self.outcomes(commits, in_part).await,
            Err(Failed::NotDone(error)) => all(Appended::NotDone(error)),
            Err(Failed::Unknown(error)) => all(Appended::Unknown(error)),
        }
    }

    /// Of an unordered insert everything is tried: what has no error of its own was inserted.
    async fn outcomes(&self, commits: &[&Commit], in_part: InsertManyError) -> Vec<Appended> {
        let inserted = match in_part.write_concern_error {
            None => Appended::Written,
            // It is at the primary, and may be lost with it.
            Some(error) => Appended::Unknown(StoreError::Away(error.message)),
        };
        let mut outcomes = vec![inserted; commits.len()];
        let mut taken = Vec::new();
        for error in in_part.write_errors.into_iter().flatten() {
            let Some(outcome) = outcomes.get_mut(error.index) else { continue };
            if error.code == DUPLICATE_KEY {
                taken.push(error.index);
            }
            *outcome = refused(error.code, error.message);
        }
        let settled = join_all(taken.iter().map(|index| self.who_has_the_key_of(commits[*index]))).await;
        for (index, outcome) in taken.into_iter().zip(settled) {
            outcomes[index] = outcome;
        }
        outcomes
    }

    /// After a duplicate key. Often it is our own commit: from an attempt whose answer was lost, ours or the driver's.
    async fn who_has_the_key_of(&self, commit: &Commit) -> Appended {
        match self.shared.lookup.commit_at(commit.key()).await {
            Ok(Some(id)) if id == commit.id() => Appended::Written,
            Ok(Some(_)) => Appended::Conflict,
            // What stood in the way is gone with a primary that was deposed.
            Ok(None) => Appended::Unknown(StoreError::Away("a commit with the same key has vanished".to_owned())),
            Err(error) => Appended::Unknown(error),
        }
    }
}

fn no_outcome() -> Appended {
    Appended::Unknown(StoreError::Away("no outcome".to_owned()))
}

/// As both ports have it.
pub(super) async fn read(
    store: &Store,
    order: OrderId,
    from: Version,
    limit: usize,
) -> Result<Vec<Arc<Commit>>, StoreError> {
    let from = if from <= Version::FIRST { Version::NONE } else { first_of_commit_with(store, order, from).await? };
    store.page(keys(order, from, Version(u32::MAX)), limit).await
}

/// The greatest key that is not beyond a version. Commits are never deleted, so it stays the right one to begin at.
async fn first_of_commit_with(store: &Store, order: OrderId, version: Version) -> Result<Version, StoreError> {
    let not_beyond = store.shared.commits.find_one(keys(order, Version::NONE, version));
    let greatest = not_beyond.sort(doc! { "_id": -1 }).projection(doc! { "_id": 1, "id": 1 });
    let found = store.shared.server.answer_in_turn(greatest).await.map_err(Failed::into_error)?;
    Ok(found.map(|found| name(&found)).transpose()?.map_or(version, |(key, _)| key.first))
}
