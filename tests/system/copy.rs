//! From one machine to MongoDB, as an operator does it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use mongodb::bson::{Document, doc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use servers::MongoDatabase;

use crate::harness::{Answer, Docket, Folder, Store, TOTAL, an_order, eventually};

/// What `docket copy` said, and its exit code.
#[derive(Debug)]
struct Told {
    out: String,
    err: String,
    code: Option<i32>,
}

impl Told {
    fn report(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        serde_json::from_str(&self.out).expect("a report")
    }
}

fn copying(folder: &Folder, target: &MongoDatabase) -> Command {
    folder.command(&["copy", "--json", "--to", target.uri(), "--database", target.name()])
}

fn told(mut command: Command) -> Told {
    let output = command.output().expect("the built docket");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Told { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
}

/// The same folder, on MongoDB.
fn on_mongodb(folder: &Folder, target: &MongoDatabase) -> Folder {
    let data = folder.data("");
    let path: &Path = data.parent().expect("its folder");
    Folder::at(Store::Sqlite, path).set("MONGODB_URI", target.uri()).set("DOCKET__MONGODB__DATABASE", target.name())
}

/// An order that was placed and perhaps moved on: under which key, and what its caller was told then.
struct Placed {
    key: String,
    answer: Answer,
}

/// Orders in every state that an order can be in, each placed under a key.
async fn orders_in_all_states(docket: &Docket, name: &str) -> Vec<Placed> {
    let mut orders = Vec::new();
    for steps in [&[][..], &["pay"], &["pay", "ship"], &["pay", "ship", "deliver"], &["cancel"], &["pay", "cancel"]] {
        let key = format!("{name}-{}", steps.join("-"));
        let placed = docket.place(&an_order(&key)).key(&key).expect(StatusCode::CREATED).await;
        for step in steps {
            let body = match *step {
                "pay" => json!({"amount": TOTAL, "reference": key}),
                "ship" => json!({"carrier": "DHL", "tracking_number": key}),
                "deliver" => json!({}),
                _ => json!({"reason": "changed my mind"}),
            };
            let said = docket.tell(&placed.id(), step, &body).key(&format!("{step}-{key}"));
            said.expect(StatusCode::OK).await;
        }
        orders.push(Placed { key, answer: placed });
    }
    orders
}

/// Everything that callers can see of these orders: each version, and the trail.
async fn seen(docket: &Docket, orders: &[Placed]) -> Vec<Value> {
    let mut all = Vec::new();
    for Placed { answer, .. } in orders {
        let id = answer.id();
        let now = docket.get(&format!("/orders/{id}")).expect(StatusCode::OK).await;
        for version in 1..=now.version() {
            all.push(docket.get(&format!("/orders/{id}?version={version}")).expect(StatusCode::OK).await.body);
        }
        all.push(json!([now.header("etag"), now.body, docket.events(&id).await]));
    }
    all
}

async fn subscriber(docket: &Docket) -> Value {
    docket.ops("/api/subscribers").await["subscribers"][0].clone()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn everything_is_there_afterwards_and_each_mail_is_sent_once() {
    let folder = Folder::new(Store::Sqlite);
    let docket = folder.start().await;
    let mut orders = orders_in_all_states(&docket, "first").await;
    docket.settled(&folder).await;
    let sent = folder.mails().len();
    let (mail, before) = (folder.data("mail"), folder.data("mail.before"));
    std::fs::rename(&mail, &before).expect("renamed");
    std::fs::write(&mail, "not a folder").expect("no mail can be written");
    orders.extend(orders_in_all_states(&docket, "second").await);
    // The same orders again: as many mails wait as were sent.
    eventually("the mails wait", async || subscriber(&docket).await["effects_waiting"] == sent).await;
    let callers_saw = seen(&docket, &orders).await;
    assert_eq!(docket.stop().await, Some(0));
    std::fs::remove_file(&mail).expect("removed");
    std::fs::create_dir(&mail).expect("a folder again");

    let target = MongoDatabase::new();
    let first = told(copying(&folder, &target)).report();
    assert_eq!((&first["copied_before"], &first["subscribers"][0]["effects_waiting"]), (&json!(false), &json!(sent)));
    let second = told(copying(&folder, &target)).report();
    assert_eq!((&second["copied_before"], &second["commits"]), (&json!(true), &first["commits"]));

    let docket = on_mongodb(&folder, &target).start().await;
    assert_eq!(seen(&docket, &orders).await, callers_saw);
    for Placed { key, answer } in &orders {
        let again = docket.place(&an_order(key)).key(key).expect(StatusCode::CREATED).await;
        assert_eq!((&again.body, again.header("idempotent-replayed")), (&answer.body, Some("true")));
    }
    let paid = docket.pay(&orders[0].answer.id(), TOTAL).expect(StatusCode::OK).await;
    assert_eq!(paid.version(), 2, "and it goes on");
    // A subscriber that has read the whole log, and knew all of it but that.
    eventually("everything is handled", async || {
        let subscriber = subscriber(&docket).await;
        subscriber["state"] == "running"
            && subscriber["applied"] == 1
            && (&subscriber["behind"], &subscriber["effects_waiting"]) == (&json!(0), &json!(0))
    })
    .await;
    assert_eq!(folder.mails().len(), sent + 1, "those that waited, and that of the payment");
    assert!(names(&mail).is_disjoint(&names(&before)), "none was sent before");
    assert_eq!(docket.stop().await, Some(0));
}

/// How far the copy is, as the target has it.
async fn progress(target: &MongoDatabase) -> Option<String> {
    let client = mongodb::Client::with_uri_str(target.uri()).await.expect("a client");
    let store = client.database(target.name()).collection::<Document>("store");
    let log = store.find_one(doc! { "_id": "log" }).await.expect("an answer")?;
    let progress = log.get_document("copying").ok()?.get_str("progress").ok()?;
    (!progress.is_empty()).then(|| progress.to_owned())
}

#[tokio::test]
async fn killed_in_the_middle_it_is_run_again_and_meanwhile_no_docket_starts() {
    const ORDERS: usize = 8_000;
    let folder = Folder::new(Store::Sqlite);
    let docket = folder.start().await;
    let lines: String =
        (1..=ORDERS).map(|n| format!("{{\"orderId\":\"o-{n}\",\"userId\":\"u-1\",\"total\":5.00}}\n")).collect();
    let file = folder.data("orders.jsonl");
    std::fs::write(&file, lines).expect("a file");
    let mut import = folder.command(&["import", "--url", &docket.ops]);
    assert!(import.arg(&file).stdout(Stdio::null()).status().expect("the built docket").success());
    docket.settled(&folder).await;
    assert_eq!(docket.stop().await, Some(0));

    let target = MongoDatabase::new();
    let mut copy = copying(&folder, &target).stdout(Stdio::null()).spawn().expect("the built docket");
    eventually("it has begun", async || progress(&target).await.is_some()).await;
    copy.kill().expect("killed");
    copy.wait().expect("gone");
    let left = progress(&target).await.expect("it was not at its end");
    let said = on_mongodb(&folder, &target).try_start().await.err().expect("it does not start");
    assert!(said.contains("run `docket copy` again"), "{said}");

    let report = told(copying(&folder, &target)).report();
    assert_eq!((&report["copied_before"], &report["commits"]["count"]), (&json!(false), &json!(ORDERS)), "{left}");
    assert_eq!(report["subscribers"][0]["rows"], ORDERS);
    let docket = on_mongodb(&folder, &target).start().await;
    assert_eq!(docket.stop().await, Some(0));
}

#[tokio::test]
async fn it_is_refused_while_a_docket_runs_on_the_folder_which_it_names() {
    let folder = Folder::new(Store::Sqlite);
    let docket = folder.start().await;
    let target = MongoDatabase::new();
    let refused = told(copying(&folder, &target));
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(&format!("pid {}", docket.pid())), "{}", refused.err);
    let client = mongodb::Client::with_uri_str(target.uri()).await.expect("a client");
    let collections = client.database(target.name()).list_collection_names().await.expect("names");
    assert!(collections.is_empty(), "{collections:?}");
}

#[tokio::test]
async fn a_wrong_command_is_told_apart_and_shows_no_password() {
    let folder = Folder::new(Store::Sqlite);
    let copy = |to: &str, database: &str| told(folder.command(&["copy", "--to", to, "--database", database]));
    let nothing = copy("mongodb://somebody:s3cret@127.0.0.1:1/", "docket");
    assert_eq!(nothing.code, Some(2), "{}", nothing.err);
    assert!(nothing.err.contains("nothing to copy") && !folder.data("").exists(), "{}", nothing.err);
    let nowhere = told(folder.command(&["copy"]));
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.err.contains("--to"), "{}", nowhere.err);

    assert_eq!(folder.start().await.stop().await, Some(0));
    for (to, database, code, why) in [
        ("somebody:s3cret@127.0.0.1", "docket", 2, "--to"),
        ("mongodb://somebody:s3cret@127.0.0.1/", "admin", 2, "--database admin"),
        ("mongodb://somebody:s3cret@127.0.0.1:1/", "docket", 1, "MongoDB"),
    ] {
        let wrong = copy(to, database);
        assert_eq!(wrong.code, Some(code), "{}", wrong.err);
        assert!(wrong.err.contains(why) && !(wrong.err + &wrong.out).contains("s3cret"), "{to}");
    }
}
