//! `docket events`: every event is printed once, whatever becomes of the docket that is asked.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::command::{Output, ask};
use crate::harness::{Docket, Folder, Store, TOTAL, an_order, eventually, on_every_store};

on_every_store!(
    what_happens_is_printed_once_also_over_a_crash_and_from_where_it_was_left,
    what_was_is_printed_as_it_is_stored_by_order_type_and_customer,
);

/// A program that prints what happens. It ends with the test.
struct Watching {
    child: Child,
    printed: PathBuf,
}

impl Watching {
    fn start(folder: &Folder, ops: &str, name: &str, arguments: &[&str]) -> Self {
        let printed = folder.file(name);
        let output = File::create(&printed).expect("a file");
        let mut command = folder.command(&["events", "--follow", "--json", "--url", ops]);
        let child = command.args(arguments).stdout(Stdio::from(output)).spawn().expect("the built docket");
        Self { child, printed }
    }

    /// What it has printed so far.
    fn printed(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.printed).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until it prints what happens, by letting something happen.
    async fn began(&self, docket: &Docket) {
        eventually("it prints what happens", async || {
            docket.place(&an_order("warm-up")).expect(StatusCode::CREATED).await;
            !self.printed().is_empty()
        })
        .await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Order and version of each.
fn which(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| format!("{}.{}", event["subject"].as_str().expect("an order"), event["orderversion"]))
        .collect()
}

/// An address that stays when a docket is started again: below the ports from which connections are made, so that whoever
/// asks while nobody is there cannot come to ask itself. No two tests of a process look at the same ones.
fn address(store: Store) -> String {
    let own = match store {
        Store::Sqlite => 0,
        Store::Mongodb => 1,
    };
    let first = 27_000 + 2 * u16::try_from(std::process::id() % 2_500).expect("a port") + own;
    let free = (first..32_700).step_by(2).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.expect("a free port"))
}

/// Orders that are paid; the events of all of them.
async fn trade(docket: &Docket, name: &str) -> Vec<String> {
    let mut events = Vec::new();
    for n in 0..20 {
        let order = docket.place(&an_order(&format!("{name}-{n}"))).expect(StatusCode::CREATED).await.id();
        docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
        events.extend([format!("{order}.1"), format!("{order}.2")]);
    }
    events
}

async fn what_happens_is_printed_once_also_over_a_crash_and_from_where_it_was_left(store: Store) {
    let ops = address(store);
    let url = format!("http://{ops}");
    let folder = Folder::new(store).set("DOCKET__OPS__BIND", &ops);
    let docket = folder.start().await;
    let watching = Watching::start(&folder, &url, "first", &[]);
    watching.began(&docket).await;
    let mut happened = trade(&docket, "before").await;
    docket.kill();
    let docket = folder.start().await;
    happened.extend(trade(&docket, "after").await);
    let is_through = |watching: &Watching, last: &str| which(&watching.printed()).iter().any(|event| event == last);
    let last = happened.last().expect("an event").clone();
    eventually("it has printed the last", async || is_through(&watching, &last)).await;
    let printed = which(&watching.printed());
    assert_eq!(printed[printed.len() - happened.len()..], happened[..]);
    let position = watching.printed().last().expect("an event")["position"].as_str().expect("a position").to_owned();
    drop(watching);

    let meanwhile = trade(&docket, "meanwhile").await;
    let again = Watching::start(&folder, &url, "second", &["--after", &position, "--type", "order.p*"]);
    let paid: Vec<_> = meanwhile.into_iter().filter(|event| event.ends_with(".2")).collect();
    eventually("it has printed the last", async || is_through(&again, paid.last().expect("an event"))).await;
    assert_eq!(which(&again.printed()), paid);
}

async fn what_was_is_printed_as_it_is_stored_by_order_type_and_customer(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let mut theirs = an_order("theirs");
    theirs["customer_id"] = json!("c-2");
    let theirs = docket.place(&theirs).expect(StatusCode::CREATED).await.id();
    let ours = docket.place(&an_order("ours")).expect(StatusCode::CREATED).await.id();
    for order in [&ours, &theirs] {
        docket.pay(order, TOTAL).expect(StatusCode::OK).await;
    }
    let events = |arguments: &[&str]| ask(&folder, &docket, &[&["events"], arguments].concat());
    let printed = |arguments: &[&str]| {
        let output = events(&[&["--json"], arguments].concat()).ended(0);
        output.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };

    let stored: Vec<Value> = folder
        .commits()
        .await
        .iter()
        .flat_map(|commit| commit.envelopes().collect::<Vec<_>>())
        .map(|event| serde_json::to_value(event).expect("JSON"))
        .collect();
    assert_eq!(printed(&[]), stored);
    let first = which(&stored)[0].clone();
    assert_eq!(printed(&["--after", &first]), stored[1..]);
    assert_eq!(which(&printed(&["--order", &ours])), [format!("{ours}.1"), format!("{ours}.2")]);
    assert_eq!(which(&printed(&["--order", &ours, "--after", "1"])), [format!("{ours}.2")]);
    assert_eq!(which(&printed(&["--customer", "c-2", "--type", "order.paid,order.shipped"])), [format!("{theirs}.2")]);
    // Whose it is was not seen.
    assert_eq!(which(&printed(&["--customer", "c-2", "--after", &format!("{theirs}.1"), "--order", &theirs])).len(), 1);
    assert!(printed(&["--customer", "c-1", "--after", "1", "--order", &theirs]).is_empty());

    let columns = events(&["--order", &ours]).ended(0);
    let lines: Vec<Vec<&str>> = columns.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..5], ["recorded", "at", "order", "version", "type"], "{}", columns.out);
    assert_eq!(
        (lines[2][1], &lines[2][2..5]),
        (ours.as_str(), &["2", "order.paid", "anonymous"][..]),
        "{}",
        columns.out
    );

    let nobody = events(&["--order", "01939c2e-0000-7000-8000-000000000000"]);
    assert!(nobody.ended(1).err.contains("there is no order"));
    for wrong in [
        &["--type", "order.*.x"][..],
        &["--after", "1"],
        &["--follow", "--after", &first],
        &["--order", &theirs, "--after", &format!("{ours}.1")],
    ] {
        assert_eq!(events(wrong).code, Some(2), "{wrong:?}");
    }
    let gone = Output::of(folder.command(&["events", "--follow", "--url", "http://127.0.0.1:1"]).stdin(Stdio::null()));
    assert_eq!(gone.code, Some(3), "{}", gone.err);
}
