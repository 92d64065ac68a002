//! The log in another process: what `/history` of a docket on SQLite gives, as a client reads it over a real socket.

mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use actix_web::web::Data;
use actors::clock::{SystemClock, Timestamp};
use actors::commit::{Commit, CommitKey, StreamEnd};
use actors::event_store::{Appended, EventStore, Group, StoreError};
use actors::log::{Follow, From, Log, LogError};
use actors::nodes::{NodesInMemory, Process, Roll};
use actors::order::{OrderId, Version};
use actors::snapshots::{Snapshot, Snapshots};
use actors::supervisor::{Ledger, Node};
use actors::testing::conformance::{Adapter, Late, PATIENCE, Store};
use async_trait::async_trait;
use docket::config::Config;
use docket::history::{Client, RemoteLog};
use docket::http::{HistoryPorts, Limits, Listeners, Part, Readiness, Service};
use docket::sqlite;
use tokio::sync::oneshot;

use super::sqlite::Sqlite;

/// A log that is served to other processes.
struct Served {
    ops: SocketAddr,
    log: Arc<dyn Log>,
    /// Ends it, also when it is dropped.
    stop: oneshot::Sender<()>,
}

struct Ready;

impl Readiness for Ready {
    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }
}

impl Served {
    fn new(log: Arc<dyn Log>) -> Self {
        let served = Arc::clone(&log);
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let mut config = Config::load(None, []).expect("the defaults");
                config.http.bind.set_port(0);
                config.ops.bind.set_port(0);
                config.http.workers = 1;
                let listeners = Listeners::bind(&config).expect("two free ports");
                let history = HistoryPorts { log: served, nodes: Arc::new(NodesInMemory::default()) };
                let service = Data::new(service(&config, history));
                let server = docket::http::serve(&config, &listeners, service).expect("a server");
                tell.send(listeners.addresses().expect("addresses").1).expect("somebody waits");
                drop(stopped.await);
                drop(listeners);
                server.stop(Duration::from_secs(10)).await;
            });
        });
        Self { ops: told.recv().expect("an address"), log, stop }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.ops), "").expect("a client")
    }

    /// Ends as a process does that is told to. Nothing of it is left then.
    async fn end(self) {
        let Self { log, stop, .. } = self;
        drop(stop);
        let until = Instant::now() + PATIENCE;
        while Arc::strong_count(&log) > 1 {
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn service(config: &Config, history: HistoryPorts) -> Service {
    let process = Process {
        instance: "orders/1".to_owned(),
        name: "orders".to_owned(),
        http: "127.0.0.1:8080".to_owned(),
        ops: "127.0.0.1:8081".to_owned(),
        version: "0.1.0".to_owned(),
        roles: vec!["orders".to_owned()],
        active: Vec::new(),
        started_at: Timestamp::EPOCH,
        heartbeat_ms: 60_000,
    };
    Service {
        orders: None,
        history: Some(history),
        readiness: Arc::new(Ready),
        nodes: Roll::new(process),
        tree: Node::root("docket", Arc::new(SystemClock), Ledger::new("test"), 1),
        set_aside: None,
        relay: None,
        subscribers: Vec::new(),
        limits: Limits::of(config),
    }
}

/// SQLite, and its log from another process.
struct Remote {
    sqlite: Sqlite,
    served: Mutex<Option<Served>>,
}

/// Written here, read there.
struct Both {
    store: sqlite::Store,
    log: RemoteLog,
}

#[async_trait]
impl Adapter for Remote {
    async fn new() -> Self {
        Self { sqlite: Sqlite::new().await, served: Mutex::default() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        drop(self.sqlite.open().await);
        let store = self.sqlite.opened();
        let served = Served::new(Arc::new(store.clone()));
        let log = served.client().log();
        *self.served.lock().expect("no panic") = Some(served);
        Arc::new(Both { store, log })
    }

    async fn close(&self, store: Arc<dyn Store>) {
        let served = self.served.lock().expect("no panic").take();
        served.expect("it is open").end().await;
        self.sqlite.close(store).await;
    }

    async fn back_up(&self) {
        self.sqlite.back_up().await;
    }

    async fn restore(&self) {
        self.sqlite.restore().await;
    }

    /// As on SQLite.
    async fn begin_late(&self, _store: &Arc<dyn Store>, _commit: Arc<Commit>) -> Option<Box<dyn Late>> {
        None
    }
}

#[async_trait]
impl Log for Both {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        self.log.follow(from).await
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.log.scan(after, limit).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::read(&self.log, order, from, limit).await
    }
}

#[async_trait]
impl EventStore for Both {
    async fn append(&self, group: Group) -> Vec<Appended> {
        self.store.append(group).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(&self.store, order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        self.store.is_newest(end).await
    }

    fn sole_writer(&self) -> bool {
        self.store.sole_writer()
    }
}

#[async_trait]
impl Snapshots for Both {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        self.store.load(order).await
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.store.save(snapshot).await
    }
}

// What is written goes to SQLite; what is read of the log comes from the other side.
actors::conformance! { Remote:
    read::{beyond_the_end_and_of_nobody, scanned_from_any_key, scanned_by_any_number},
    follow::{from_now, from_any_position, by_several_at_once, behind_others_who_write, a_dropped_future_loses_nothing,
        far_behind},
    reopen::{positions_stay, another_log, a_restored_copy, nonsense},
}
