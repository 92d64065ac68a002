//! The commands as an operator types them, against a docket that runs: what they print, and how they end.

use std::process::Stdio;

use reqwest::StatusCode;

use crate::harness::command::{Output, ask};
use crate::harness::{Folder, Store, an_order, eventually, on_every_store};

on_every_store!(
    a_table_fits_into_80_columns_and_begins_with_what_is_asked_first,
    the_address_is_the_configured_one_when_nobody_says_another,
    whoever_looks_after_a_container_hears_whether_it_answers_and_whether_it_can_work,
    a_wrong_address_is_told_apart_from_a_docket_that_is_not_there,
    whoever_reads_only_the_beginning_breaks_nothing,
    an_import_that_was_cut_off_is_run_again_and_every_bad_line_has_its_number,
    a_wrong_part_or_a_section_of_nobody_is_named_and_ends_it,
    the_line_of_a_request_says_which_order_and_who,
);

async fn a_table_fits_into_80_columns_and_begins_with_what_is_asked_first(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let id = docket.place(&an_order("web-77")).expect(StatusCode::CREATED).await.id();

    let tree = ask(&folder, &docket, &["tree"]);
    assert_eq!(tree.code, Some(0), "{}", tree.err);
    for line in tree.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let order = ask(&folder, &docket, &["order", &id]);
    let names: Vec<_> = order.out.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
    assert_eq!(names[..4], ["id", "status", "version", "customer_id"], "{}", order.out);
    assert!(ask(&folder, &docket, &["tree", "--json"]).out.starts_with('{'));
}

async fn the_address_is_the_configured_one_when_nobody_says_another(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let ops = docket.ops.trim_start_matches("http://");

    let right = Output::of(folder.command(&["tree"]).env("DOCKET__OPS__BIND", ops));
    assert_eq!(right.code, Some(0), "{}", right.err);
    let open = Output::of(&mut folder.command(&["tree"]));
    assert_eq!(open.code, Some(2), "{}", open.err);
    assert!(open.err.contains("--url"), "{}", open.err);
}

async fn whoever_looks_after_a_container_hears_whether_it_answers_and_whether_it_can_work(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let healthy = ask(&folder, &docket, &["healthy"]);
    assert_eq!((healthy.out.as_str(), healthy.code), ("ok\n", Some(0)), "{}", healthy.err);
    eventually("it is ready", async || ask(&folder, &docket, &["healthy", "--ready"]).code == Some(0)).await;
    let ready = ask(&folder, &docket, &["healthy", "--ready", "--json"]);
    assert!(ready.out.contains("\"ready\": true"), "{}", ready.out);

    docket.freeze();
    let frozen = ask(&folder, &docket, &["healthy"]);
    docket.thaw();
    assert_eq!(frozen.code, Some(3), "{}", frozen.err);
    let gone = Output::of(folder.command(&["healthy"]).args(["--url", "http://127.0.0.1:1"]));
    assert_eq!(gone.code, Some(3), "{}", gone.err);
}

async fn a_wrong_address_is_told_apart_from_a_docket_that_is_not_there(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;

    let callers = Output::of(folder.command(&["tree"]).args(["--url", &docket.http]));
    assert_eq!(callers.code, Some(1));
    assert!(callers.err.contains("ops.bind"), "{}", callers.err);
    for wrong in ["127.0.0.1:8081", "localhost:8081", "https://127.0.0.1:8081", "nonsense"] {
        let told = Output::of(folder.command(&["tree"]).args(["--url", wrong]));
        assert_eq!(told.code, Some(2), "{wrong}: {}", told.err);
        assert!(told.err.contains("http://127.0.0.1:8081"), "{wrong}: {}", told.err);
    }
    let nobody = Output::of(folder.command(&["tree"]).args(["--url", "http://127.0.0.1:1"]));
    assert_eq!(nobody.code, Some(3), "{}", nobody.err);
}

async fn whoever_reads_only_the_beginning_breaks_nothing(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let mut command = folder.command(&["tree", "--json"]);
    let mut tree =
        command.args(["--url", &docket.ops]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it");
    drop(tree.stdout.take());
    let output = tree.wait_with_output().expect("it");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

async fn an_import_that_was_cut_off_is_run_again_and_every_bad_line_has_its_number(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let file = folder.data("old.jsonl");
    let name = file.display().to_string();
    let mut lines: Vec<String> =
        (1..=3_000).map(|n| format!(r#"{{"orderId":"o-{n}","userId":"u-1","total":5.00}}"#)).collect();
    // More than one request takes, so that its number is not that of its request.
    lines[2_499] = r#"{"orderId":"o-2500","userId":"u-1"}"#.to_owned();

    std::fs::write(&file, lines[..1_000].join("\n")).expect("written");
    let begun = ask(&folder, &docket, &["import", &name]);
    assert_eq!(begun.code, Some(0), "{}", begun.err);
    std::fs::write(&file, lines.join("\n")).expect("written");
    let whole = ask(&folder, &docket, &["import", &name]);
    assert_eq!(whole.out.trim(), "1999 imported, 1000 there already, 1 bad and skipped, 0 not done");
    assert_eq!(whole.code, Some(1), "{}", whole.err);
    assert!(whole.err.contains("line 2500: "), "{}", whole.err);
    let again = ask(&folder, &docket, &["import", &name, "--json"]);
    let again: serde_json::Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!((&again["imported"], &again["already_there"]), (&0.into(), &2_999.into()), "{again}");
}

async fn a_wrong_part_or_a_section_of_nobody_is_named_and_ends_it(store: Store) {
    let folder = Folder::new(store);
    let part = Output::of(&mut folder.command(&["--only", "nope"]));
    assert_eq!(part.code, Some(2), "{}", part.err);
    assert!(part.err.contains("--only nope"), "{}", part.err);
    let misspelt = folder.set("DOCKET__SUBSCRIBERS__NOTIFICATON__ATTEMPTS_MAX", "3");
    let Err(said) = misspelt.try_start().await else { panic!("it serves") };
    assert!(said.contains("subscribers.notificaton"), "{said}");
}

async fn the_line_of_a_request_says_which_order_and_who(store: Store) {
    let folder = Folder::new(store).set("DOCKET__LOG__LEVEL", "debug");
    let docket = folder.start().await;
    let place = docket.place(&an_order("web-77")).header("X-Correlation-Id", "corr-1");
    let id = place.expect(StatusCode::CREATED).await.id();
    let (_, said) = docket.stop_and_tell().await;
    let line = said.lines().find(|line| line.contains("corr-1")).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["order.id"], &line["authid"]), (&id.into(), &"anonymous".into()), "{line}");
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_found_before_the_start() {
    let folder = Folder::new(Store::Sqlite);
    folder.start().await.stop().await;
    let check = Output::of(&mut folder.command(&["check"]));
    assert_eq!(check.code, Some(0), "{}", check.out);
    assert!(check.out.contains("ok     store"), "{}", check.out);

    std::fs::write(folder.data("orders.db"), "no database").expect("written");
    let check = Output::of(&mut folder.command(&["check"]));
    assert_eq!(check.code, Some(1), "{}", check.out);
    assert!(check.out.contains("WRONG  store"), "{}", check.out);
}
