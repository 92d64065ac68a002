//! From one machine to MongoDB, as an operator does it.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::Value;
use servers::MongoDatabase;

use crate::harness::{Docket, Folder, Store, TOTAL, an_order};

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

/// `docket copy` of that folder.
fn copy(folder: &Folder, target: &MongoDatabase) -> Told {
    let mut copy = folder.command(&["copy", "--json", "--to", target.uri(), "--database", target.name()]);
    told(&mut copy)
}

fn told(command: &mut Command) -> Told {
    let output = command.output().expect("the built docket");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Told { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
}

/// Orders in every state that an order can be in.
async fn orders_in_all_states(docket: &Docket) {
    for reference in ["placed", "paid", "shipped"] {
        let order = docket.place(&an_order(reference)).expect(StatusCode::CREATED).await.id();
        if reference != "placed" {
            docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
        }
        if reference == "shipped" {
            docket.ship(&order).expect(StatusCode::OK).await;
        }
    }
}

#[tokio::test]
async fn everything_is_there_afterwards_and_a_second_run_changes_nothing() {
    let folder = Folder::new(Store::Sqlite);
    let docket = folder.start().await;
    orders_in_all_states(&docket).await;
    assert_eq!(docket.stop().await, Some(0));
    let target = MongoDatabase::new();
    let first = copy(&folder, &target).report();
    assert_eq!((&first["commits"]["count"], &first["copied_before"]), (&6.into(), &false.into()));
    let second = copy(&folder, &target).report();
    assert_eq!((&second["commits"], &second["copied_before"]), (&first["commits"], &true.into()));
}
