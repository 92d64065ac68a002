//! Processes that end in the middle of their work: for no fault of an event nothing is held, and an event that ends the
//! process whenever it is handled is held alone.

use std::time::Duration;

use reqwest::StatusCode;
use servers::RabbitVhost;

use crate::harness::callers::Callers;
use crate::harness::command::ask;
use crate::harness::moody::{
    Handled, MOODY, PARTS, applied, assert_handled, dead, figures, handled, impatient, letters, moods, receipts, trade,
};
use crate::harness::{Docket, Folder, Setting, eventually, in_every_setting, rounds};

in_every_setting!(
    a_consumer_killed_twenty_times_under_load_leaves_no_dead_letter_and_applies_everything_once,
    an_event_that_kills_the_process_becomes_a_dead_letter_and_no_other_does,
);

const KILLS: usize = 20;
const CALLERS: usize = 4;
/// Attempts at an event.
const ATTEMPTS_MAX: usize = 5;
/// Once before anything was counted, and then at each attempt.
const ENDS_MAX: usize = ATTEMPTS_MAX + 1;

/// The orders in one process and the subscriber in another, which is killed again and again.
async fn a_consumer_killed_twenty_times_under_load_leaves_no_dead_letter_and_applies_everything_once(setting: Setting) {
    let vhost = setting.servers.then(RabbitVhost::new);
    let broker = vhost.as_ref().map_or("", RabbitVhost::uri);
    let orders = Folder::new(setting.store).set("RABBITMQ_URL", broker);
    let dockets = vec![orders.start_only("orders").await];
    let consumers = impatient(Folder::new(setting.store))
        .set("RABBITMQ_URL", broker)
        .set("DOCKET__HISTORY__URL", &dockets[0].ops)
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "500")
        .set("DOCKET__SUBSCRIBER__LEASE_MS", "1000");
    let callers = Callers::new(&dockets);
    let kill = async {
        for _ in 0..rounds(KILLS, KILLS * 10) {
            let consumer = consumers.start_example_only(MOODY, MOODY).await;
            eventually("it handles something", async || applied(&consumer).await > 0).await;
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
            consumer.kill();
            callers.go_on(1).await;
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), kill);

    let consumer = consumers.start_example_only(MOODY, MOODY).await;
    let events: usize = callers.into_told().events().values().map(Vec::len).sum();
    eventually("everything is handled", async || {
        handled(&consumers).await.values().map(Vec::len).sum::<usize>() >= events
    })
    .await;
    assert_handled(&consumers, &orders, &Handled::new()).await;
    eventually("everything is performed", async || figures(&consumer).await["effects_waiting"] == 0).await;
    let paid =
        orders.commits().await.iter().flat_map(|it| it.envelopes()).filter(|it| it.event_type == "order.paid").count();
    assert_eq!(receipts(&consumers).len(), paid);
    assert_eq!(figures(&consumer).await["lanes_held"], 0);
    assert_eq!(dead(&consumer).await, 0);
}

/// Whatever runs the program: starts it again whenever it has ended, until so many are dead letters. How often it ended.
async fn run_until_dead(folder: &Folder, count: u64) -> (Docket, usize) {
    for ended in 0..=ENDS_MAX {
        // It may not even live until it serves.
        let Ok(mut docket) = folder.try_start_example_only(MOODY, PARTS).await else { continue };
        let mut is_dead = false;
        eventually("it ends, or the event is a dead letter", async || {
            let asked = docket.get_ops("/api/subscribers").send().await;
            is_dead = asked.is_ok_and(|answer| answer.body["subscribers"][0]["dead_letters"] == count);
            is_dead || docket.has_ended()
        })
        .await;
        if is_dead {
            return (docket, ended);
        }
    }
    panic!("it ends more often than an event is tried")
}

async fn an_event_that_kills_the_process_becomes_a_dead_letter_and_no_other_does(setting: Setting) {
    let folder = Folder::new(setting.store);
    let folder = if setting.servers { folder.carried_by(RabbitVhost::new()) } else { folder };
    let folder =
        impatient(folder).set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "500").set("DOCKET__SUBSCRIBER__LEASE_MS", "1000");
    moods(&folder, &["bomb@2 overflow"]);
    let docket = folder.start_only("orders").await;
    let references = (0..100).map(|n| (if n == 50 { "bomb".to_owned() } else { format!("web-{n}") }, 4));
    let ids = trade(&docket, references).await;
    let bomb = &ids[50];
    assert_eq!(docket.stop().await, Some(0));

    let (docket, ended) = run_until_dead(&folder, 1).await;
    assert!(ended > 0, "it did not end");
    let held = Handled::from([(bomb.clone(), vec![1])]);
    eventually("the others are handled", async || {
        handled(&folder).await.values().map(Vec::len).sum::<usize>() == ids.len() * 4 - 3
    })
    .await;
    assert_handled(&folder, &folder, &held).await;
    let letters = letters(&docket, "").await;
    let [letter] = &letters[..] else { panic!("{letters:#?}") };
    let id = format!("{bomb}.2");
    assert_eq!((&letter["id"], &letter["state"]), (&id.clone().into(), &"dead".into()), "{letter}");
    assert_eq!((&letter["attempts"], &letter["waiting_behind"]), (&ATTEMPTS_MAX.into(), &2.into()), "{letter}");

    ask(&folder, &docket, &["dead-letters", "discard", MOODY, &id, "--reason", "it kills"]).ended(0);
    eventually("its order goes on", async || handled(&folder).await[bomb] == [1, 3, 4]).await;
    assert_handled(&folder, &folder, &Handled::from([(bomb.clone(), vec![1, 3, 4])])).await;
    assert_eq!(dead(&docket).await, 0);
    // It is told beside the order's events, and is none of them.
    let events = docket.get(&format!("/orders/{bomb}/events")).expect(StatusCode::OK).await.body;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(4), "{events}");
    let order = ask(&folder, &docket, &["order", bomb]).ended(0);
    assert!(order.out.contains("it kills"), "{}", order.out);
    assert_eq!(docket.stop().await, Some(0));
}
