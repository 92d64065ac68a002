//! A process for each role: orders, mails, takings. Each has its own data and nobody else's; the subscribers know the order
//! service by its address alone. Together they do what one process does, whoever of them dies or is cut off.

use std::net::SocketAddr;

use reqwest::StatusCode;
use serde_json::Value;
use servers::{Proxy, RabbitVhost};

use crate::harness::callers::{assert_mailed, stored_events};
use crate::harness::{Docket, Folder, Store, TOTAL, an_order, eventually, on_every_store, takings};

on_every_store!(
    three_processes_do_what_one_does_whoever_of_them_dies,
    three_processes_and_a_broker_do_what_one_does_whoever_of_them_dies,
    who_is_cut_off_from_the_history_goes_on_where_it_was,
    a_process_without_orders_says_what_it_is_and_keeps_only_what_is_its_own,
    with_a_key_the_history_is_read_and_with_another_it_is_said_that_it_is_wrong,
);

const EXAMPLE: &str = "takings";

/// The address in `http://ADDRESS:PORT`.
fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// An order service alone, that comes back at the same address.
struct Orders {
    folder: Folder,
    docket: Docket,
}

impl Orders {
    async fn start(folder: Folder) -> Self {
        let docket = folder.start_only("orders").await;
        let folder = folder.set("DOCKET__OPS__BIND", address(&docket.ops));
        Self { folder, docket }
    }

    async fn kill_and_start(self) -> Self {
        let Self { folder, docket } = self;
        docket.kill();
        let docket = folder.start_only("orders").await;
        Self { folder, docket }
    }

    /// So many orders, each somewhere on its way.
    async fn trade(&self, count: usize, round: &str) {
        for n in 0..count {
            let id = self.docket.place(&an_order(&format!("{round}-{n}"))).expect(StatusCode::CREATED).await.id();
            if n % 2 == 0 {
                self.docket.pay(&id, TOTAL).expect(StatusCode::OK).await;
            }
            if n % 4 == 0 {
                self.docket.ship(&id).expect(StatusCode::OK).await;
            }
        }
    }
}

/// Data of one role, that reads the history there.
fn role(store: Store, history: &str) -> Folder {
    Folder::new(store).set("DOCKET__HISTORY__URL", history)
}

/// Everything has arrived, and each did its part of it once.
async fn assert_done(orders: &Orders, (mails, mailing): (&Folder, &Docket), (sums, counting): (&Folder, &Docket)) {
    let events = stored_events(&orders.folder).await;
    let count: usize = events.values().map(Vec::len).sum();
    let told = takings::told(&orders.docket, events.keys().cloned()).await;
    eventually("everything has come to both", async || {
        mails.recorded().await.len() == count && takings::stored(sums).await == told
    })
    .await;
    orders.folder.settled(&[mailing, counting]).await;
    assert_mailed(mails, &orders.folder).await;
    assert_eq!(takings::stored(sums).await, told);
}

async fn three_processes_do_what_one_does_whoever_of_them_dies(store: Store) {
    whoever_dies(store, |folder| folder).await;
}

async fn three_processes_and_a_broker_do_what_one_does_whoever_of_them_dies(store: Store) {
    let vhost = RabbitVhost::new();
    whoever_dies(store, |folder| folder.set("RABBITMQ_URL", vhost.uri())).await;
}

/// All three are set up in the same way.
async fn whoever_dies(store: Store, set_up: impl Fn(Folder) -> Folder) {
    let orders = Orders::start(set_up(Folder::new(store))).await;
    orders.trade(4, "before").await;
    let [mails, sums] = [0, 1].map(|_| set_up(role(store, &orders.docket.ops)));
    let mailing = mails.start_only("notification").await;
    let counting = sums.start_example_only(EXAMPLE, EXAMPLE).await;
    orders.trade(8, "all").await;
    assert_done(&orders, (&mails, &mailing), (&sums, &counting)).await;

    mailing.kill();
    orders.trade(8, "no mails").await;
    let mailing = mails.start_only("notification").await;
    counting.kill();
    orders.trade(8, "no takings").await;
    let counting = sums.start_example_only(EXAMPLE, EXAMPLE).await;
    let orders = orders.kill_and_start().await;
    orders.trade(8, "again").await;
    assert_done(&orders, (&mails, &mailing), (&sums, &counting)).await;

    // They wait for an order service that is away, and stop in good time all the same.
    let Orders { folder, docket } = orders;
    assert_eq!(docket.stop().await, Some(0));
    mailing.kill();
    let mailing = mails.start_only("notification").await;
    eventually("it has what it serves", async || mailing.is_ready().await).await;
    assert_eq!(counting.stop().await, Some(0));
    let counting = sums.start_example_only(EXAMPLE, EXAMPLE).await;
    let docket = folder.start_only("orders").await;
    let orders = Orders { folder, docket };
    orders.trade(4, "after").await;
    assert_done(&orders, (&mails, &mailing), (&sums, &counting)).await;
    for docket in [mailing, counting, orders.docket] {
        assert_eq!(docket.stop().await, Some(0));
    }
}

/// What a network does.
type Weather = fn(&Proxy);

async fn who_is_cut_off_from_the_history_goes_on_where_it_was(store: Store) {
    let orders = Orders::start(Folder::new(store)).await;
    let proxy = Proxy::raw_before(address(&orders.docket.ops).parse::<SocketAddr>().expect("an address"));
    let history = format!("http://{}", proxy.address());
    let (mails, sums) = (role(store, &history), role(store, &orders.docket.ops));
    let mailing = mails.start_only("notification").await;
    let counting = sums.start_example_only(EXAMPLE, EXAMPLE).await;
    orders.trade(4, "whole").await;
    assert_done(&orders, (&mails, &mailing), (&sums, &counting)).await;

    let weathers: [(&str, Weather); 3] =
        [("broken", Proxy::drop_connections), ("silent", Proxy::stall), ("forgotten", Proxy::forget_connections)];
    for (name, weather) in weathers {
        weather(&proxy);
        orders.trade(4, name).await;
        // The other one is not held up.
        let told = takings::told(&orders.docket, stored_events(&orders.folder).await.into_keys()).await;
        eventually("the other one has everything", async || takings::stored(&sums).await == told).await;
        proxy.pass();
        assert_done(&orders, (&mails, &mailing), (&sums, &counting)).await;
    }
    for docket in [mailing, counting, orders.docket] {
        assert_eq!(docket.stop().await, Some(0));
    }
}

/// The processes that the order service lists, each with what it runs and what is at work there.
async fn nodes(docket: &Docket) -> Vec<(Value, Value, bool)> {
    let tree = docket.ops("/api/tree").await;
    let nodes = tree["nodes"].as_array().expect("nodes").iter();
    nodes.map(|node| (node["roles"].clone(), node["active"].clone(), node["alive"] == true)).collect()
}

async fn a_process_without_orders_says_what_it_is_and_keeps_only_what_is_its_own(store: Store) {
    let alone = Folder::new(store);
    let refused = alone.command(&["--only", "notification"]).output().expect("the built docket");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("history.url"), "{said}");

    let orders = Orders::start(Folder::new(store)).await;
    assert!(orders.docket.subscribers().await.is_empty());
    let mails = role(store, &orders.docket.ops);
    let mailing = mails.start_only("notification").await;
    let here = mailing.place(&an_order("web-77")).expect(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(here.problem(), "not-here");
    assert!(here.header("retry-after").is_some());
    mailing.get("/healthz").expect(StatusCode::OK).await;
    eventually("it is ready", async || mailing.is_ready().await).await;

    let listed: [(Value, Value, bool); 2] = [
        (serde_json::json!(["notification"]), serde_json::json!(["notification"]), true),
        (serde_json::json!(["orders"]), serde_json::json!([]), true),
    ];
    for docket in [&orders.docket, &mailing] {
        eventually("both are listed", async || {
            let mut nodes = nodes(docket).await;
            nodes.sort_by_key(|(roles, ..)| roles.to_string());
            nodes == listed
        })
        .await;
    }
    orders.trade(2, "some").await;
    eventually("the mails are out", async || mails.mails().len() == 4).await;
    orders.folder.settled(&[&mailing]).await;
    assert_mailed(&mails, &orders.folder).await;
    match store {
        Store::Sqlite => assert!(!mails.data("orders.db").exists(), "it has no store of orders"),
        Store::Mongodb => {
            let collections = mails.database(None).await.list_collection_names().await.expect("their names");
            assert!(collections.is_empty(), "it made {collections:?} in a database of orders");
        }
    }
    assert_eq!(mailing.stop().await, Some(0));
    eventually("it has left the list", async || nodes(&orders.docket).await.len() == 1).await;
}

async fn with_a_key_the_history_is_read_and_with_another_it_is_said_that_it_is_wrong(store: Store) {
    let keys = Folder::new(store);
    let made = |name: &str| -> Value {
        let made = keys.command(&["key", "new", name, "--scope", "ops:read,orders:write", "--json"]).output();
        serde_json::from_slice(&made.expect("the built docket").stdout).expect("JSON")
    };
    let (right, other) = (made("mails"), made("stranger"));
    let key = |made: &Value| made["key"].as_str().expect("a key").to_owned();
    let entry = right["environment"].as_str().expect("an entry");
    let folder = Folder::new(store).set("DOCKET__AUTH__KEYS", entry);
    let orders = folder.start_only("orders").await;

    let mails = role(store, &orders.ops).set("DOCKET__HISTORY__KEY", &key(&right));
    let mailing = mails.start_only("notification").await;
    let bearer = format!("Bearer {}", key(&right));
    orders.place(&an_order("web-77")).header("Authorization", &bearer).expect(StatusCode::CREATED).await;
    eventually("the mail is out", async || mails.mails().len() == 1).await;
    folder.settled(&[&mailing]).await;
    assert_mailed(&mails, &folder).await;
    eventually("both are listed", async || nodes(&mailing).await.len() == 2).await;

    let check = |folder: &Folder| {
        let told = folder.command(&["check", "--only", "notification", "--json"]).output().expect("the built docket");
        let found: Vec<Value> = serde_json::from_slice(&told.stdout).expect("JSON");
        let history = found.into_iter().find(|found| found["what"] == "history.url").expect("it looks at the history");
        (history["ok"] == true, history["detail"].as_str().expect("words").to_owned())
    };
    let (ok, words) =
        check(&Folder::new(store).set("DOCKET__HISTORY__URL", &orders.ops).set("DOCKET__HISTORY__KEY", &key(&right)));
    assert!(ok, "{words}");
    let stranger = role(store, &orders.ops).set("DOCKET__HISTORY__KEY", &key(&other));
    let (ok, words) = check(&stranger);
    assert!(!ok && words.contains("history.key") && !words.contains(&key(&other)), "{words}");

    // It is not let in, and says so; nobody is told the key.
    let outside = stranger.start_only("notification").await;
    eventually("it says why it waits", async || {
        let subscribers = outside.subscribers().await;
        subscribers[0]["trouble"].as_str().is_some_and(|trouble| trouble.contains("history.key"))
    })
    .await;
    let (code, said) = outside.stop_and_tell().await;
    assert_eq!(code, Some(0));
    assert!(!said.contains(&key(&other)), "{said}");
}
