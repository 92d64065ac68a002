//! A process that is killed while it writes. The test is the adapter's: it starts a process that runs [`write()`] and
//! reports on a pipe, kills it, opens the store and calls [`verify`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::commit::{Commit, CommitKey, StreamEnd};
use crate::event_store::Appended;
use crate::log::Log;
use crate::order::OrderId;
use crate::testing::commits::{commit, group};
use crate::testing::conformance::Store;

/// How many orders are written to at once, in groups.
const ORDERS: usize = 32;

/// Writes for ever and says the encoded form of every commit before it is appended, and its key once it is
/// acknowledged.
pub async fn write(store: &dyn Store, mut attempt: impl FnMut(&str), mut acknowledge: impl FnMut(CommitKey)) {
    let mut ends: Vec<StreamEnd> = (0..ORDERS).map(|_| StreamEnd::nothing(OrderId::generate())).collect();
    loop {
        let commits: Vec<Arc<Commit>> =
            ends.iter().enumerate().map(|(place, end)| commit(end, 1 + place % 3)).collect();
        for commit in &commits {
            attempt(commit.encoded());
        }
        let outcomes = store.append(group(commits.clone())).await;
        for ((end, commit), outcome) in ends.iter_mut().zip(&commits).zip(outcomes) {
            if matches!(outcome, Appended::Written) {
                acknowledge(commit.key());
                *end = commit.stored_end();
            }
        }
    }
}

/// Every acknowledged commit is there as it was attempted, everything that is there was attempted, and every order is
/// whole.
///
/// # Panics
/// When it is not so.
pub async fn verify(store: &dyn Store, attempted: &[String], acknowledged: &[CommitKey]) {
    let attempted: HashMap<CommitKey, &String> =
        attempted.iter().map(|text| (Commit::decode(text).expect("a commit").key(), text)).collect();
    let mut stored = HashMap::new();
    let mut after = None;
    loop {
        let page = Log::scan(store, after, 1_000).await.expect("scan");
        let Some(last) = page.last() else { break };
        after = Some(last.key());
        stored.extend(page.into_iter().map(|commit| (commit.key(), commit)));
    }
    for key in acknowledged {
        let commit = stored.get(key).unwrap_or_else(|| panic!("{key} was acknowledged and is not there"));
        assert_eq!(commit.encoded(), attempted[key]);
    }
    for (key, commit) in &stored {
        assert_eq!(Some(&commit.encoded()), attempted.get(key).map(|text| text.as_str()).as_ref());
        let whole = key.first.0 == 1 || stored.values().any(|before| before.stored_end().next_key() == *key);
        assert!(whole, "{key} continues nothing");
    }
}
