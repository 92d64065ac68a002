//! A process that is killed in the middle of writing groups.

use std::path::Path;

use actors::testing::conformance::{block_on, killed};

use super::{assert_whole, folder, open};
use crate::again::{Said, kill_after, this_test_again, write_until_killed};

const FOLDER: &str = "DOCKET_TEST_KILLED";
const NAME: &str = "sqlite::killed::what_was_acknowledged_is_there";

#[test]
fn what_was_acknowledged_is_there() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return block_on(write_until_killed(&open(Path::new(&folder))));
    }
    let folder = folder();
    let mut said = Said::default();
    for acknowledged in [1, 50, 333, 1_000, 2_500] {
        kill_after(acknowledged, this_test_again(&[], NAME, FOLDER, folder.path().as_os_str()), &mut said);
        let store = open(folder.path());
        block_on(async {
            killed::verify(&store, &said.attempted, &said.acknowledged).await;
            store.close().await;
        });
        assert_whole(folder.path());
    }
}
