//! Keys, with the real program: who gets in, under whose name things happen, and that neither a key nor its hash is
//! written anywhere.

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::command::Output;
use crate::harness::{Docket, Folder, Request, Store, an_order, eventually};

/// A key as `docket key new` makes it.
fn made(folder: &Folder, name: &str, scopes: &str) -> Value {
    let told = Output::of(&mut folder.command(&["key", "new", name, "--scope", scopes, "--json"]));
    assert_eq!(told.code, Some(0), "{}", told.err);
    serde_json::from_str(&told.out).expect("JSON")
}

fn text<'a>(made: &'a Value, member: &str) -> &'a str {
    made[member].as_str().expect("a text")
}

fn with(request: Request, made: &Value) -> Request {
    request.header("Authorization", &format!("Bearer {}", text(made, "key")))
}

/// A folder whose dockets know both.
fn known(folder: Folder, one: &Value, other: &Value) -> Folder {
    folder.set("DOCKET__AUTH__KEYS", &format!("{}\n{}", text(one, "environment"), text(other, "environment")))
}

#[tokio::test]
async fn each_does_what_its_key_allows_and_nothing_secret_is_written() {
    let folder = Folder::new(Store::Sqlite).set("DOCKET__LOG__LEVEL", "trace");
    let (shop, watcher) = (made(&folder, "shop", "orders:write,orders:read"), made(&folder, "watcher", "ops:read"));
    let folder = known(folder, &shop, &watcher);
    let docket = folder.start().await;

    eventually("it is ready", || docket.is_ready()).await;
    assert_eq!(docket.place(&an_order("1")).expect(StatusCode::UNAUTHORIZED).await.problem(), "unauthorized");
    let refused = with(docket.place(&an_order("1")), &watcher).expect(StatusCode::FORBIDDEN).await;
    assert_eq!(refused.problem(), "forbidden");
    let id = with(docket.place(&an_order("1")), &shop).expect(StatusCode::CREATED).await.id();
    let trail = with(docket.get(&format!("/orders/{id}/events")), &shop).expect(StatusCode::OK).await;
    assert_eq!(trail.body["events"][0]["authid"], "shop", "{}", trail.body);

    let (keys, hashes) = commands_need_a_key(&folder, &docket, &shop, &watcher);
    let check = Output::of(&mut folder.command(&["check"]));
    assert!(check.out.contains("shop (orders:read, orders:write); watcher (ops:read)"), "{}", check.out);
    let (_, said) = docket.stop_and_tell().await;
    assert!(said.contains("\"authid\":\"shop\"") && said.contains("\"authid\":\"watcher\""), "{said}");
    let stored: Vec<u8> =
        ["orders.db", "orders.db-wal"].iter().flat_map(|it| std::fs::read(folder.data(it))).flatten().collect();
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains("shop"), "the events are not where they were looked for");
    for secret in keys.into_iter().chain(hashes) {
        let digits = secret.rsplit(['_', ':']).next().expect("digits");
        for place in [&said, &check.out, &check.err, stored.as_ref()] {
            assert!(!place.contains(digits), "a secret is written");
        }
    }
}

/// Gives the keys and their hashes.
fn commands_need_a_key(folder: &Folder, docket: &Docket, shop: &Value, watcher: &Value) -> ([String; 2], [String; 2]) {
    let tree = |key: Option<&str>| {
        let mut command = folder.command(&["tree", "--json", "--url", &docket.ops]);
        Output::of(key.into_iter().fold(&mut command, |command, key| command.env("DOCKET_KEY", key)))
    };
    let none = tree(None);
    assert_eq!((none.code, none.err.contains("DOCKET_KEY")), (Some(4), true), "{}", none.err);
    let lacking = tree(Some(text(shop, "key")));
    assert_eq!((lacking.code, lacking.err.contains("ops:read")), (Some(4), true), "{}", lacking.err);
    let unknown = tree(Some(text(&made(folder, "nobody", "ops:read"), "key")));
    assert_eq!((unknown.code, unknown.err.contains("does not know")), (Some(4), true), "{}", unknown.err);
    let no_key = tree(Some("s3cret"));
    assert_eq!((no_key.code, no_key.err.contains("s3cret")), (Some(2), false), "{}", no_key.err);
    let right = tree(Some(text(watcher, "key")));
    assert_eq!(right.code, Some(0), "{}", right.err);

    let dead_letters = |words: &[&str], made: Option<&Value>| {
        let mut command = folder.command(&["dead-letters"]);
        command.args(words).args(["--url", &docket.ops]);
        Output::of(made.into_iter().fold(&mut command, |command, made| command.env("DOCKET_KEY", text(made, "key"))))
    };
    assert_eq!(dead_letters(&["list"], None).code, Some(4));
    assert_eq!(dead_letters(&["list"], Some(watcher)).code, Some(0));
    let letter = ["notification", "0199f3a0-7c1e-7000-8000-000000000000.3"];
    for words in [&["retry"][..], &["discard", "--reason", "none"]] {
        let said = dead_letters(&[words, &letter].concat(), Some(watcher));
        assert_eq!((said.code, said.err.contains("ops:write")), (Some(4), true), "{words:?}: {}", said.err);
    }

    let file = folder.data("watcher.key");
    std::fs::write(&file, format!("{}\n", text(watcher, "key"))).expect("written");
    let file = file.display().to_string();
    let from_file = Output::of(&mut folder.command(&["tree", "--url", &docket.ops, "--key-file", &file]));
    assert_eq!(from_file.code, Some(0), "{}", from_file.err);
    let of = |member: &str| [shop, watcher].map(|made| text(made, member).to_owned());
    (of("key"), of("hash"))
}

#[tokio::test]
async fn a_wrong_key_stops_the_start_with_its_name_and_a_wrong_command_makes_none() {
    let folder = Folder::new(Store::Sqlite);
    let hash = made(&folder, "shop", "ops:read")["hash"].as_str().expect("a hash").to_owned();
    for (lines, words) in [
        (format!("shop {hash} orders:all"), ["key shop", "orders:all"]),
        ("shop sha256:12 ops:read".to_owned(), ["key shop", "64 hexadecimal"]),
        (format!("shop {hash} ops:read, shop {hash} ops:write"), ["key shop", "two of that name"]),
    ] {
        let check = Output::of(folder.command(&["check"]).env("DOCKET__AUTH__KEYS", &lines));
        assert_eq!(check.code, Some(1), "{}", check.out);
        let started = Output::of(folder.command(&[]).env("DOCKET__AUTH__KEYS", &lines));
        assert_eq!(started.code, Some(2), "{}", started.err);
        for word in ["auth.keys", words[0], words[1]] {
            assert!(started.err.contains(word) && check.out.contains(word), "{word}: {}", started.err);
        }
        assert!(!started.err.contains(&hash[8..]) && !check.out.contains(&hash[8..]), "{}", started.err);
    }
    let [no_scope, unknown, bad_name] =
        [&["shop"][..], &["shop", "--scope", "orders:all"], &["anonymous", "--scope", "ops:read"]]
            .map(|arguments| Output::of(folder.command(&["key", "new"]).args(arguments)));
    for refused in [no_scope, unknown, bad_name] {
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
    }
}
