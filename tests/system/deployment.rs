//! The MongoDB under a docket: what is said before the start, what is waited for, and what ends it.

use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use serde_json::Value;
use servers::{MongoDatabase, MongoServer};
use tempfile::NamedTempFile;

use crate::harness::{Docket, Folder, Store, an_order, eventually};

/// What a command wrote, and its exit code.
fn told(mut command: Command) -> (String, Option<i32>) {
    let output = command.output().expect("the built docket");
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).expect("UTF-8"), output.status.code())
}

/// On that database of the shared server.
fn on_shared(database: &MongoDatabase) -> Folder {
    let folder = Folder::new(Store::Sqlite).set("MONGODB_URI", database.uri());
    folder.set("DOCKET__MONGODB__DATABASE", database.name())
}

/// The address with a user and a password that nobody knows.
fn with_password(uri: &str) -> String {
    uri.replace("mongodb://", "mongodb://somebody:s3cret@")
}

/// A docket that may not serve yet. It ends with the test.
struct Waiting {
    child: Child,
    log: NamedTempFile,
    _folder: Folder,
}

impl Waiting {
    fn start(folder: Folder) -> Self {
        let log = NamedTempFile::new().expect("a file for the log");
        let mut command = folder.command(&[]);
        let child = command.stdout(Stdio::null()).stderr(log.reopen().expect("the log")).spawn();
        Self { child: child.expect("the built docket"), log, _folder: folder }
    }

    async fn says(&self, what: &str) {
        eventually("it says so", async || std::fs::read_to_string(self.log.path()).expect("the log").contains(what))
            .await;
    }

    async fn stop(&mut self) -> Option<i32> {
        Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().expect("sh");
        let mut ended = None;
        eventually("it ends", async || {
            ended = self.child.try_wait().expect("a child");
            ended.is_some()
        })
        .await;
        ended.and_then(|status| status.code())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why it does not start; without having said the password.
async fn refused(folder: &Folder) -> String {
    let Err(said) = folder.try_start().await else { panic!("it serves") };
    assert!(!said.contains("s3cret"), "{said}");
    said
}

#[tokio::test]
async fn a_check_proves_what_docket_relies_on_and_leaves_nothing_behind() {
    let database = MongoDatabase::new();
    let folder = on_shared(&database);
    let (said, code) = told(folder.command(&["check"]));
    assert_eq!(code, Some(0), "{said}");
    for what in [
        "mongodb.uri",
        "replica set",
        "clock",
        "rights",
        "write concern",
        "duplicate key",
        "linearizable read",
        "transaction",
        "write conflict",
        "change stream",
        "disk",
        "http.bind",
    ] {
        assert!(said.lines().any(|line| line.starts_with(&format!("ok     {what}: "))), "{what} is missing in\n{said}");
    }
    let (said, _) = told(folder.command(&["check", "--json"]));
    let findings: Value = serde_json::from_str(&said).expect("JSON");
    assert!(findings.as_array().expect("findings").iter().all(|finding| finding["ok"] == true), "{said}");

    let client = mongodb::Client::with_uri_str(database.uri()).await.expect("a client");
    let left = client.database(database.name()).list_collection_names().await.expect("names");
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.data("orders.db").exists());
}

#[tokio::test]
async fn a_standalone_server_is_refused_with_what_to_do() {
    let server = MongoServer::start_standalone().await;
    let folder = Folder::on(&server);
    let (checked, code) = told(folder.command(&["check"]));
    assert_eq!(code, Some(1), "{checked}");
    let started = refused(&folder).await;
    for said in [checked, started] {
        assert!(said.contains("--replSet rs0") && said.contains("rs.initiate()"), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_at_once_and_never_shown() {
    let database = MongoDatabase::new();
    let folder = on_shared(&database).set("MONGODB_URI", &with_password(database.uri()));
    let (checked, code) = told(folder.command(&["check"]));
    assert_eq!(code, Some(1), "{checked}");
    assert!(checked.contains("does not let this user in") && !checked.contains("s3cret"), "{checked}");
    assert!(refused(&folder).await.contains("does not let this user in"));
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer_is_found_by_the_check() {
    let mut server = MongoServer::start().await;
    let folder = Folder::on(&server).set("MONGODB_URI", &with_password(&server.uri()));
    server.freeze();
    let (mute, code) = told(folder.command(&["check"]));
    server.thaw();
    assert_eq!(code, Some(1), "{mute}");
    assert!(mute.contains("WRONG  mongodb.uri") && mute.contains("not answer"), "{mute}");
    server.kill();
    let (away, code) = told(folder.command(&["check"]));
    assert_eq!(code, Some(1), "{away}");
    assert!(away.contains("WRONG  mongodb.uri") && away.contains("refused"), "{away}");
    assert!(!mute.contains("s3cret") && !away.contains("s3cret"), "{mute}\n{away}");
}

#[tokio::test]
async fn one_that_is_away_at_the_start_is_waited_for() {
    let mut server = MongoServer::start().await;
    server.kill();
    let mut waiting = Waiting::start(Folder::on(&server));
    waiting.says("waiting for").await;
    waiting.says(&server.address().to_string()).await;
    server.restart().await;
    waiting.says("http.address").await;
    assert_eq!(waiting.stop().await, Some(0));
}

#[tokio::test]
async fn a_stop_ends_the_wait() {
    let mut server = MongoServer::start().await;
    server.kill();
    let mut waiting = Waiting::start(Folder::on(&server));
    waiting.says("waiting for").await;
    assert_eq!(waiting.stop().await, Some(0));
}

#[tokio::test]
async fn one_whose_store_is_away_is_healthy_and_not_ready() {
    let mut server = MongoServer::start().await;
    let folder = Folder::on(&server);
    let docket = folder.start().await;
    server.kill();
    let ask = |words: &[&str]| {
        let mut command = folder.command(words);
        command.args(["--url", &docket.ops]);
        told(command)
    };
    eventually("it is not ready", async || ask(&["healthy", "--ready"]).1 == Some(1)).await;
    let (said, _) = ask(&["healthy", "--ready"]);
    assert!(said.starts_with("not ready; "), "{said}");
    assert_eq!(ask(&["healthy"]).1, Some(0));
}

#[tokio::test]
async fn a_store_that_was_replaced_ends_the_process_with_its_reason() {
    let mut server = MongoServer::start().await;
    let folder = Folder::on(&server);
    let docket = folder.start().await;
    docket.place(&an_order("before")).expect(StatusCode::CREATED).await;
    server.back_up().await;
    placed_again(&docket, "after").await;
    // What nobody has seen yet nobody can miss.
    eventually("both are seen", async || folder.mails().len() == 2).await;
    server.restore().await;
    let (code, said) = docket.ended_and_told().await;
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("docket/store failed for good"), "{said}");

    let docket = folder.start().await;
    docket.place(&an_order("again")).expect(StatusCode::CREATED).await;
}

/// Once the store answers.
async fn placed_again(docket: &Docket, reference: &str) {
    let order = an_order(reference);
    eventually("orders are taken again", async || {
        docket.place(&order).key(reference).send().await.is_ok_and(|answer| answer.status == StatusCode::CREATED)
    })
    .await;
}
