//! What operators see of what is held, and what they do about it: from any docket that has the subscriber's store, over
//! REST and by commands.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::command::{Output, ask};
use crate::harness::moody::{
    Handled, MOODY, PARTS, assert_handled, dead, figures, handled, impatient, letters, moods, receipts, trade,
};
use crate::harness::{Docket, Folder, Store, eventually, on_every_store};

on_every_store!(
    the_commands_list_show_retry_and_discard_and_say_by_their_code_whether_it_was_done,
    a_pause_survives_a_restart_and_is_over_when_somebody_says_so,
);

/// How soon a docket obeys that was told by another; it says within a second, a busy machine takes longer to be asked.
const OBEYS_WITHIN: Duration = Duration::from_secs(5);

async fn start(folder: &Folder) -> Docket {
    folder.start_example_only(MOODY, PARTS).await
}

async fn state(docket: &Docket) -> String {
    figures(docket).await["state"].as_str().expect("a state").to_owned()
}

async fn a_pause_survives_a_restart_and_is_over_when_somebody_says_so(store: Store) {
    let folder = impatient(Folder::new(store));
    let docket = start(&folder).await;
    eventually("it is at work", async || state(&docket).await == "running").await;
    ask(&folder, &docket, &["subscribers", "pause", MOODY]).ended(0);
    eventually("it rests", async || state(&docket).await == "paused").await;
    trade(&docket, (0..20).map(|n| (format!("web-{n}"), 4))).await;
    eventually("it knows of all", async || figures(&docket).await["behind"] == 80).await;
    assert_eq!(docket.stop().await, Some(0));

    let docket = start(&folder).await;
    eventually("it rests still", async || state(&docket).await == "paused").await;
    trade(&docket, (20..40).map(|n| (format!("web-{n}"), 4))).await;
    eventually("it knows of all", async || figures(&docket).await["behind"] == 160).await;
    assert_eq!(handled(&folder).await, Handled::new());
    assert_eq!(letters(&docket, "").await.len(), 0, "nobody has to decide about what rests");

    ask(&folder, &docket, &["subscribers", "resume", MOODY]).ended(0);
    docket.settled(&folder).await;
    assert_handled(&folder, &folder, &Handled::new()).await;
}

/// Which of them has the subscriber, once it is in that state.
async fn at_work(dockets: &[Docket], in_state: &str) -> usize {
    let mut found = None;
    eventually(&format!("it is {in_state} somewhere"), async || {
        for (index, docket) in dockets.iter().enumerate() {
            if state(docket).await == in_state {
                found = Some(index);
            }
        }
        found.is_some()
    })
    .await;
    found.expect("one of them")
}

#[tokio::test]
async fn what_is_said_to_any_docket_is_obeyed_by_the_one_that_is_at_work() {
    let folder = impatient(Folder::new(Store::Mongodb))
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "2000")
        .set("DOCKET__SUBSCRIBER__LEASE_MS", "4000");
    moods(&folder, &["bad@2 permanent"]);
    let mut dockets = Vec::new();
    for _ in 0..3 {
        dockets.push(start(&folder).await);
    }
    let active = at_work(&dockets, "running").await;
    let standby = &dockets[(active + 1) % 3];
    let since = Instant::now();
    ask(&folder, standby, &["subscribers", "pause", MOODY]).ended(0);
    eventually("it rests", async || state(&dockets[active]).await == "paused").await;
    assert!(since.elapsed() < OBEYS_WITHIN, "{:?}", since.elapsed());
    let references = (0..20).map(|n| (format!("{}-{n}", if n < 2 { "bad" } else { "web" }), 4));
    let ids = trade(standby, references).await;
    eventually("it knows of all", async || figures(&dockets[active]).await["behind"] == 80).await;

    // Whoever is at work next rests as well.
    assert_eq!(dockets.remove(active).stop().await, Some(0));
    let active = at_work(&dockets, "paused").await;
    assert_eq!(handled(&folder).await, Handled::new());
    let standby = &dockets[1 - active];
    let since = Instant::now();
    let resumed = standby.post_ops(&format!("/api/subscribers/{MOODY}/resume"), &json!({})).send().await;
    assert!(resumed.as_ref().is_ok_and(|answer| answer.status.is_success()), "{resumed:?}");
    eventually("it is at work", async || state(&dockets[active]).await == "running").await;
    assert!(since.elapsed() < OBEYS_WITHIN, "{:?}", since.elapsed());

    // It handles nothing, but it has the store, and so whatever is held.
    eventually("they are dead letters", async || dead(standby).await == 2).await;
    moods(&folder, &[]);
    assert_eq!(state(standby).await, "standby");
    let since = Instant::now();
    ask(&folder, standby, &["dead-letters", "retry", MOODY, &format!("{}.2", ids[0])]).ended(0);
    ask(&folder, standby, &["dead-letters", "discard", MOODY, &format!("{}.2", ids[1]), "--reason", "unpaid"]).ended(0);
    eventually("both go on", async || {
        let handled = handled(&folder).await;
        handled[&ids[0]] == [1, 2, 3, 4] && handled[&ids[1]] == [1, 3, 4]
    })
    .await;
    assert!(since.elapsed() < OBEYS_WITHIN, "{:?}", since.elapsed());
    assert_handled(&folder, &folder, &Handled::from([(ids[1].clone(), vec![1, 3, 4])])).await;
}

async fn the_commands_list_show_retry_and_discard_and_say_by_their_code_whether_it_was_done(store: Store) {
    let folder = impatient(Folder::new(store));
    moods(&folder, &["bad@2 permanent"]);
    let docket = start(&folder).await;
    let dead_letters = |words: &[&str]| ask(&folder, &docket, &[&["dead-letters"], words].concat());
    assert_eq!(dead_letters(&["list", "--json"]).ended(0).json()["count"], 0);
    let ids = trade(&docket, ["bad-0", "bad-1", "bad-2", "web-0"].map(|it| (it.to_owned(), 4))).await;
    eventually("they are dead letters", async || dead(&docket).await == 3).await;
    let letter = |n: usize| format!("{}.2", ids[n]);

    let listed = dead_letters(&["list"]).ended(0);
    let listed_as_json = dead_letters(&["list", "--subscriber", MOODY, "--json"]).ended(0).json();
    assert_eq!(listed_as_json["count"], 3, "{listed_as_json}");
    for id in (0..3).map(letter) {
        assert!(listed.out.contains(&id) && listed_as_json.to_string().contains(&id), "{}", listed.out);
    }
    assert_shown(
        &dead_letters(&["show", MOODY, &letter(0)]).ended(0).out,
        &dead_letters(&["show", MOODY, &letter(0), "--json"]).ended(0).json(),
    );

    // Nothing of that is there, or done.
    for words in [["show", MOODY, &letter(3)], ["retry", MOODY, &letter(3)], ["show", "nobody", &letter(0)]] {
        let said = dead_letters(&words).ended(1);
        assert!(!said.err.is_empty() && said.out.is_empty(), "{}", said.out);
    }
    dead_letters(&["discard", MOODY, &letter(0)]).ended(2);
    dead_letters(&["retry", "--subscriber", MOODY]).ended(2);
    Output::of(folder.command(&["dead-letters", "list"]).args(["--url", "http://127.0.0.1:1"])).ended(3);

    // What would come of it is said, and nothing of it done.
    let would = dead_letters(&["retry", MOODY, &letter(0), "--dry-run", "--json"]).json();
    assert_eq!(would["outcome"], "would_fail", "{would}");
    moods(&folder, &[]);
    let would = dead_letters(&["retry", MOODY, &letter(0), "--dry-run", "--json"]).ended(0).json();
    assert_eq!(would["outcome"], "would_apply", "{would}");
    assert_eq!((dead(&docket).await, &handled(&folder).await[&ids[0]][..]), (3, &[1][..]));

    dead_letters(&["retry", MOODY, &letter(0)]).ended(0);
    dead_letters(&["discard", MOODY, &letter(1), "--reason", "it was a test"]).ended(0);
    dead_letters(&["discard", MOODY, &letter(1), "--reason", "once more"]).ended(1);
    let bad_2 = json!({"subscriber": MOODY, "type": "order.paid", "count": 1});
    let retried = docket.post_ops("/api/dead-letters/retry", &bad_2).expect(StatusCode::OK).await.body;
    assert_eq!(retried["retried"], 1, "{retried}");
    eventually("all go on", async || {
        let handled = handled(&folder).await;
        [0, 2, 3].iter().all(|n| handled[&ids[*n]] == [1, 2, 3, 4]) && handled[&ids[1]] == [1, 3, 4]
    })
    .await;
    assert_eq!(dead_letters(&["list", "--json"]).ended(0).json()["count"], 0);
    let order = ask(&folder, &docket, &["order", &ids[1]]).ended(0);
    assert!(order.out.contains("it was a test") && !order.out.contains("once more"), "{}", order.out);
}

#[tokio::test]
async fn many_are_retried_by_whoever_says_their_number_and_effects_are_found_by_type_and_let_go() {
    let folder = impatient(Folder::new(Store::Sqlite));
    moods(&folder, &["mail performing permanent"]);
    let docket = start(&folder).await;
    let ids = trade(&docket, (0..3).map(|n| (format!("mail-{n}"), 4))).await;
    eventually("they are dead letters", async || dead(&docket).await == 3).await;
    let dead_letters = |words: &[&str]| ask(&folder, &docket, &[&["dead-letters"], words].concat());
    let of_type = |name: &str| dead_letters(&["list", "--type", name, "--json"]).ended(0).json()["count"].clone();
    assert_eq!((of_type("order.paid"), of_type("order.shipped")), (json!(3), json!(0)));
    let listed = dead_letters(&["list"]).ended(0);
    assert!(listed.out.contains("order.paid"), "{}", listed.out);

    // Nobody sits at a terminal.
    let retry = ["retry", "--type", "order.paid"];
    let said = dead_letters(&retry).ended(2);
    assert!(said.err.contains("say --count 3 to retry all of them"), "{}", said.err);
    assert_eq!(dead(&docket).await, 3, "nothing was retried");
    let letter = format!("{}.2.0", ids[0]);
    let said = dead_letters(&["discard", MOODY, &letter, "--reason", "sent by hand"]).ended(0);
    assert!(said.out.contains(&format!("Discarded effect 0 of event 2 of order {}", ids[0])), "{}", said.out);
    moods(&folder, &[]);
    let said = dead_letters(&[&retry[..], &["--count", "2"]].concat()).ended(0);
    assert!(said.out.contains("2 are tried again"), "{}", said.out);
    eventually("they are performed", async || dead(&docket).await == 0 && receipts(&folder).len() == 2).await;
    assert!(!receipts(&folder).contains_key(&ids[0]), "what was let go is not performed");
}

/// Everything that somebody needs who is to decide.
fn assert_shown(text: &str, letter: &Value) {
    assert_eq!(letter["event"]["stored"]["type"], "order.paid", "{letter}");
    assert_eq!(letter["event"]["upcast"]["schema_version"], 1, "{letter}");
    let [tried] = &letter["tried"].as_array().expect("attempts")[..] else { panic!("{letter}") };
    assert_eq!((&tried["kind"], &tried["group"]), (&"permanent".into(), &letter["group"]), "{letter}");
    let versions: Vec<_> = letter["behind"].as_array().expect("events").iter().map(|event| &event["version"]).collect();
    assert_eq!(versions, [3, 4], "{letter}");
    for word in ["order.paid", "not in the mood", "examples/moody.rs", "order.shipped", "order.delivered"] {
        assert!(text.contains(word) && letter.to_string().contains(word), "{word} is not in {text}");
    }
}
