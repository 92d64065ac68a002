//! `kill -9` in the middle of many writers. Whatever was acknowledged is there afterwards, whatever was not can be
//! repeated with its key, nothing happened twice, and nothing is there that nobody asked for. Every event has its mail.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::harness::callers::{Acknowledged, LIFE, Said, assert_kept, assert_mailed, stored_events};
use crate::harness::{Docket, Folder, Setting, in_every_setting, rounds};

const WRITERS: usize = 64;

/// What writers know when the docket has gone.
#[derive(Default)]
struct Known {
    acknowledged: Acknowledged,
    unanswered: Vec<Said>,
}

/// Places an order after another and moves each on, until an answer fails to come.
async fn write(docket: &Docket, name: String) -> Known {
    let mut known = Known::default();
    for n in 0.. {
        let mut order = String::new();
        for step in LIFE {
            let said = Said::new(step, &order, &format!("{name}-{n}"));
            match said.to(docket).send().await {
                Ok(answer) => {
                    assert!(answer.status.is_success(), "{said:?}: {} {}", answer.status, answer.body);
                    order = answer.id();
                    known.acknowledged.push((said, answer));
                }
                Err(_) => {
                    known.unanswered.push(said);
                    return known;
                }
            }
        }
    }
    known
}

/// Has [`WRITERS`] write, kills the docket after `delay`, and gives what they know.
async fn write_and_kill(docket: Docket, round: usize, delay: Duration) -> Known {
    let writers = join_all((0..WRITERS).map(|writer| write(&docket, format!("{round}-{writer}"))));
    let killer = async {
        tokio::time::sleep(delay).await;
        docket.signal("KILL");
    };
    let (known, ()) = tokio::join!(writers, killer);
    docket.kill();
    let mut all = Known::default();
    for one in known {
        all.acknowledged.extend(one.acknowledged);
        all.unanswered.extend(one.unanswered);
    }
    all
}

/// Each order's events are those of its commands, each once, without a gap.
async fn assert_once(docket: &Docket, orders: &BTreeSet<String>) {
    let checks = orders.iter().map(|order| async move {
        let events = docket.events(order).await;
        let happened: Vec<(i64, &str)> = events
            .iter()
            .map(|event| (event["version"].as_i64().expect("a version"), event["type"].as_str().expect("a type")))
            .collect();
        let all = [(1, "order.created"), (2, "order.paid"), (3, "order.shipped"), (4, "order.delivered")];
        assert_eq!(happened, all[..happened.len().min(4)], "order {order}");
    });
    futures_util::stream::iter(checks).buffer_unordered(WRITERS).collect::<Vec<()>>().await;
}

in_every_setting!(kill_9_among_writers_loses_nothing_and_repeats_nothing);

async fn kill_9_among_writers_loses_nothing_and_repeats_nothing(setting: Setting) {
    let folder = Folder::new(setting);
    let mut orders = BTreeSet::new();
    let mut docket = folder.start().await;
    for round in 0..rounds(4, 100) {
        // Early, while connections are new, or late, while subscribers are behind.
        let delay = Duration::from_millis(rand::random_range(20..600));
        let known = write_and_kill(docket, round, delay).await;
        docket = folder.start().await;

        assert_kept(&docket, &known.acknowledged).await;
        let mut touched: BTreeSet<String> = known.acknowledged.iter().map(|(_, answer)| answer.id()).collect();
        for said in &known.unanswered {
            let answer = said.to(&docket).send().await.expect("an answer");
            assert!(answer.status.is_success(), "{said:?} repeated: {} {}", answer.status, answer.body);
            touched.insert(answer.id());
        }
        assert_once(&docket, &touched).await;
        orders.append(&mut touched);
    }

    assert_once(&docket, &orders).await;
    docket.settled(&folder).await;
    assert_eq!(docket.stop().await, Some(0));
    let stored = stored_events(&folder).await;
    assert_eq!(stored.keys().cloned().collect::<BTreeSet<_>>(), orders, "an order that nobody knows, or too few");
    assert_mailed(&folder, &folder).await;
}
