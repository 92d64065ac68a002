//! The one place that wires adapters to actors to HTTP. Everything is a child of one tree, started in the order in which
//! each needs the one before, and stopped in reverse: intake first, the store last.
//!
//! Which store there is only `storage.rs` and the two beside it know.

mod embedded;
mod identity;
mod mongodb;
mod only;
mod storage;
mod subscribers;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_rt::{Arbiter, ArbiterHandle};
use actix_web::web::Data;
use actors::clock::{Clock, SystemClock};
use actors::event_store::EventStore;
use actors::inbox::InboxError;
use actors::journal::actor::JournalActor;
use actors::journal::{self, Health};
use actors::nodes::{Heartbeat, Process, Roll};
use actors::order::Orders;
use actors::order::directory::{self, Layout, Ports, Shard};
use actors::order::stream::Rules;
use actors::subscriber::registry::{Parts, Registered};
use actors::supervisor::child::Limits;
use actors::supervisor::policy::{Backoff, Intensity};
use actors::supervisor::tree::Status;
use actors::supervisor::{Child, End, Failure, Handle, Ledger, LedgerStore, Node, Policy, Root, Strategy, Supervisor};
use futures_util::FutureExt;
use tokio::sync::watch;

use crate::config::{Config, millis};
use crate::http::{self, Listeners, Part, Readiness, Service};
use crate::mail::{MailFolder, MailFolderError};
use crate::sqlite::{DataDirectory, DirectoryError, OpenError};
use crate::telemetry::StartUp;

use embedded::Embedded;
use identity::Identity;
use mongodb::Mongodb;
pub use only::Only;
use storage::Storage;
use subscribers::Subscribers;

/// Why a docket does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used, or another docket uses it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The deployment at `mongodb.uri` would never do.
    #[error("{0}")]
    Mongodb(String),
    /// A subscriber's store cannot be opened.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// Mails cannot be written.
    #[error(transparent)]
    Mail(#[from] MailFolderError),
    /// There is no such part.
    #[error("--only {name}: there is no such part; there are {known}")]
    UnknownPart {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The configuration has a section for a subscriber that does not exist.
    #[error("subscribers.{name}: there is no such subscriber; there are {known}")]
    UnknownSubscriber {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// Without a broker, subscribers follow the log in a process of the order service.
    #[error("--only without orders: this version cannot run subscribers apart from the orders; name orders as well")]
    WithoutOrders,
    /// An address cannot be bound.
    #[error(transparent)]
    Address(#[from] io::Error),
}

impl StartError {
    /// Whether another command line would help, not another machine.
    pub fn is_wrong_command(&self) -> bool {
        matches!(self, Self::UnknownPart { .. } | Self::UnknownSubscriber { .. } | Self::WithoutOrders)
    }
}

/// A docket that runs.
pub struct System {
    /// Where callers are served, with the real port.
    pub http: SocketAddr,
    /// Where operators are served, with the real port.
    pub ops: SocketAddr,
    root: Root,
    node: Node,
    storage: Arc<dyn Storage>,
    process: Process,
    /// Ended when this is dropped.
    _arbiters: Arbiters,
}

/// The threads of a docket: orders and subscribers never share one, and the journal has its own, so that neither a hot
/// order nor a slow subscriber holds up a write.
struct Arbiters {
    journal: Arbiter,
    shards: Vec<Arbiter>,
    subscribers: Arbiter,
}

impl Arbiters {
    fn new(config: &Config) -> Self {
        let shards = match config.orders.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            shards => shards as usize,
        };
        let shards = (0..shards).map(|_| Arbiter::new()).collect();
        Self { journal: Arbiter::new(), shards, subscribers: Arbiter::new() }
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        for arbiter in self.shards.iter().chain([&self.journal, &self.subscribers]) {
            arbiter.stop();
        }
    }
}

impl System {
    /// Opens the stores, starts every actor and serves. To be called on an actix system; what is configured as 0 is what
    /// the machine gives. `subscribers` makes those that there are ([`actors::subscriber::registry::all`]).
    ///
    /// A MongoDB that is away is waited for; dropping the future ends the wait.
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
        let (directory, mailer) = folders(config)?;
        let registered = only.select(config, subscribers(&Parts { mailer: Arc::new(mailer) }))?;
        let storage: Arc<dyn Storage> = match &directory {
            Some(directory) => Arc::new(Embedded::open(directory)?),
            None => Arc::new(Mongodb::open(&config.mongodb, &identity.instance).await?),
        };
        Self::start_on(config, storage, identity, registered).await
    }

    async fn start_on(
        config: &Config,
        storage: Arc<dyn Storage>,
        identity: Identity,
        registered: Vec<Registered>,
    ) -> Result<Self, StartError> {
        let listeners = Listeners::bind(config)?;
        let (http, ops) = listeners.addresses()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let process = identity.process(config, (http, ops), &registered, clock.now());
        let ports = storage.ports();
        let ledger = Ledger::new(&process.name);
        if let Err(error) = ledger.load(&ports.ledger).await {
            tracing::warn!(%error, "the ledger of earlier runs cannot be read");
        }
        let node = Node::root("docket", Arc::clone(&clock), ledger.clone(), u64::from(std::process::id()));
        let arbiters = Arbiters::new(config);

        let (journal, journal_address, health) = journal_child(config, &ports.events, arbiters.journal.handle());
        let order_ports = Ports {
            store: Arc::clone(&ports.events),
            snapshots: Arc::clone(&ports.snapshots),
            journal: journal_address.recipient(),
            clock,
            rules: Rules::ORDER,
        };
        let subscribers = Subscribers::open(config, registered, &*storage, &arbiters.subscribers).await?;
        let (shards, orders) = orders_child(config, order_ports, &arbiters.shards);
        let readiness = ReadyParts { node: node.clone(), health, storage: storage.clone() };
        let roll = Roll::new(process.clone());
        let heartbeat = Heartbeat::new(storage.nodes(&process), process.clone(), roll.clone());
        let service = Data::new(Service {
            orders: Some(Arc::new(orders)),
            subscribers: subscribers.handles,
            readiness: Arc::new(readiness),
            tree: node.clone(),
            nodes: roll,
            limits: http::Limits::of(config),
        });
        let root = Supervisor::new(Strategy::OneForOne, policy(config))
            .child(ledger_child(ledger, ports.ledger))
            .child(storage.child())
            .child(journal)
            .child(shards)
            .child(subscribers.child)
            .child(http_child(config, listeners, service))
            .child(nodes_child(heartbeat))
            .start(&node);
        Ok(Self { http, ops, root, node, storage, process, _arbiters: arbiters })
    }

    /// What it says about itself at the start.
    pub fn start_up(&self, config: &Config) -> StartUp {
        let subscribers = self.process.roles.iter().filter(|role| *role != only::ORDERS);
        StartUp {
            node: self.process.name.clone(),
            store: self.storage.said(),
            broker: "none: subscribers follow the log".to_owned(),
            subscribers: subscribers.cloned().collect(),
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
        let Self { mut root, storage, .. } = self;
        let end = tokio::select! {
            end = &mut root => end,
            () = stop => {
                root.handle().end();
                tokio::select! { end = &mut root => end, () = at_once => End::Asked }
            }
        };
        drop(tokio::time::timeout(CLOSE_WITHIN, storage.close()).await);
        end
    }
}

/// The folder with its lock, which only the embedded store needs, and the mails in it, which several processes may write.
fn folders(config: &Config) -> Result<(Option<DataDirectory>, MailFolder), StartError> {
    let (path, from) = (&config.data.directory, &config.notification.from);
    if !config.mongodb.uri.is_empty() {
        return Ok((None, MailFolder::shared(path, from)?));
    }
    let directory = DataDirectory::lock(path)?;
    let mailer = MailFolder::open(&directory, from)?;
    Ok((Some(directory), mailer))
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

fn journal_child(
    config: &Config,
    store: &Arc<dyn EventStore>,
    arbiter: ArbiterHandle,
) -> (Child, Addr<JournalActor>, watch::Receiver<Health>) {
    let limits = journal::Limits {
        group_commits_max: config.journal.group_commits_max as usize,
        group_bytes_max: usize::try_from(config.journal.group_bytes_max).unwrap_or(usize::MAX),
        waiting_max: config.journal.waiting_commits_max as usize,
        wait_max: millis(config.journal.wait_max_ms),
        write_max: millis(config.journal.write_max_ms),
        away_first: millis(config.journal.retry_first_ms),
        away_max: millis(config.journal.retry_max_ms),
    };
    let (journal, health) = JournalActor::new(Arc::clone(store), limits);
    let (child, address) = Child::actor("journal", "journal", move |ctx, _, node| journal.shown_at(node).on(ctx));
    (child.on(arbiter), address, health)
}

/// The shards, one an arbiter, and the door to them.
fn orders_child(config: &Config, ports: Ports, arbiters: &[Arbiter]) -> (Child, Orders) {
    let limits = directory::Limits {
        passivate_after: millis(config.orders.passivate_after_ms),
        live_max: config.orders.live_max as usize,
        waiting_max: config.orders.waiting_max as usize,
        waiting_per_order_max: config.orders.waiting_per_order_max as usize,
        conflicts_max: config.orders.conflicts_max,
        snapshot_every_events: config.orders.snapshot_every_events,
        loading_max: config.orders.loading_max as usize,
        stuck_after: millis(config.supervisor.stuck_after_ms),
        answer_within: millis(config.http.answer_timeout_ms),
    };
    let layout = Layout::new(ports, limits, policy(config), arbiters.len());
    let mut shards = Supervisor::new(Strategy::OneForOne, policy(config));
    let mut addresses: Vec<Addr<Shard>> = Vec::new();
    for (number, arbiter) in arbiters.iter().enumerate() {
        let layout = layout.clone();
        let (shard, address) = Child::actor(&number.to_string(), "shard", move |ctx, _, node| layout.shard(ctx, node));
        shards = shards.child(shard.on(arbiter.handle()));
        addresses.push(address);
    }
    (Child::supervisor("orders", shards), layout.door(addresses))
}

/// Serves until it is asked to stop; then takes no more connections and lets what is under way finish.
fn http_child(config: &Config, listeners: Listeners, service: Data<Service>) -> Child {
    let deadline = millis(config.shutdown.deadline_ms);
    let config = config.clone();
    let service = service.into_inner();
    let child = Child::task("http", "http", move |_: &Node| {
        let listeners = Rc::new(RefCell::new(Some(listeners)));
        move |handle: &Handle| {
            let (config, service, handle) = (config.clone(), Data::from(Arc::clone(&service)), handle.clone());
            let listeners = Rc::clone(&listeners);
            async move {
                let served = listeners.borrow().as_ref().map(|listeners| http::serve(&config, listeners, service));
                let Some(server) = served else { return Ok(()) };
                let mut server = server.map_err(Failure::error)?;
                tokio::select! {
                    error = server.ended() => Err(Failure::error(error)),
                    () = handle.stop_requested() => {
                        // Closed, so that a caller who comes now is refused instead of left waiting.
                        listeners.borrow_mut().take();
                        server.stop(deadline).await;
                        Ok(())
                    }
                }
            }
            .boxed_local()
        }
    });
    child.limits(Limits { stuck_after: None, stop_within: deadline + Duration::from_secs(1) })
}

/// What `/readyz` says.
struct ReadyParts {
    node: Node,
    health: watch::Receiver<Health>,
    storage: Arc<dyn Storage>,
}

impl Readiness for ReadyParts {
    fn parts(&self) -> Vec<Part> {
        let refusing = self.health.borrow().refusing;
        let detail = match self.storage.away() {
            Some(_) => Some("the store cannot be reached now"),
            None => refusing.then_some("the store does not take writes now"),
        };
        let store = Part { name: "store".into(), ready: detail.is_none(), detail: detail.map(Into::into) };
        let children = self.node.view().children;
        // The store is the journal's to judge, and without the registry everything works.
        let children = children.into_iter().filter(|child| !["store", NODES].contains(&child.name.as_str()));
        let children = children.map(|child| Part {
            ready: matches!(child.status, Status::Running),
            detail: (!matches!(child.status, Status::Running)).then(|| "it is being started again".into()),
            name: child.name.into(),
        });
        std::iter::once(store).chain(children).collect()
    }
}

/// First to start and last to stop, so that it stores what becomes of the others.
fn ledger_child(ledger: Ledger, store: Arc<dyn LedgerStore>) -> Child {
    let job = move |_: &Node| {
        move |handle: &Handle| {
            let (ledger, store, handle) = (ledger.clone(), Arc::clone(&store), handle.clone());
            async move {
                tokio::select! {
                    () = ledger.clone().keep(Arc::clone(&store)) => {}
                    () = handle.stop_requested() => ledger.keep_rest(&*store).await,
                }
                Ok(())
            }
            .boxed_local()
        }
    };
    Child::task("ledger", "ledger", job).isolated()
}

/// The name of the child that beats.
const NODES: &str = "nodes";

/// Last to start and first to stop: it says of this process that it is there.
fn nodes_child(heartbeat: Heartbeat) -> Child {
    let job = move |_: &Node| {
        move |handle: &Handle| {
            let (heartbeat, handle) = (heartbeat.clone(), handle.clone());
            async move {
                tokio::select! {
                    () = heartbeat.beat() => {}
                    () = handle.stop_requested() => heartbeat.leave().await,
                }
                Ok(())
            }
            .boxed_local()
        }
    };
    let child = Child::task(NODES, "nodes", job).isolated();
    child.limits(Limits { stuck_after: None, stop_within: LEAVE_WITHIN })
}

/// A process that cannot leave the registry in this time is seen as silent instead.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
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
            let embedded = Embedded::open(&directory).expect("a store");
            let store = embedded.store().clone();
            let identity = Identity::of(&config.node);
            let system = System::start_on(&config, Arc::new(embedded), identity, Vec::new()).await.expect("a docket");
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
