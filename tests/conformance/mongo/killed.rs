//! A process that is killed in the middle of writing groups.

use std::ffi::OsStr;

use actors::testing::conformance::{block_on, killed};

use super::{Database, open};
use crate::again::{Said, kill_after, this_test_again, write_until_killed};

const DATABASE: &str = "DOCKET_TEST_KILLED_DATABASE";
const NAME: &str = "mongo::killed::what_was_acknowledged_is_there";

#[test]
fn what_was_acknowledged_is_there() {
    if let Ok(database) = std::env::var(DATABASE) {
        let uri = std::env::var("DOCKET_TEST_MONGODB_URI").expect("the server");
        return block_on(async { write_until_killed(&open(&uri, &database).await).await });
    }
    let database = Database::new();
    let mut said = Said::default();
    for acknowledged in [1, 50, 333, 1_000] {
        kill_after(acknowledged, this_test_again(&[], NAME, DATABASE, OsStr::new(database.0.name())), &mut said);
        // What was under way may still land while this is read: it was attempted, too.
        block_on(async { killed::verify(&database.open().await, &said.attempted, &said.acknowledged).await });
    }
}
