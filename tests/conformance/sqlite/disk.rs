//! A disk that is full, and one that fails: real ones, in a process of its own. Nothing is damaged, what is definite is
//! true, and it goes on when the disk does.

use std::path::Path;
use std::sync::Arc;

use actors::commit::Commit;
use actors::event_store::{Appended, EventStore, StoreError};
use actors::log::{From, Log};
use actors::order::Version;
use actors::testing::commits::{first_of_bytes, group};
use actors::testing::conformance::{block_on, ids, next};
use docket::sqlite;

use super::{assert_whole, folder, open};
use crate::again::this_test_again;

const FOLDER: &str = "DOCKET_TEST_DISK";
/// A disk of 8 MiB in the folder, and on it the rest of the words.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o size=8m tmpfs "$DOCKET_TEST_DISK" || exit
"$@"
code=$?
umount --lazy "$DOCKET_TEST_DISK"
exit $code"#;
/// Root may mount; anybody else may in a namespace of their own, which root cannot have in a changed root.
const AS_ROOT: &str = r#"if [ "$(id -u)" = 0 ]; then exec "$@"; else exec unshare --map-root-user --mount "$@"; fi"#;
/// Files of at most 1 MiB; a write behind that is an error and no signal.
const WITH_SMALL_FILES: &str = r#"trap '' XFSZ; exec prlimit --fsize=1048576 "$@""#;

fn in_a_process_of_its_own(before: &[&str], test: &str) {
    let folder = folder();
    let output =
        this_test_again(before, test, FOLDER, folder.path().as_os_str()).output().expect("util-linux is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

#[test]
fn full() {
    match std::env::var_os(FOLDER) {
        Some(folder) => block_on(fill(Path::new(&folder))),
        None => in_a_process_of_its_own(
            &["sh", "-c", AS_ROOT, "sh", "sh", "-c", ON_A_SMALL_DISK, "sh"],
            "sqlite::disk::full",
        ),
    }
}

async fn fill(folder: &Path) {
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![1; 3 << 20]).expect("there is room");
    let mut store = open(folder);
    let mut follow = store.follow(From::Now).await.expect("the end");
    let mut written = Vec::new();
    for round in 0..2 {
        let refused = append_until_full(&store, &mut written).await;
        assert_readable(&store, &written, &refused).await;
        assert_eq!(next(&mut follow, 1, 1).await.len(), 1, "it can be followed");

        // A start on a full disk: what is there can be read.
        store.close().await;
        drop((store, follow));
        store = open(folder);
        assert_readable(&store, &written, &refused).await;
        follow = store.follow(From::Now).await.expect("the end");

        if round == 0 {
            std::fs::remove_file(&ballast).expect("it was there");
            // Who was refused and asks again gets in.
            let outcome = store.append(group([Arc::clone(&refused)])).await;
            assert!(matches!(outcome[..], [Appended::Written]), "{outcome:?}");
            written.push(refused);
        }
    }
    store.close().await;
    drop((store, follow));
    assert_whole(folder);
}

/// Fills what is left, at last with small commits. What was refused is given back.
async fn append_until_full(store: &sqlite::Store, written: &mut Vec<Arc<Commit>>) -> Arc<Commit> {
    let mut refused = None;
    for bytes in [200_000, 20_000, 100] {
        loop {
            let one = first_of_bytes(bytes);
            let outcome = store.append(group([Arc::clone(&one)])).await;
            match &outcome[..] {
                [Appended::Written] => written.push(one),
                [Appended::NotDone(StoreError::Full(_))] => {
                    refused = Some(one);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    refused.expect("the disk is full")
}

async fn assert_readable(store: &sqlite::Store, written: &[Arc<Commit>], refused: &Arc<Commit>) {
    for one in written {
        let read = EventStore::read(store, one.order(), Version::FIRST, 1).await.expect("read");
        assert_eq!(ids(&read), [one.id()]);
    }
    assert!(EventStore::read(store, refused.order(), Version::FIRST, 1).await.expect("read").is_empty());
}

#[test]
fn failing() {
    match std::env::var_os(FOLDER) {
        Some(folder) => block_on(fail(Path::new(&folder))),
        None => in_a_process_of_its_own(&["sh", "-c", WITH_SMALL_FILES, "sh"], "sqlite::disk::failing"),
    }
}

/// The write-ahead log soon meets its limit; opened again it begins anew. The file itself stays below the limit.
async fn fail(folder: &Path) {
    let store = open(folder);
    let mut follow = store.follow(From::Now).await.expect("the end");
    let mut written = Vec::new();
    let mut unknown = 0;
    for _ in 0..120 {
        let one = first_of_bytes(2_000);
        for attempt in 1.. {
            assert!(attempt < 10, "it does not go on");
            let outcome = store.append(group([Arc::clone(&one)])).await;
            match &outcome[..] {
                [Appended::Written] => break,
                [Appended::Unknown(StoreError::Away(_))] => unknown += 1,
                [Appended::NotDone(StoreError::Away(_))] => {}
                other => panic!("{other:?}"),
            }
        }
        written.push(one);
    }
    assert!(unknown > 0, "the disk never failed");
    assert_eq!(ids(&next(&mut follow, written.len(), 50).await), ids(&written));
    store.close().await;
    drop((store, follow));
    assert_whole(folder);
}
