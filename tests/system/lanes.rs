//! Events that fail hold their own order, in order, with everything behind them; the rest goes on. Whatever it was is mended,
//! and everything is applied once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use servers::RabbitVhost;

use crate::harness::command::ask;
use crate::harness::moody::{
    Handled, MOODY, PARTS, applied, assert_handled, dead, figures, handled, impatient, letters, moods, receipts, trade,
};
use crate::harness::{
    Docket, Folder, Setting, Store, WAIT_MAX, eventually, eventually_within, in_every_setting, rounds,
};

in_every_setting!(
    poisoned_orders_are_held_in_order_and_drained_when_the_handler_is_mended,
    while_a_dependency_is_down_nothing_becomes_a_dead_letter_and_afterwards_everything_is_applied,
    a_handler_that_hangs_holds_up_nobody_else,
    an_effect_that_fails_for_good_holds_its_order_and_goes_on_when_it_is_retried_or_discarded,
);

/// What a production runs on.
const PRODUCTION: Setting = Setting { store: Store::Mongodb, servers: true };
/// Steps of an order that is moved on to its end.
const LIFE: usize = 4;
/// Every so many orders one has an event that cannot be handled: one in a hundred events.
const POISONED_EVERY: usize = 25;
/// How, each of them.
const POISONS: [&str; 3] = ["permanent", "transient", "panic"];

/// On data of that kind, with a broker but without a mail server.
fn folder(setting: Setting) -> Folder {
    let folder = Folder::new(setting.store);
    impatient(if setting.servers { folder.carried_by(RabbitVhost::new()) } else { folder })
}

async fn start(folder: &Folder) -> Docket {
    folder.start_example_only(MOODY, PARTS).await
}

/// Events that even a busy machine handles in a second.
const EVENTS_A_SECOND: usize = 20;

/// Waits until it has handled so many events, all in that docket.
async fn has_applied(docket: &Docket, events: usize) {
    let limit = WAIT_MAX + Duration::from_secs((events / EVENTS_A_SECOND) as u64);
    eventually_within(limit, "it has handled them", async || applied(docket).await == events as u64).await;
}

async fn poisoned_orders_are_held_in_order_and_drained_when_the_handler_is_mended(setting: Setting) {
    // On the way that a production takes there are 20,000 events. Elsewhere fewer show the same.
    poison(setting, if setting == PRODUCTION { rounds(5_000, 25_000) } else { 500 }).await;
}

async fn poison(setting: Setting, orders: usize) {
    let folder = folder(setting);
    moods(&folder, &POISONS.map(|mood| format!("{mood}@2 {mood}")).each_ref().map(String::as_str));
    let docket = start(&folder).await;
    let mut poisoned = 0;
    let references: Vec<String> = (0..orders)
        .map(|n| {
            let is_poisoned = n % POISONED_EVERY == POISONED_EVERY / 2;
            poisoned += usize::from(is_poisoned);
            if is_poisoned { format!("{}-{n}", POISONS[poisoned % POISONS.len()]) } else { format!("web-{n}") }
        })
        .collect();
    let ids = trade(&docket, references.iter().map(|reference| (reference.clone(), LIFE))).await;
    let events = orders * LIFE;
    assert_eq!(poisoned, events / 100);

    has_applied(&docket, events - poisoned * (LIFE - 1)).await;
    eventually("the others are dead letters", async || dead(&docket).await == poisoned as u64).await;
    let is_poisoned = |reference: &String| POISONS.iter().any(|mood| reference.starts_with(mood));
    let held: Handled =
        ids.iter().zip(&references).filter(|(_, it)| is_poisoned(it)).map(|(id, _)| (id.clone(), vec![1])).collect();
    assert_handled(&folder, &folder, &held).await;

    let letters = letters(&docket, "state=dead").await;
    let in_them: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["order"].as_str()).collect();
    assert_eq!(in_them, held.keys().map(String::as_str).collect());
    for letter in &letters {
        assert_eq!((&letter["version"], &letter["waiting_behind"]), (&2.into(), &2.into()), "{letter}");
    }
    assert_eq!(figures(&docket).await["state"], "running", "one that fails is no reason to wait for others");

    moods(&folder, &[]);
    retry_by_group(&folder, &docket, &letters);
    has_applied(&docket, events).await;
    eventually("nothing is held", async || dead(&docket).await == 0).await;
    assert_handled(&folder, &folder, &Handled::new()).await;
    eventually("each receipt is written", async || receipts(&folder).len() == orders).await;
    assert!(receipts(&folder).values().all(|versions| *versions == [2]), "a receipt was written twice");
}

/// Each group by its own: one for each way of failing. Nothing is retried unless it is known how many there are.
fn retry_by_group(folder: &Folder, docket: &Docket, letters: &[Value]) {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in letters {
        *groups.entry(letter["group"].as_str().expect("a group")).or_default() += 1;
    }
    assert_eq!(groups.len(), POISONS.len(), "{groups:?}");
    for (group, count) in groups {
        let retry = |count: usize| {
            let count = count.to_string();
            let words = ["dead-letters", "retry", "--subscriber", MOODY, "--group", group, "--count", &count, "--json"];
            ask(folder, docket, &words)
        };
        let refused = retry(count + 1).ended(1);
        assert!(refused.err.contains(&count.to_string()), "{}", refused.err);
        assert_eq!(retry(count).ended(0).json()["retried"], count);
    }
}

async fn while_a_dependency_is_down_nothing_becomes_a_dead_letter_and_afterwards_everything_is_applied(
    setting: Setting,
) {
    let orders = if setting == PRODUCTION { rounds(2_000, 10_000) } else { 500 };
    let folder = folder(setting);
    moods(&folder, &["* transient"]);
    let docket = start(&folder).await;
    trade(&docket, (0..orders).map(|n| (format!("web-{n}"), 1))).await;
    eventually("it says so", async || figures(&docket).await["state"] == "dependency_down").await;
    eventually("it knows of all of them", async || figures(&docket).await["behind"] == orders).await;
    // More often than an event may fail.
    let tried = figures(&docket).await["retries"].as_u64().expect("a number");
    eventually("it tries again and again", async || figures(&docket).await["retries"].as_u64() > Some(tried + 10))
        .await;
    assert_eq!(dead(&docket).await, 0);
    assert_eq!(applied(&docket).await, 0);

    moods(&folder, &[]);
    has_applied(&docket, orders).await;
    eventually("it runs", async || figures(&docket).await["state"] == "running").await;
    assert_eq!(dead(&docket).await, 0);
    assert_handled(&folder, &folder, &Handled::new()).await;
}

async fn a_handler_that_hangs_holds_up_nobody_else(setting: Setting) {
    // So long that nobody could wait for it here.
    let folder = folder(setting).set("DOCKET__SUBSCRIBER__HANDLER_TIMEOUT_MS", "3600000");
    moods(&folder, &["hang@2 hang"]);
    let docket = start(&folder).await;
    let ids =
        trade(&docket, (0..100).map(|n| (format!("{}-{n}", if n % 20 == 10 { "hang" } else { "web" }), LIFE))).await;
    let hanging: Handled = ids.iter().skip(10).step_by(20).map(|id| (id.clone(), vec![1])).collect();
    has_applied(&docket, ids.len() * LIFE - hanging.len() * (LIFE - 1)).await;
    assert_handled(&folder, &folder, &hanging).await;
    assert_eq!(figures(&docket).await["retries"], 0, "they still hang");

    moods(&folder, &[]);
    has_applied(&docket, ids.len() * LIFE).await;
    assert_handled(&folder, &folder, &Handled::new()).await;
    assert_eq!(dead(&docket).await, 0);
}

async fn an_effect_that_fails_for_good_holds_its_order_and_goes_on_when_it_is_retried_or_discarded(setting: Setting) {
    let folder = folder(setting);
    moods(&folder, &["bad performing permanent", "weak performing transient"]);
    let docket = start(&folder).await;
    let references = ["bad-0", "bad-1", "weak-0", "web-0"];
    let ids = trade(&docket, references.map(|reference| (reference.to_owned(), LIFE))).await;
    eventually("they are dead letters", async || dead(&docket).await == 3).await;
    // What was asked for outside is no reason not to handle what comes next.
    has_applied(&docket, ids.len() * LIFE).await;
    assert_handled(&folder, &folder, &Handled::new()).await;
    assert_eq!(receipts(&folder).into_keys().collect::<Vec<_>>(), [ids[3].clone()]);

    moods(&folder, &[]);
    let letter = |n: usize| format!("{}.2.0", ids[n]);
    ask(&folder, &docket, &["dead-letters", "discard", MOODY, &letter(0), "--reason", "told by hand"]).ended(0);
    ask(&folder, &docket, &["dead-letters", "retry", MOODY, &letter(1)]).ended(0);
    ask(&folder, &docket, &["dead-letters", "retry", MOODY, &letter(2)]).ended(0);
    eventually("they are written", async || receipts(&folder).len() == 3).await;
    assert!(!receipts(&folder).contains_key(&ids[0]));
    let effects = docket.ops(&format!("/api/subscribers/{MOODY}/effects/{}", ids[0])).await;
    assert_eq!(effects["effects"][0]["outcome"], "discarded", "{effects}");
    assert_eq!(effects["effects"][0]["detail"], "told by hand", "{effects}");
    eventually("nothing is held", async || letters(&docket, "").await.is_empty()).await;
    assert_eq!(handled(&folder).await.len(), ids.len());
}
