//! A disk without room: writes are refused, reads go on, nothing is damaged, and writes go on when there is room again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::StatusCode;

use crate::harness::{Folder, Store, TOTAL, an_order, eventually};

/// A small file system in memory, gone with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// # Panics
    /// When it cannot be mounted: only root may, and who may use sudo.
    fn mount(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={megabytes}m");
        let mut mount = as_root("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "docket-test"]).arg(folder.path()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        assert!(mounted, "cannot mount a tmpfs: run this test as root, or as somebody who may use sudo");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room that is left. Removing the file gives it back.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = std::fs::File::create(&path).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

fn as_root(program: &str) -> Command {
    let words = r#"if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo --non-interactive "$@"; fi"#;
    let mut command = Command::new("sh");
    command.args(["-c", words, "sh", program]);
    command
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a docket that a failed test left may still be ending.
        let _ = as_root("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_alone_and_only_while_it_is_full() {
    let disk = SmallDisk::mount(16);
    let folder = Folder::at(Store::Sqlite, disk.path()).set("DOCKET__SUBSCRIBER__BACKOFF_MAX_MS", "2000");
    let docket = folder.start().await;
    let first = docket.place(&an_order("first")).expect(StatusCode::CREATED).await;

    let mut accepted = vec![first];
    let filler = disk.fill();
    // What is written already may have room of its own for some more.
    eventually("there is no room for another order", async || {
        let answer = docket.place(&an_order("more")).send().await.expect("an answer");
        if answer.status == StatusCode::CREATED {
            accepted.push(answer);
            return false;
        }
        assert_eq!((answer.status, answer.problem()), (StatusCode::SERVICE_UNAVAILABLE, "store-away"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
        true
    })
    .await;

    for answer in &accepted {
        assert_eq!(docket.order(&answer.id()).await, answer.body);
    }
    let refused = docket.pay(&accepted[0].id(), TOTAL).key("pay").expect(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(refused.problem(), "store-away");
    docket.get("/healthz").expect(StatusCode::OK).await;

    // A start finds no room either.
    docket.kill();
    let docket = folder.start().await;
    for answer in &accepted {
        assert_eq!(docket.order(&answer.id()).await, answer.body);
    }

    std::fs::remove_file(filler).expect("removed");
    eventually("writes go on", async || {
        docket.pay(&accepted[0].id(), TOTAL).key("pay").send().await.expect("an answer").status == StatusCode::OK
    })
    .await;
    assert_eq!(docket.events(&accepted[0].id()).await.len(), 2);
    accepted.push(docket.place(&an_order("last")).expect(StatusCode::CREATED).await);
    // The subscriber had no room either, for its rows or for mails, and goes on by itself.
    docket.settled(&folder).await;
    let mails = std::fs::read_dir(folder.data("mail")).expect("the mails");
    let mails: Vec<_> = mails.map(|mail| mail.expect("a mail")).collect();
    assert_eq!(mails.len(), accepted.len() + 1, "one for each order, one for the payment: {mails:?}");
    assert!(mails.iter().all(|mail| mail.metadata().expect("a file").len() > 0), "{mails:?}");
    assert_eq!(docket.stop().await, Some(0));

    for file in ["orders.db", "notification.db"] {
        let store = rusqlite::Connection::open(folder.data(file)).expect("the file");
        let sound: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
        assert_eq!(sound, "ok", "{file}");
    }
    let docket = folder.start().await;
    for answer in &accepted {
        docket.get(&format!("/orders/{}", answer.id())).expect(StatusCode::OK).await;
    }
}

/// There docket's own disk has the mails alone.
#[tokio::test]
async fn on_mongodb_a_full_disk_holds_up_mails_alone() {
    let disk = SmallDisk::mount(16);
    let folder = Folder::at(Store::Mongodb, disk.path()).set("DOCKET__SUBSCRIBER__BACKOFF_MAX_MS", "2000");
    let docket = folder.start().await;
    let filler = disk.fill();
    let id = docket.place(&an_order("first")).expect(StatusCode::CREATED).await.id();
    eventually("its mail is tried again", async || {
        docket.subscribers().await.iter().any(|it| it["effects_waiting"] == 1 && it["retries"].as_u64() > Some(0))
    })
    .await;
    docket.pay(&id, TOTAL).expect(StatusCode::OK).await;
    assert_eq!(folder.mails().len(), 0);

    std::fs::remove_file(filler).expect("removed");
    docket.settled(&folder).await;
    let mails = folder.mails();
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|mail| mail.contains("To: ana@example.com")), "{mails:?}");
    assert_eq!(docket.stop().await, Some(0));
}
