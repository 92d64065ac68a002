//! `docket verify`: what the program that is run makes of the log of a docket.

use std::collections::BTreeSet;

use actors::commit::Commit;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::command::ask;
use crate::harness::{Folder, Store, on_every_store};
use crate::upgrade::{AHEAD, a_paid_order, ahead, next_commit};

on_every_store!(
    the_whole_log_is_read_with_the_code_of_the_program_that_is_run,
    what_cannot_be_read_or_cannot_follow_is_counted_by_type_and_schema_version,
);

async fn the_whole_log_is_read_with_the_code_of_the_program_that_is_run(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    ask(&folder, &docket, &["verify"]).ended(0);
    // More than a page.
    let older: Vec<String> = (0..1_500).map(|n| format!(r#"{{"orderId":"o-{n}","userId":"u","total":5}}"#)).collect();
    docket.import(older.join("\n")).await;
    let order = a_paid_order(&docket, "web-1").await;
    docket.ship(&order).expect(StatusCode::OK).await;

    let whole = ask(&folder, &docket, &["verify", "--json"]).ended(0).json();
    assert_eq!((&whole["complete"], &whole["orders"], &whole["events"]), (&true.into(), &1_501.into(), &1_503.into()));
    let types: Vec<_> = whole["types"].as_array().expect("types").iter().map(Value::to_string).collect();
    let of = |event_type: &str, schema_version: u32, events: u32| {
        json!({"type": event_type, "schema_version": schema_version, "events": events}).to_string()
    };
    assert_eq!(
        types,
        [of("order.created", 1, 1_500), of("order.created", 2, 1), of("order.paid", 1, 1), of("order.shipped", 2, 1)]
    );
    let in_words = ask(&folder, &docket, &["verify"]).ended(0);
    let line = in_words.out.lines().find(|line| line.starts_with("order.created  1")).expect("a line");
    assert!(line.contains("1,500") && line.ends_with("as version 2"), "{line}");

    // A run that was cut off goes on behind the last order that it read.
    let middle = folder.commits().await[700].order().to_string();
    let rest = ask(&folder, &docket, &["verify", "--after", &middle, "--json"]).ended(0).json();
    let orders: BTreeSet<_> = folder.commits().await.iter().map(Commit::order).collect();
    let behind = orders.iter().filter(|order| order.to_string() > middle).count();
    assert_eq!(rest["orders"], behind, "{rest}");
}

async fn what_cannot_be_read_or_cannot_follow_is_counted_by_type_and_schema_version(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let mut orders = Vec::new();
    for n in 0..6 {
        orders.push(a_paid_order(&docket, &format!("web-{n}")).await);
    }
    assert_eq!(docket.stop().await, Some(0));
    folder.damage(&orders[0]).await;
    for (order, event_type, schema_version, data) in [
        (1, "order.shipped", AHEAD, ahead()),
        (2, "order.shipped", AHEAD, ahead()),
        (3, "order.gift_wrapped", 1, json!({})),
        (4, "order.delivered", 1, json!({})),
    ] {
        folder.append(&next_commit(&folder, &orders[order], event_type, schema_version, &data).await).await;
    }
    let docket = folder.start().await;
    let found = ask(&folder, &docket, &["verify", "--json"]).ended(1).json();
    assert_eq!((&found["complete"], &found["orders"], &found["orders_failing"]), (&true.into(), &6.into(), &5.into()));
    let mut troubles = Vec::new();
    for trouble in found["troubles"].as_array().expect("troubles") {
        let example = &trouble["examples"][0];
        assert!(example["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{trouble}");
        let version = example["version"].as_u64().expect("a version");
        troubles.push(format!("{} {} {} {version}", trouble["type"], trouble["trouble"], trouble["events"]));
    }
    assert_eq!(
        troubles,
        [
            r#""order.created" "unreadable" 1 1"#,
            r#""order.delivered" "does_not_follow" 1 3"#,
            r#""order.gift_wrapped" "ahead" 1 3"#,
            r#""order.shipped" "ahead" 2 3"#,
        ]
    );
}
