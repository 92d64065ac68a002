//! Commits to store. What their events say means nothing.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::commit::{Commit, Origin, Part, StoredEvent, StreamEnd};
use crate::event::EventId;
use crate::event_store::Group;
use crate::order::OrderId;
use crate::randomness;

/// A commit of `events` events that continues `end`: one command with all of them.
///
/// # Panics
/// Never: it can be encoded.
pub fn commit(end: &StreamEnd, events: usize) -> Arc<Commit> {
    commit_with(end, events, r#"{"sku":"A-1","quantity":2,"unit_price":4995}"#)
}

/// As [`commit`], each event with that JSON as its data.
///
/// # Panics
/// When it is not JSON.
pub fn commit_with(end: &StreamEnd, events: usize, data: &str) -> Arc<Commit> {
    let data = RawValue::from_string(data.to_owned()).expect("JSON");
    let event = || StoredEvent {
        id: EventId::generate(),
        event_type: "order.item_added".to_owned(),
        schema_version: 1,
        data: data.clone(),
    };
    let part = Part {
        key: None,
        origin: Origin::anonymous(randomness::uuid_v7().to_string(), None),
        events: (0..events).map(|_| event()).collect(),
    };
    let recorded_at = Timestamp::from_millis(1_795_000_000_000);
    Arc::new(Commit::new(end, recorded_at, vec![part]).expect("a commit"))
}

/// The first commit of a new order.
pub fn first(events: usize) -> Arc<Commit> {
    commit(&StreamEnd::nothing(OrderId::generate()), events)
}

/// The first commit of a new order, of one event with so many bytes of data.
pub fn first_of_bytes(bytes: usize) -> Arc<Commit> {
    let data = format!("\"{}\"", "x".repeat(bytes));
    commit_with(&StreamEnd::nothing(OrderId::generate()), 1, &data)
}

/// A group of commits of different orders.
///
/// # Panics
/// When two are of one order.
pub fn group(commits: impl IntoIterator<Item = Arc<Commit>>) -> Group {
    let mut group = Group::default();
    for commit in commits {
        group.push(commit).expect("one commit of an order");
    }
    group
}
