//! The one place that wires adapters to actors to HTTP. Everything is a child of one tree, started in the order in which
//! each needs the one before, and stopped in reverse: intake first, the store last.
//!
//! A process has parts, which know nothing of each other: the orders (`orders.rs`) and the subscribers
//! (`subscribers.rs`). Which store there is only `storage.rs` and the two beside it know.

mod bridge;
mod children;
mod embedded;
mod error;
mod identity;
mod mails;
mod mongodb;
mod only;
mod orders;
mod readiness;
mod source;
mod storage;
mod subscribers;
mod threads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use actors::clock::{Clock, SystemClock};
use actors::nodes::{Heartbeat, Process, Roll};
use actors::subscriber::Subscriber as _;
use actors::subscriber::notification::Notification;
use actors::subscriber::registry::{Parts, Registered};
use actors::supervisor::policy::{Backoff, Intensity};
use actors::supervisor::{End, Ledger, Node, Policy, Root, Strategy, Supervisor};

use crate::config::{Config, millis};
use crate::http::{self, HistoryPorts, Listeners, OrderDoor, Service};
use crate::sqlite::DataDirectory;
use crate::telemetry::StartUp;

use bridge::BridgePart;
use children::{http_child, ledger_child, nodes_child};
use embedded::Embedded;
pub use error::StartError;
use identity::Identity;
pub(crate) use mails::by_smtp;
use mongodb::Mongodb;
pub use only::Only;
use orders::OrderPart;
use readiness::ReadyParts;
use source::Source;
use storage::{OrderStore, Storage};
use subscribers::{Brings, SubscriberPart};
use threads::Threads;

/// A docket that runs.
pub struct System {
    /// Where callers are served, with the real port.
    pub http: SocketAddr,
    /// Where operators are served, with the real port.
    pub ops: SocketAddr,
    root: Root,
    node: Node,
    stores: Stores,
    process: Process,
    /// Ended when this is dropped.
    _threads: Vec<Threads>,
}

/// What is open of a process's stores.
struct Stores {
    storage: Arc<dyn Storage>,
    /// The order service's, where orders run.
    orders: Option<Arc<dyn OrderStore>>,
}

impl System {
    /// Opens the stores, starts every actor and serves. To be called on an actix system; what is configured as 0 is what
    /// the machine gives. `subscribers` makes those that there are ([`actors::subscriber::registry::all`]).
    ///
    /// A MongoDB that is away is waited for; dropping the future ends the wait. An order service in another process is
    /// not: its subscribers wait for it while the rest is there.
    ///
    /// # Errors
    /// Whatever keeps it from serving. Nothing is left running then.
    pub async fn start(
        config: &Config,
        only: &Only,
        subscribers: impl FnOnce(&Parts) -> Vec<Registered>,
    ) -> Result<Self, StartError> {
        // An address that is taken is said at once, but nobody is let in before there is somebody to serve them.
        drop(Listeners::bind(config)?);
        let identity = Identity::of(&config.node);
        let directory = folder(config)?;
        let mailer = mails::mailer(config, directory.as_ref())?;
        let registered = only.select(config, subscribers(&Parts { mailer }))?;
        let elsewhere = if only.orders() { None } else { Some(Source::remote(&config.history)?) };
        let storage: Arc<dyn Storage> = match &directory {
            Some(directory) => Arc::new(Embedded::new(directory)),
            None => Arc::new(Mongodb::reach(&config.mongodb, &identity.instance).await?),
        };
        let (orders, source) = match elsewhere {
            Some(source) => (None, source),
            None => {
                let orders = storage.orders().await?;
                let source = Source::own(&*orders);
                (Some(orders), source)
            }
        };
        Self::start_on(config, Stores { storage, orders }, source, identity, registered).await
    }

    async fn start_on(
        config: &Config,
        stores: Stores,
        source: Source,
        identity: Identity,
        registered: Vec<Registered>,
    ) -> Result<Self, StartError> {
        let listeners = Listeners::bind(config)?;
        let (http, ops) = listeners.addresses()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let process = identity.process(config, (http, ops), stores.orders.is_some(), &registered, clock.now());
        let Stores { storage, orders } = &stores;
        let ledger_store = storage.ledger(process.roles.first().map_or(only::ORDERS, String::as_str));
        let ledger = Ledger::new(&process.name);
        if let Err(error) = ledger.load(&ledger_store).await {
            tracing::warn!(%error, "the ledger of earlier runs cannot be read");
        }
        let node = Node::root("docket", Arc::clone(&clock), ledger.clone(), u64::from(std::process::id()));

        let broker = bridge::broker(config, &process.name, &registered);
        let brings = if broker.is_some() { Brings::Broker } else { Brings::Log };
        let subscribers = SubscriberPart::open(config, registered, &**storage, &source, brings).await?;
        let bridge =
            broker.map(|broker| BridgePart::new(config, broker, orders.as_deref(), &clock, &subscribers.handles));
        let orders = orders.as_deref().map(|store| OrderPart::new(config, store, clock));

        let roll = Roll::new(process.clone());
        let active = subscribers.active();
        let heartbeat = Heartbeat::new(Arc::clone(&source.nodes), process.clone(), active, roll.clone());
        let service = Data::new(Service {
            orders: orders.as_ref().map(|part| Arc::clone(&part.door) as Arc<dyn OrderDoor>),
            history: orders.as_ref().map(|_| HistoryPorts { log: source.log, nodes: source.nodes }),
            subscribers: subscribers.handles,
            set_aside: bridge.as_ref().map(|part| Arc::clone(&part.set_aside)),
            relay: bridge.as_ref().and_then(|part| part.relay.clone()),
            readiness: Arc::new(ReadyParts {
                node: node.clone(),
                health: orders.as_ref().map(|part| part.health.clone()),
                storage: Arc::clone(storage),
            }),
            tree: node.clone(),
            nodes: roll,
            limits: http::Limits::of(config),
        });
        let mut threads = vec![subscribers.threads];
        let mut root = Supervisor::new(Strategy::OneForOne, policy(config)).child(ledger_child(ledger, ledger_store));
        if let Some(part) = orders {
            root = part.children.into_iter().fold(root, Supervisor::child);
            threads.push(part.threads);
        }
        // Stopped after the subscribers: their consumers acknowledge what they finish.
        if let Some(part) = bridge {
            root = root.child(part.child);
            threads.push(part.threads);
        }
        let root = root
            .child(subscribers.child)
            .child(http_child(config, listeners, service))
            .child(nodes_child(heartbeat))
            .start(&node);
        Ok(Self { http, ops, root, node, stores, process, _threads: threads })
    }

    /// What it says about itself at the start.
    pub fn start_up(&self, config: &Config) -> StartUp {
        let subscribers = self.process.roles.iter().filter(|role| *role != only::ORDERS);
        let sends_mails = self.process.roles.iter().any(|role| role == Notification::NAME);
        StartUp {
            node: self.process.name.clone(),
            store: self.stores.storage.said(self.stores.orders.is_some()),
            broker: bridge::said(config),
            subscribers: subscribers.cloned().collect(),
            mails: sends_mails.then(|| mails::said(config)),
            http: self.http,
            ops: self.ops,
            open: config.auth.open,
        }
    }

    /// The tree of supervisors.
    pub fn tree(&self) -> &Node {
        &self.node
    }

    /// Runs until something essential has failed for good, or until `stop` resolves and everything has stopped: in
    /// order, each part within its deadline. `at_once` cuts the stopping short.
    pub async fn run_until(self, stop: impl Future<Output = ()>, at_once: impl Future<Output = ()>) -> End {
        let Self { mut root, stores, .. } = self;
        let end = tokio::select! {
            end = &mut root => end,
            () = stop => {
                root.handle().end();
                tokio::select! { end = &mut root => end, () = at_once => End::Asked }
            }
        };
        drop(tokio::time::timeout(CLOSE_WITHIN, stores.close()).await);
        end
    }
}

impl Stores {
    async fn close(&self) {
        let orders = async {
            if let Some(orders) = &self.orders {
                orders.close().await;
            }
        };
        tokio::join!(self.storage.close(), orders);
    }
}

/// The folder with its lock, which only the embedded store needs.
fn folder(config: &Config) -> Result<Option<DataDirectory>, StartError> {
    let embedded = config.mongodb.uri.is_empty();
    Ok(embedded.then(|| DataDirectory::lock(&config.data.directory)).transpose()?)
}

const CLOSE_WITHIN: Duration = Duration::from_secs(2);

fn policy(config: &Config) -> Policy {
    let supervisor = &config.supervisor;
    let default = Policy::default();
    Policy {
        intensity: Intensity { restarts_max: supervisor.restarts_max, within: millis(supervisor.window_ms) },
        backoff: Backoff {
            first: millis(supervisor.backoff_first_ms),
            factor: supervisor.backoff_factor,
            max: millis(supervisor.backoff_max_ms),
            reset_after: millis(supervisor.backoff_reset_ms),
            ..default.backoff
        },
        quarantine: Backoff {
            first: millis(supervisor.quarantine_first_ms),
            max: millis(supervisor.quarantine_max_ms),
            ..default.quarantine
        },
    }
}

#[cfg(test)]
mod tests {
    use super::embedded::EmbeddedOrders;
    use super::*;

    /// A docket in `folder`, on any free ports, that bears two restarts of what nothing works without.
    fn config(folder: &std::path::Path) -> Config {
        let environment = [
            ("DOCKET__HTTP__BIND", "127.0.0.1:0".to_owned()),
            ("DOCKET__OPS__BIND", "127.0.0.1:0".to_owned()),
            ("DOCKET__DATA__DIRECTORY", folder.display().to_string()),
            ("DOCKET__SUPERVISOR__RESTARTS_MAX", "2".to_owned()),
            ("DOCKET__SUPERVISOR__BACKOFF_FIRST_MS", "1".to_owned()),
        ];
        let environment = environment.into_iter().map(|(key, value)| (key.to_owned(), value));
        Config::load(None, environment).expect("a configuration")
    }

    #[test]
    fn what_nothing_works_without_ends_the_process_with_its_reason_when_it_keeps_failing() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let end = actix_rt::System::new().block_on(async {
            let directory = DataDirectory::lock(folder.path()).expect("a folder");
            let orders = EmbeddedOrders::open(&directory).expect("a store");
            let store = orders.store().clone();
            let source = Source::own(&orders);
            let stores = Stores { storage: Arc::new(Embedded::new(&directory)), orders: Some(Arc::new(orders)) };
            let identity = Identity::of(&config.node);
            let system = System::start_on(&config, stores, source, identity, Vec::new()).await.expect("a docket");
            // One that dies before anybody watches over it is only started again: that is no failure yet.
            let dying = async {
                loop {
                    store.panic_writer().await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let running = system.run_until(std::future::pending(), std::future::pending());
            let ended = async {
                tokio::select! { end = running => end, never = dying => never }
            };
            tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends by itself")
        });
        assert!(matches!(end, End::Failed(_)));
        assert_eq!(end.exit_code(), 70);
        let reason = end.to_string();
        assert!(reason.contains("docket/store failed for good") && reason.contains("told to"), "{reason}");
    }
}
