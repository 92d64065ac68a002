//! Somebody restores an older backup of the orders under a subscriber that knows more. What contradicts what it has applied
//! is held, each order alone and with its reason, until somebody decides; nothing is swallowed, nothing is taken back.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::callers::{LIFE, Said};
use crate::harness::command::ask;
use crate::harness::moody::{MOODY, PARTS, figures, handled, impatient, letters, trade};
use crate::harness::{Docket, Folder, Store, eventually, on_every_store};

on_every_store!(orders_restored_from_an_older_copy_are_noticed_and_those_that_contradict_are_held_alone);

/// What became of an order, and of how many.
const EACH: usize = 3;
/// Of each kind its name, the steps that were lost, and those that follow.
const KINDS: [(&str, usize, usize); 6] = [
    ("as-many", 3, 3),
    ("fewer", 3, 1),
    ("none", 3, 0),
    ("more", 1, 3),
    // Nothing was lost of these.
    ("whole", 0, 2),
    ("untouched", 0, 0),
];

async fn move_on(docket: &Docket, order: &str, steps: usize, when: &str) {
    for step in &LIFE[1..=steps] {
        let answer = Said::new(*step, order, &format!("{when}-{order}")).to(docket).send().await.expect("an answer");
        assert!(answer.status.is_success(), "{step:?}: {}", answer.body);
    }
}

async fn move_all_on(
    docket: &Docket,
    orders: &BTreeMap<&str, Vec<String>>,
    when: &str,
    steps: impl Fn(usize) -> usize,
) {
    for (kind, (name, ..)) in KINDS.iter().enumerate() {
        for order in &orders[name] {
            move_on(docket, order, steps(kind), when).await;
        }
    }
}

async fn stop(docket: Docket) {
    assert_eq!(docket.stop().await, Some(0));
}

/// The orders that are held because they contradict the log.
async fn conflicting(docket: &Docket) -> BTreeSet<String> {
    let letters = letters(docket, "state=conflicting").await;
    letters.iter().map(|letter| letter["order"].as_str().expect("an order").to_owned()).collect()
}

async fn orders_restored_from_an_older_copy_are_noticed_and_those_that_contradict_are_held_alone(store: Store) {
    let folder = impatient(Folder::new(store));
    let docket = folder.start_example_only(MOODY, PARTS).await;
    let mut orders = BTreeMap::new();
    for (name, ..) in KINDS {
        orders.insert(name, trade(&docket, (0..EACH).map(|n| (format!("{name}-{n}"), 1))).await);
    }
    docket.settled(&folder).await;
    stop(docket).await;
    let copy = folder.back_up().await;

    let docket = folder.start_example_only(MOODY, PARTS).await;
    move_all_on(&docket, &orders, "lost", |kind| KINDS[kind].1).await;
    let gone = trade(&docket, [("gone".to_owned(), 2)]).await;
    docket.settled(&folder).await;
    stop(docket).await;
    let mut expected = handled(&folder).await;
    folder.restore(copy).await;

    let docket = folder.start_example_only(MOODY, PARTS).await;
    move_all_on(&docket, &orders, "new", |kind| KINDS[kind].2).await;
    let new = trade(&docket, [("new".to_owned(), 4)]).await;
    let contradict: BTreeSet<String> =
        ["as-many", "fewer", "none", "more"].iter().flat_map(|name| orders[name].clone()).collect();
    eventually("they are held", async || conflicting(&docket).await == contradict).await;
    expected.extend(orders["whole"].iter().map(|order| (order.clone(), vec![1, 2, 3])));
    expected.insert(new[0].clone(), vec![1, 2, 3, 4]);
    eventually("the others go on", async || handled(&folder).await == expected).await;
    assert_eq!(expected[&gone[0]], [1, 2], "what is lost is not taken back");
    assert_alerted(&folder, &docket, contradict.len()).await;
    assert_eq!(letters(&docket, "").await.len(), contradict.len(), "nobody else is held");

    // They contradict it still.
    let retried = &orders["as-many"][0];
    ask(&folder, &docket, &["dead-letters", "retry", MOODY, &format!("{retried}.4")]).ended(0);
    eventually("it is held again", async || conflicting(&docket).await == contradict).await;
    // Each goes on from what the log has, once somebody has looked.
    let (more, fewer) = (&orders["more"][0], &orders["fewer"][0]);
    for id in [format!("{more}.2"), format!("{fewer}.4")] {
        ask(&folder, &docket, &["dead-letters", "discard", MOODY, &id, "--reason", "restored on Monday"]).ended(0);
    }
    expected.insert(more.clone(), vec![1, 2, 3, 4]);
    eventually("its order goes on", async || handled(&folder).await == expected).await;
    let answer = docket.ship(fewer).send().await.expect("an answer");
    assert_eq!(answer.version(), 3, "{}", answer.body);
    expected.insert(fewer.clone(), vec![1, 2, 3, 4, 3]);
    eventually("so does this one", async || handled(&folder).await == expected).await;
    stop(docket).await;

    // The others are held for as long as nobody decides.
    let docket = folder.start_example_only(MOODY, PARTS).await;
    let left: BTreeSet<String> = contradict.into_iter().filter(|order| order != more && order != fewer).collect();
    eventually("it is at work", async || figures(&docket).await["state"] == "running").await;
    assert_eq!(conflicting(&docket).await, left);
    assert_eq!(handled(&folder).await, expected);
    stop(docket).await;
}

/// Whoever looks at the subscriber sees it.
async fn assert_alerted(folder: &Folder, docket: &Docket, orders: usize) {
    let figures = figures(docket).await;
    assert_eq!(figures["applying"]["conflicting"], orders, "{figures}");
    let shown = ask(folder, docket, &["subscribers"]).ended(0);
    assert!(shown.out.contains(&orders.to_string()) && shown.out.contains("backup"), "{}", shown.out);
}
