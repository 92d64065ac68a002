//! An order with an event that cannot be read, asked for again and again: it alone is quarantined.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{Folder, Setting, an_order, in_every_setting};

in_every_setting!(a_poisonous_order_polled_ten_times_a_second_is_quarantined_alone);

async fn a_poisonous_order_polled_ten_times_a_second_is_quarantined_alone(setting: Setting) {
    let folder = Folder::new(setting);
    let docket = folder.start().await;
    let poisoned = docket.place(&an_order("poisoned")).expect(StatusCode::CREATED).await.id();
    let healthy = docket.place(&an_order("healthy")).expect(StatusCode::CREATED).await.id();
    assert_eq!(docket.stop().await, Some(0));
    folder.damage(&poisoned).await;

    let docket = folder.start().await;
    let more = serde_json::json!({"sku": "A-1", "quantity": 1, "unit_price": 4995});
    for polls in 1..=80 {
        let answer = docket.get(&format!("/orders/{poisoned}")).send().await.expect("an answer");
        assert_eq!((answer.status, answer.problem()), (StatusCode::SERVICE_UNAVAILABLE, "order-quarantined"));
        assert!(answer.header("retry-after").is_some());
        let other = docket.tell(&healthy, "items", &more).expect(StatusCode::OK).await;
        assert_eq!(other.version(), polls + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(docket.events(&poisoned).await.len(), 1, "its trail stays readable");

    let restarts = docket.ops("/api/restarts").await;
    let entries = restarts["restarts"].as_array().expect("entries");
    assert!(entries.len() < 20, "it was tried {} times in 8 seconds", entries.len());
    assert!(entries.iter().all(|entry| entry["path"].as_str().is_some_and(|path| path.contains(&poisoned))));
    let decided = |decision: &str| entries.iter().filter(|entry| entry["decision"] == decision).count();
    assert!(decided("quarantine") >= 1 && decided("restart") >= 1, "{entries:#?}");
    let cause = entries[0]["cause"].to_string();
    assert!(cause.contains("cannot be read"), "{cause}");
    let restarts = folder.command(&["restarts"]).args(["--url", &docket.ops]).output().expect("the built docket");
    assert!(String::from_utf8_lossy(&restarts.stdout).contains("quarantine"), "{restarts:?}");
    let ready = docket.get("/readyz").expect(StatusCode::OK).await;
    assert_eq!(ready.body["ready"], Value::Bool(true), "nothing else notices");
}
