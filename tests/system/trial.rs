//! `docket try`: what a subscriber's handler would make of an event, and nothing of it done.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::command::ask;
use crate::harness::moody::{Handled, MOODY, PARTS, figures, handled, impatient, moods};
use crate::harness::{Folder, Store, TOTAL, an_order, eventually, on_every_store};

on_every_store!(a_handler_is_tried_on_the_next_event_and_nothing_is_written);

async fn a_handler_is_tried_on_the_next_event_and_nothing_is_written(store: Store) {
    let folder = impatient(Folder::new(store));
    let docket = folder.start_example_only(MOODY, PARTS).await;
    let order = docket.place(&an_order("bad-0")).expect(StatusCode::CREATED).await.id();
    docket.settled(&folder).await;
    ask(&folder, &docket, &["subscribers", "pause", MOODY]).ended(0);
    eventually("it rests", async || figures(&docket).await["state"] == "paused").await;
    docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
    let tried = |more: &[&str]| ask(&folder, &docket, &[&["try", MOODY, "--order", &order], more].concat());

    let would = tried(&[]).ended(0);
    assert!(would.out.starts_with(&format!("{order}.2: order.paid\n")), "{}", would.out);
    assert!(would.out.contains("[1,2]") && would.out.contains(&format!("document orders/{order}")), "{}", would.out);
    let again = tried(&["--version", "1"]).out;
    assert!(again.contains("handled already"), "{again}");
    moods(&folder, &["bad@2 permanent"]);
    let would = tried(&["--json"]).ended(1).json();
    assert_eq!((&would["outcome"], &would["version"], &would["applied"]), (&"would_fail".into(), &2.into(), &1.into()));
    assert!(would["failure"]["error"].as_str().is_some_and(|error| error.contains("not in the mood")), "{would}");
    assert_eq!(tried(&["--version", "3", "--json"]).ended(1).json()["outcome"], "not_in_log");
    tried(&["--version", "0"]).ended(2);
    ask(&folder, &docket, &["try", "nobody", "--order", &order]).ended(1);
    let wrong = docket.post_ops(&format!("/api/subscribers/{MOODY}/try/{order}"), &json!({"version": 0}));
    wrong.expect(StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(handled(&folder).await, Handled::from([(order.clone(), vec![1])]));

    moods(&folder, &[]);
    ask(&folder, &docket, &["subscribers", "resume", MOODY]).ended(0);
    docket.settled(&folder).await;
    assert_eq!(handled(&folder).await, Handled::from([(order, vec![1, 2])]));
}
