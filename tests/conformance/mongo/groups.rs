//! Groups of which some commits are refused.

use actors::commit::StreamEnd;
use actors::event_store::{Appended, EventStore};
use actors::order::Version;
use actors::testing::commits::{commit, first, group};
use actors::testing::conformance::{block_on, ids};

use super::Database;

#[test]
fn every_member_of_a_large_group_is_told_what_became_of_it() {
    block_on(async {
        let database = Database::new();
        let (store, rival) = (database.open().await, database.open().await);
        let members: Vec<_> = (0..240).map(|_| first(1)).collect();
        // A third was written before, as by an attempt whose answer was lost; a third is somebody else's by now.
        let ours = members.iter().step_by(3).cloned();
        let theirs = members.iter().skip(1).step_by(3).map(|taken| commit(&StreamEnd::nothing(taken.order()), 2));
        rival.append(group(ours.chain(theirs))).await;
        let outcomes = store.append(group(members.clone())).await;
        for (place, (member, outcome)) in members.iter().zip(&outcomes).enumerate() {
            let is_there = store.read(member.order(), Version::FIRST, 1).await.map(|read| ids(&read) == [member.id()]);
            match outcome {
                Appended::Written => assert!(place % 3 != 1 && is_there.expect("read"), "{place}"),
                Appended::Conflict => assert!(place % 3 == 1 && !is_there.expect("read"), "{place}"),
                Appended::NotDone(_) | Appended::Unknown(_) => panic!("{outcome:?} at {place}"),
            }
        }
    });
}
