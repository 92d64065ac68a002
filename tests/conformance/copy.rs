//! A data folder brought to MongoDB: what the ports give there is what they gave here, wherever the copy was cut off; and
//! what was not brought by it is found.

mod folder;

use std::path::Path;
use std::time::Duration;

use actors::event_store::EventStore;
use actors::inbox::Inbox;
use actors::log::Log;
use actors::testing::commits::{first, group};
use docket::copy::{self, CopyError, Patience, Report, Step, Target};
use docket::mongo::server::Settings;
use docket::mongo::{MongoInbox, OpenError, Server, Store};
use mongodb::bson::{Document, doc};
use servers::{MongoDatabase, MongoServer};
use tokio::sync::{Notify, mpsc};

use self::folder::{NAMES, Seen, Stored};

const LEASE: Duration = Duration::from_secs(60);

async fn server(uri: &str) -> Server {
    let patient = Settings {
        select_within: Duration::from_secs(10),
        answer_within: Duration::from_secs(20),
        ..Settings::new(uri)
    };
    Server::new(&patient).await.expect("a server")
}

async fn target(database: &MongoDatabase) -> Target {
    let (server, database) = (server(database.uri()).await, database.name().to_owned());
    Target { server, database, patience: Patience::default() }
}

/// Copies, and says to `watch` what is under way.
async fn copied(path: &Path, target: &Target, mut watch: impl FnMut(Step<'_>)) -> Result<Report, CopyError> {
    let source = folder::opened(path).await;
    let report = copy::run(&source, target, &mut watch).await;
    source.close().await;
    report
}

/// Copies until the `nth` thing is done; `None` when it was cut off then.
async fn cut_off(path: &Path, target: &Target, nth: usize) -> Option<Report> {
    let (cut, mut steps) = (Notify::new(), 0);
    let copying = copied(path, target, |_| {
        steps += 1;
        if steps == nth {
            cut.notify_one();
        }
    });
    tokio::select! {
        biased;
        () = cut.notified() => None,
        report = copying => Some(report.expect("a report")),
    }
}

/// What the ports give on MongoDB.
async fn seen(target: &Target, stored: &Stored) -> Seen {
    let store = Store::open(&target.server, &target.database).await.expect("a whole copy");
    let mut seen = Seen::default();
    while let page @ [.., last] = &store.scan(seen.after(), 100).await.expect("commits")[..] {
        assert!(seen.after().is_none_or(|after| after < last.key()));
        seen.commits.extend(page.iter().map(|commit| (commit.key(), commit.id(), commit.encoded().to_owned())));
    }
    for name in NAMES {
        let inbox = MongoInbox::open(&target.server, &target.database, name, "test", LEASE).await.expect("an inbox");
        let begun = inbox.begin().await.expect("nobody has the lease");
        assert_eq!((begun.term.0, &begun.progress), (1, &None), "terms begin anew, and the position stays behind");
        seen.add(&inbox, &begun, stored).await;
    }
    seen
}

#[tokio::test]
async fn what_the_ports_give_is_what_they_gave() {
    let (folder, stored) = folder::full(1_100).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    let before = folder::seen(folder.path(), &stored).await;
    let report = copied(folder.path(), &target, |_| {}).await.expect("a report");
    assert_eq!(seen(&target, &stored).await, before);
    assert_eq!(report.commits.count, before.commits.len() as u64);
    assert_eq!(report.left_out, ["other.db"]);
    let [_, notification] = &report.subscribers[..] else { panic!("{report:?}") };
    assert_eq!((&*notification.name, notification.rows), ("notification", 1_100));
    assert_eq!(notification.effects_waiting, before.totals[0].effects_waiting);
    assert_eq!(notification.discards, folder::discards(1_100));

    let log = Store::open(&target.server, &target.database).await.expect("a store").log_id();
    let again = copied(folder.path(), &target, |_| {}).await.expect("a report");
    assert!(again.copied_before && again.copied_at.is_some());
    assert_eq!((again.commits, again.subscribers), (report.commits, report.subscribers));
    let store = Store::open(&target.server, &target.database).await.expect("a store");
    assert_eq!(store.log_id(), log);
    assert_ne!(log, folder::opened(folder.path()).await.log_id(), "a copy is another log");
}

#[tokio::test]
async fn wherever_it_was_cut_off_the_next_run_goes_on_and_ends_the_same() {
    let (folder, stored) = folder::full(1_100).await;
    let before = folder::seen(folder.path(), &stored).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    let mut runs = 0;
    // Each run comes a little further, so each is cut off at another place.
    let report = loop {
        runs += 1;
        if let Some(report) = cut_off(folder.path(), &target, runs.min(6)).await {
            break report;
        }
        let opened = Store::open(&target.server, &target.database).await.map(|_| ());
        assert!(matches!(opened, Err(OpenError::Incomplete { .. })), "{opened:?}");
        if runs == 40 {
            break copied(folder.path(), &target, |_| {}).await.expect("a report");
        }
    };
    assert!(runs > 5, "it was cut off {runs} times");
    assert!(!report.copied_before);
    assert_eq!(seen(&target, &stored).await, before);
}

#[tokio::test]
async fn a_folder_that_has_changed_between_two_runs_is_brought_as_it_is_now() {
    let (folder, mut stored) = folder::full(1_100).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    assert!(cut_off(folder.path(), &target, 12).await.is_none(), "in the middle of the subscribers");
    folder::go_on(folder.path(), &mut stored).await;
    let before = folder::seen(folder.path(), &stored).await;
    copied(folder.path(), &target, |_| {}).await.expect("a report");
    assert_eq!(seen(&target, &stored).await, before);

    folder::go_on(folder.path(), &mut stored).await;
    let refused = copied(folder.path(), &target, |_| {}).await;
    assert!(matches!(&refused, Err(CopyError::Changed(why)) if why.contains("copied")), "{refused:?}");
}

/// Does something to the target while a copy is under way, without the copy knowing.
fn meanwhile<F: Future<Output = ()>>(uri: &str, work: impl FnOnce(mongodb::Client) -> F + Send + 'static) {
    let uri = uri.to_owned();
    let worked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { work(mongodb::Client::with_uri_str(&uri).await.expect("a client")).await });
    });
    worked.join().expect("done");
}

/// Copies, and changes something in `{database}{suffix}` before `what` begins.
async fn spoilt(
    what: &'static str,
    suffix: &'static str,
    collection: &'static str,
    change: impl AsyncFnOnce(mongodb::Collection<Document>) + Send + 'static,
) -> CopyError {
    let (folder, _) = folder::full(60).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    let (uri, name) = (database.uri().to_owned(), format!("{}{suffix}", database.name()));
    let mut change = Some(change);
    let spoilt = copied(folder.path(), &target, |step| {
        if matches!(step, Step::Begins { what: begins, .. } if begins == what)
            && let Some(change) = change.take()
        {
            let name = name.clone();
            meanwhile(&uri, async move |client| change(client.database(&name).collection(collection)).await);
        }
    });
    let error = spoilt.await.expect_err("it is noticed");
    let opened = Store::open(&target.server, &target.database).await.map(|_| ());
    assert!(matches!(opened, Err(OpenError::Incomplete { .. })), "no docket opens it: {opened:?}");
    error
}

/// Changes a text field of the last document.
async fn change_last(collection: mongodb::Collection<Document>, field: &str, how: impl Fn(&str) -> String) {
    let last = collection.find_one(doc! {}).sort(doc! { "_id": -1 }).await.expect("found").expect("one");
    let text = last.get_str(field).expect("a text");
    let changed = doc! { "$set": { field: how(text) } };
    collection.update_one(doc! { "_id": last.get_str("_id").expect("an id") }, changed).await.expect("changed");
}

#[tokio::test]
async fn a_commit_that_was_changed_is_found() {
    let error = spoilt("commits, read back", "", "commits", async |commits| {
        change_last(commits, "body", |body| body.replace("A-1", "B-1")).await;
    });
    let said = error.await.to_string();
    assert!(said.contains("the commit") && said.contains("is another one there"), "{said}");
}

#[tokio::test]
async fn a_commit_that_cannot_be_read_any_more_is_found() {
    let error = spoilt("commits, read back", "", "commits", async |commits| {
        change_last(commits, "body", |body| body[1..].to_owned()).await;
    });
    let said = error.await.to_string();
    assert!(said.contains("not a commit"), "{said}");
}

#[tokio::test]
async fn a_commit_that_is_missing_is_found() {
    let error = spoilt("commits, read back", "", "commits", async |commits| {
        commits.delete_one(doc! {}).await.expect("deleted");
    });
    let said = error.await.to_string();
    assert!(said.contains("is not there"), "{said}");
}

#[tokio::test]
async fn a_commit_that_nobody_brought_is_found() {
    let error = spoilt("commits, read back", "", "commits", async |commits| {
        let mut another = commits.find_one(doc! {}).await.expect("found").expect("one");
        let body = another.get_str("body").expect("a body").replace("\"first\":1,", "\"first\":900,");
        let key = another.get_str("_id").expect("a key").replace("0000000001", "0000000900");
        another.insert("_id", key);
        another.insert("body", body);
        commits.insert_one(another).await.expect("inserted");
    });
    let said = error.await.to_string();
    assert!(said.contains("is there and not in the folder"), "{said}");
}

#[tokio::test]
async fn a_row_a_document_an_effect_and_a_discard_that_were_changed_are_found() {
    for (collection, field, kind) in [
        ("documents", "body", "document"),
        ("effects", "body", "effect"),
        ("discards", "body", "discard"),
        ("inbox", "_id", "row"),
    ] {
        let error = spoilt("notification, read back", "_notification", collection, async move |stored| {
            if field == "_id" {
                let seen = doc! { "$inc": { "seen": 1 } };
                stored.update_one(doc! {}, seen).await.expect("changed");
            } else {
                change_last(stored, field, |text| format!("{text} ")).await;
            }
        });
        let said = error.await.to_string();
        assert!(said.contains(&format!("the {kind} ")) && said.contains("is another one there"), "{said}");
    }
}

#[tokio::test]
async fn a_document_too_many_is_found() {
    let error = spoilt("notification, read back", "_notification", "documents", async |documents| {
        documents.insert_one(doc! { "_id": "0/orders/more", "body": "{}" }).await.expect("inserted");
    });
    let said = error.await.to_string();
    assert!(said.contains("documents, the folder"), "{said}");
}

#[tokio::test]
async fn a_target_in_which_somebody_has_placed_an_order_is_refused_and_left_as_it_is() {
    let (folder, _) = folder::full(3).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    let store = Store::open(&target.server, &target.database).await.expect("a store");
    store.append(group([first(1)])).await;
    let refused = copied(folder.path(), &target, |step| panic!("{step:?}")).await;
    assert!(matches!(&refused, Err(CopyError::NotOurs(why)) if why.contains("in use")), "{refused:?}");
    Store::open(&target.server, &target.database).await.expect("no mark is left");
    assert_eq!(store.scan(None, 10).await.expect("commits").len(), 1);
}

#[tokio::test]
async fn a_target_with_a_subscribers_database_is_refused_and_left_as_it_is() {
    let (folder, _) = folder::full(3).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    drop(MongoInbox::open(&target.server, &target.database, "notification", "test", LEASE).await.expect("an inbox"));
    let refused = copied(folder.path(), &target, |step| panic!("{step:?}")).await;
    assert!(matches!(&refused, Err(CopyError::NotOurs(why)) if why.contains("_notification")), "{refused:?}");
    Store::open(&target.server, &target.database).await.expect("no mark is left");
}

#[tokio::test]
async fn a_target_that_holds_another_folder_is_refused_whole_or_in_part() {
    let (one, _) = folder::full(3).await;
    let (another, _) = folder::full(3).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    for nth in [2, usize::MAX] {
        cut_off(one.path(), &target, nth).await;
        let refused = copied(another.path(), &target, |step| panic!("{step:?}")).await;
        assert!(matches!(&refused, Err(CopyError::NotOurs(why)) if why.contains("another folder")), "{refused:?}");
    }
}

#[tokio::test]
async fn another_commit_under_a_key_of_ours_stops_it() {
    let error = spoilt("commits", "", "commits", async |commits| {
        // Every key is taken by somebody whose commit is not ours.
        let marks = commits.clone_with_type::<Document>();
        drop(marks);
        commits
            .insert_one(doc! { "_id": folder::FIRST_KEY, "id": mongodb::bson::Uuid::new(), "body": "{}" })
            .await
            .expect("inserted");
    });
    let said = error.await.to_string();
    assert!(said.contains(folder::FIRST_KEY) && said.contains("another commit"), "{said}");
}

#[tokio::test]
async fn a_later_run_takes_over_and_the_earlier_one_stops() {
    let (folder, stored) = folder::full(300).await;
    let database = MongoDatabase::new();
    let target = target(&database).await;
    let uri = database.uri().to_owned();
    let name = database.name().to_owned();
    let mut once = Some(());
    let taken = copied(folder.path(), &target, |step| {
        if matches!(step, Step::Begins { what: "notification", .. }) && once.take().is_some() {
            // As another run does it: a copy of the folder on another machine.
            let name = name.clone();
            meanwhile(&uri, async move |client| {
                let store = client.database(&name).collection::<Document>("store");
                let run = doc! { "$set": { "copying.run": uuid::Uuid::now_v7().to_string() } };
                store.update_one(doc! { "_id": "log" }, run).await.expect("updated");
            });
        }
    });
    assert!(matches!(taken.await, Err(CopyError::TakenOver)));
    let before = folder::seen(folder.path(), &stored).await;
    copied(folder.path(), &target, |_| {}).await.expect("a report");
    assert_eq!(seen(&target, &stored).await, before);
}

#[tokio::test]
async fn mongodb_may_go_away_for_a_while_in_the_middle() {
    let (folder, stored) = folder::full(300).await;
    let before = folder::seen(folder.path(), &stored).await;
    let mut mongod = MongoServer::start().await;
    let server = server(&mongod.uri()).await;
    let target = Target { server, database: "docket".to_owned(), patience: Patience::default() };
    let (said, mut heard) = mpsc::unbounded_channel();
    let restarted = async {
        for _ in 0..3 {
            heard.recv().await.expect("a step");
            mongod.restart().await;
        }
        // The rest goes on undisturbed.
        heard.close();
    };
    let watch = move |_: Step<'_>| {
        // Nobody listens any more: it goes on.
        let _ = said.send(());
    };
    let (report, ()) = tokio::join!(copied(folder.path(), &target, watch), restarted);
    report.expect("a report");
    assert_eq!(seen(&target, &stored).await, before);
}

#[tokio::test]
async fn mongodb_away_for_too_long_is_an_error_that_says_to_run_it_again() {
    let (folder, stored) = folder::full(300).await;
    let before = folder::seen(folder.path(), &stored).await;
    let mut mongod = MongoServer::start().await;
    let server = self::server(&mongod.uri()).await;
    let short = Patience { give_up_after: Duration::from_millis(500), ..Patience::default() };
    let target = Target { server, database: "docket".to_owned(), patience: short };
    let mut steps = 0;
    let away = copied(folder.path(), &target, |_| {
        steps += 1;
        if steps == 3 {
            mongod.kill();
        }
    });
    let away = away.await.expect_err("it is gone");
    assert!(matches!(&away, CopyError::Away(_)) && away.to_string().contains("Run it again"), "{away}");
    mongod.restart().await;
    // As another process has it.
    let server = self::server(&mongod.uri()).await;
    let target = Target { server, patience: Patience::default(), ..target };
    copied(folder.path(), &target, |_| {}).await.expect("a report");
    assert_eq!(seen(&target, &stored).await, before);
}

#[tokio::test]
async fn a_standalone_server_is_refused_with_what_to_do() {
    let (folder, _) = folder::full(1).await;
    let mongod = MongoServer::start_standalone().await;
    let server = server(&mongod.uri()).await;
    let target = Target { server, database: "docket".to_owned(), patience: Patience::default() };
    let refused = copied(folder.path(), &target, |_| {}).await;
    assert!(
        matches!(&refused, Err(CopyError::Unfit(unfit)) if unfit.to_string().contains("rs.initiate")),
        "{refused:?}"
    );
}
