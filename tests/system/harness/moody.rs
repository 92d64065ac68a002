//! What the subscriber of `examples/moody.rs` is in the mood for, what it has done, and what is held of it.

use std::collections::BTreeMap;
use std::fs;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::callers::{Callers, LIFE, Said};
use super::{Docket, Folder, TOTAL};

/// Its name, and that of the program.
pub(crate) const MOODY: &str = "moody";
/// What is run beside it, where nothing else is wanted.
pub(crate) const PARTS: &str = "orders,moody";
/// Callers who place orders at the same time.
const CALLERS: usize = 32;

/// The versions of each order's events, in the order in which they were handled.
pub(crate) type Handled = BTreeMap<String, Vec<i64>>;

/// Data on which it runs, with pauses that a test can wait for.
pub(crate) fn impatient(folder: Folder) -> Folder {
    folder.set("DOCKET__SUBSCRIBER__BACKOFF_FIRST_MS", "20").set("DOCKET__SUBSCRIBER__BACKOFF_MAX_MS", "200")
}

/// From now on it is in these moods: lines as `examples/moody.rs` explains them.
pub(crate) fn moods(folder: &Folder, lines: &[&str]) {
    let part = folder.file("moods.part");
    fs::write(&part, lines.join("\n")).expect("a file");
    fs::rename(&part, folder.file("moods")).expect("a file");
}

/// Each of these callers' references gets an order that is moved on by so many steps, many at a time; their ids.
pub(crate) async fn trade(docket: &Docket, orders: impl IntoIterator<Item = (String, usize)>) -> Vec<String> {
    let callers = &Callers::new(std::slice::from_ref(docket));
    let lives = orders.into_iter().map(|(reference, steps)| async move {
        let mut order = String::new();
        for step in &LIFE[..steps] {
            let answer = callers.say(&Said::new(*step, &order, &reference), false).await;
            order = answer.expect("it is repeated").id();
        }
        order
    });
    futures_util::stream::iter(lives).buffered(CALLERS).collect().await
}

/// How far it is, as that docket says.
pub(crate) async fn figures(docket: &Docket) -> Value {
    let subscribers = docket.subscribers().await;
    subscribers.into_iter().find(|one| one["name"] == MOODY).expect("it runs there")
}

/// Events that it has handled in that docket since that began.
pub(crate) async fn applied(docket: &Docket) -> u64 {
    figures(docket).await["applied"].as_u64().expect("a number")
}

/// What it has handled, as it is stored.
pub(crate) async fn handled(folder: &Folder) -> Handled {
    let orders = folder.documents(MOODY, "orders").await;
    let versions = |body: &str| {
        let order: Value = serde_json::from_str(body).expect("an order");
        order["versions"].as_array().expect("versions").iter().filter_map(Value::as_i64).collect()
    };
    orders.into_iter().map(|(order, body)| (order, versions(&body))).collect()
}

/// The versions for which a receipt was written, in the order in which they were.
pub(crate) fn receipts(folder: &Folder) -> Handled {
    let mut receipts = Handled::new();
    for line in fs::read_to_string(folder.file("receipts")).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let (order, version) = (words.next().expect("an order"), words.next().expect("a version"));
        receipts.entry(order.to_owned()).or_default().push(version.parse().expect("a number"));
    }
    receipts
}

/// It has handled every event that is stored among `orders`, each once and in order, but of those in `held` only so far;
/// and its sums are those of what it has handled.
pub(crate) async fn assert_handled(folder: &Folder, orders: &Folder, held: &Handled) {
    let (mut expected, mut sums) = (Handled::new(), BTreeMap::new());
    for event in orders.commits().await.iter().flat_map(|commit| commit.envelopes()) {
        let (order, version) = (event.order.to_string(), i64::from(event.version.0));
        if held.get(&order).is_none_or(|versions| versions.contains(&version)) {
            expected.entry(order).or_default().push(version);
            let amount = if ["order.created", "order.paid"].contains(&event.event_type.as_str()) { TOTAL } else { 0 };
            let sum = sums.entry(event.event_type).or_insert((0, 0));
            *sum = (sum.0 + 1, sum.1 + amount);
        }
    }
    let handled = handled(folder).await;
    let wrong: Vec<_> = handled.iter().filter(|(order, versions)| expected.get(*order) != Some(versions)).collect();
    let missing: Vec<_> = expected.keys().filter(|order| !handled.contains_key(*order)).collect();
    assert!(wrong.is_empty() && missing.is_empty(), "handled {wrong:?}, nothing of {missing:?}");
    let sums: BTreeMap<String, Value> =
        sums.into_iter().map(|(name, (events, amount))| (name, json!({"events": events, "amount": amount}))).collect();
    let stored = folder.documents(MOODY, "sums").await;
    let stored = stored.into_iter().map(|(name, body)| (name, serde_json::from_str(&body).expect("a sum")));
    assert_eq!(stored.collect::<BTreeMap<String, Value>>(), sums);
}

/// What is held of it, of that kind, as that docket lists it: all of it.
pub(crate) async fn letters(docket: &Docket, which: &str) -> Vec<Value> {
    let (mut letters, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = docket.ops(&format!("/api/dead-letters?subscriber={MOODY}&limit=100&{which}{cursor}")).await;
        letters.extend(page["dead_letters"].as_array().expect("dead letters").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return letters,
        }
    }
}

/// How many of it are held for good, until somebody decides.
pub(crate) async fn dead(docket: &Docket) -> u64 {
    figures(docket).await["dead_letters"].as_u64().expect("a number")
}
