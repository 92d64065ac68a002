//! The one place that wires adapters to actors to HTTP. Everything is a child of one tree, started in the order in which
//! each needs the one before, and stopped in reverse: intake first, the store last.

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
use actors::order::Orders;
use actors::order::directory::{self, Layout, Ports, Shard};
use actors::order::stream::Rules;
use actors::subscriber;
use actors::subscriber::actor::SubscriberHandle;
use actors::subscriber::registry::{self, Registered};
use actors::subscriber::settings::Settings;
use actors::supervisor::child::Limits;
use actors::supervisor::policy::{Backoff, Intensity};
use actors::supervisor::tree::Status;
use actors::supervisor::{Child, End, Failure, Handle, Ledger, LedgerStore, Node, Policy, Root, Strategy, Supervisor};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::config::{self, Config, millis};
use crate::http::{self, Listeners, Part, Readiness, Service};
use crate::mail::{MailFolder, MailFolderError};
use crate::sqlite::ledger::LedgerFile;
use crate::sqlite::{DataDirectory, DirectoryError, OpenError, SqliteInbox, Store};
use crate::telemetry::StartUp;

/// Why a docket does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used, or another docket uses it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
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
    /// On SQLite without a broker, subscribers follow the log in the order service's own process.
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

/// Which parts of docket a process runs: all, or those that were named (`--only orders,notification`).
#[derive(Clone, Debug, Default)]
pub struct Only(Option<Vec<String>>);

impl Only {
    /// Those with these names; all without any.
    pub fn named(names: Vec<String>) -> Self {
        Self(Some(names).filter(|names| !names.is_empty()))
    }

    fn runs(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|named| named == name))
    }

    fn check<'a>(&self, subscribers: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
        let known: Vec<&str> = std::iter::once(ORDERS).chain(subscribers).collect();
        let unknown = self.0.iter().flatten().find(|name| !known.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(StartError::UnknownPart { name: name.clone(), known: known.join(", ") });
        }
        if self.runs(ORDERS) { Ok(()) } else { Err(StartError::WithoutOrders) }
    }
}

/// The part that serves orders.
const ORDERS: &str = "orders";

/// A docket that runs.
pub struct System {
    /// Where callers are served, with the real port.
    pub http: SocketAddr,
    /// Where operators are served, with the real port.
    pub ops: SocketAddr,
    root: Root,
    node: Node,
    store: Store,
    inboxes: Vec<Arc<SqliteInbox>>,
    subscribers: Vec<&'static str>,
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
    /// the machine gives.
    ///
    /// # Errors
    /// Whatever keeps it from serving. Nothing is left running then.
    pub async fn start(config: &Config, only: &Only) -> Result<Self, StartError> {
        let listeners = Listeners::bind(config)?;
        let (http, ops) = listeners.addresses()?;
        let directory = DataDirectory::lock(&config.data.directory)?;
        let store = Store::open(&directory)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ledger = Ledger::new(&node_name());
        let ledger_file: Arc<dyn LedgerStore> = Arc::new(LedgerFile::new(&directory));
        if let Err(error) = ledger.load(&*ledger_file).await {
            tracing::warn!(%error, "the ledger of earlier runs cannot be read");
        }
        let node = Node::root("docket", Arc::clone(&clock), ledger.clone(), u64::from(std::process::id()));
        let arbiters = Arbiters::new(config);

        let (journal, journal_address, health) = journal_child(config, &store, arbiters.journal.handle());
        let ports = Ports {
            store: Arc::new(store.clone()),
            snapshots: Arc::new(store.clone()),
            journal: journal_address.recipient(),
            clock,
            rules: Rules::ORDER,
        };
        let subscribers = Subscribers::open(config, only, &directory, &store, &arbiters.subscribers)?;
        let (shards, orders) = orders_child(config, ports, &arbiters.shards);
        let readiness = Parts { node: node.clone(), health };
        let names = subscribers.handles.iter().map(SubscriberHandle::name).collect();
        let service = Data::new(Service {
            orders: Some(Arc::new(orders)),
            subscribers: subscribers.handles,
            readiness: Arc::new(readiness),
            tree: node.clone(),
            limits: http::Limits::of(config),
        });
        let root = Supervisor::new(Strategy::OneForOne, policy(config))
            .child(ledger_child(ledger, ledger_file))
            .child(store_child(store.clone()))
            .child(journal)
            .child(shards)
            .child(subscribers.child)
            .child(http_child(config, listeners, service))
            .start(&node);
        let inboxes = subscribers.inboxes;
        Ok(Self { http, ops, root, node, store, inboxes, subscribers: names, _arbiters: arbiters })
    }

    /// What it says about itself at the start.
    pub fn start_up(&self, config: &Config) -> StartUp {
        let file = config.data.directory.join(crate::sqlite::store::FILE_NAME);
        StartUp {
            store: format!("SQLite in {}, on disk at each commit", file.display()),
            broker: "none: subscribers follow the log".to_owned(),
            subscribers: self.subscribers.iter().map(|name| (*name).to_owned()).collect(),
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
        let Self { mut root, store, inboxes, .. } = self;
        let end = tokio::select! {
            end = &mut root => end,
            () = stop => {
                root.handle().end();
                tokio::select! { end = &mut root => end, () = at_once => End::Asked }
            }
        };
        // What was acknowledged is durable already; this only spares the next start the write-ahead logs.
        let inboxes = join_all(inboxes.iter().map(|inbox| inbox.close()));
        let closed = async { tokio::join!(inboxes, store.close()) };
        drop(tokio::time::timeout(CLOSE_WITHIN, closed).await);
        end
    }
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

/// Watches over the store's writing thread, and starts another when it has died.
fn store_child(store: Store) -> Child {
    Child::task("store", "store", move |_: &Node| {
        move |handle: &Handle| {
            let (store, handle) = (store.clone(), handle.clone());
            async move {
                store.restart_writer().map_err(Failure::error)?;
                tokio::select! {
                    said = store.writer_died() => Err(Failure::error(said)),
                    () = handle.stop_requested() => Ok(()),
                }
            }
            .boxed_local()
        }
    })
}

fn journal_child(
    config: &Config,
    store: &Store,
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
    let store: Arc<dyn EventStore> = Arc::new(store.clone());
    let (journal, health) = JournalActor::new(store, limits);
    let (child, address) = Child::actor("journal", "journal", move |ctx, _, _| journal.on(ctx));
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

/// The subscribers, each with a store of its own.
struct Subscribers {
    child: Child,
    handles: Vec<SubscriberHandle>,
    inboxes: Vec<Arc<SqliteInbox>>,
}

impl Subscribers {
    fn open(
        config: &Config,
        only: &Only,
        directory: &DataDirectory,
        store: &Store,
        arbiter: &Arbiter,
    ) -> Result<Self, StartError> {
        let mailer = MailFolder::open(directory, &config.notification.from)?;
        let all = registry::all(&registry::Parts { mailer: Arc::new(mailer) });
        only.check(all.iter().map(Registered::name))?;
        check_sections(config, &all)?;
        let mut supervisor = Supervisor::new(Strategy::OneForOne, policy(config));
        let (mut handles, mut inboxes) = (Vec::new(), Vec::new());
        for registered in all.into_iter().filter(|registered| only.runs(registered.name())) {
            let name = registered.name();
            let inbox = Arc::new(SqliteInbox::open(directory, name)?);
            inboxes.push(Arc::clone(&inbox));
            let log = Arc::new(store.clone());
            let ports =
                subscriber::actor::Ports { inbox, log: log.clone(), history: log, clock: Arc::new(SystemClock) };
            let settings = subscriber_settings(config.subscriber(name));
            let (child, handle) = subscriber::actor::child(registered, ports, settings);
            supervisor = supervisor.child(child.on(arbiter.handle()));
            handles.push(handle);
        }
        Ok(Self { child: Child::supervisor("subscribers", supervisor), handles, inboxes })
    }
}

/// A section for a subscriber that does not exist is a mistyped name: it would be without effect.
fn check_sections(config: &Config, all: &[Registered]) -> Result<(), StartError> {
    let known: Vec<_> = all.iter().map(Registered::name).collect();
    match config.subscribers.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(StartError::UnknownSubscriber { name: name.clone(), known: known.join(", ") }),
        None => Ok(()),
    }
}

fn subscriber_settings(limits: &config::Subscriber) -> Settings {
    Settings {
        batch_events_max: limits.batch_events_max as usize,
        batch_documents_max: limits.batch_documents_max as usize,
        batch_bytes_max: usize::try_from(limits.batch_bytes_max).unwrap_or(usize::MAX),
        queue_events_max: limits.queue_events_max as usize,
        rows_cached_max: limits.rows_cached_max as usize,
        lanes_at_once_max: limits.lanes_at_once_max as usize,
        history_commits_max: limits.history_commits_max as usize,
        effects_loaded_max: limits.effects_loaded_max as usize,
        effects_at_once_max: limits.effects_at_once_max as usize,
        effects_max: limits.effects_max,
        handler_timeout: millis(limits.handler_timeout_ms),
        backoff: subscriber::settings::Backoff {
            first: millis(limits.backoff_first_ms),
            factor: limits.backoff_factor,
            max: millis(limits.backoff_max_ms),
        },
    }
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
struct Parts {
    node: Node,
    health: watch::Receiver<Health>,
}

impl Readiness for Parts {
    fn parts(&self) -> Vec<Part> {
        let health = self.health.borrow().clone();
        let store = Part {
            name: "store".into(),
            ready: health.away.is_none(),
            detail: health.away.is_some().then(|| "the store does not take writes now".into()),
        };
        let children = self.node.view().children;
        let children = children.into_iter().filter(|child| child.name != "store").map(|child| Part {
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

/// How this process is called in the ledger: host and pid.
fn node_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "docket" } else { host }, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A docket in `folder`, on any free ports, that bears two restarts of what nothing works without.
    async fn start(folder: &std::path::Path) -> System {
        let environment = [
            ("DOCKET__HTTP__BIND", "127.0.0.1:0".to_owned()),
            ("DOCKET__OPS__BIND", "127.0.0.1:0".to_owned()),
            ("DOCKET__DATA__DIRECTORY", folder.display().to_string()),
            ("DOCKET__SUPERVISOR__RESTARTS_MAX", "2".to_owned()),
            ("DOCKET__SUPERVISOR__BACKOFF_FIRST_MS", "1".to_owned()),
        ];
        let environment = environment.into_iter().map(|(key, value)| (key.to_owned(), value));
        let config = Config::load(None, environment).expect("a configuration");
        System::start(&config, &Only::default()).await.expect("a docket")
    }

    #[test]
    fn what_nothing_works_without_ends_the_process_with_its_reason_when_it_keeps_failing() {
        let folder = tempfile::tempdir().expect("a folder");
        let end = actix_rt::System::new().block_on(async {
            let system = start(folder.path()).await;
            let store = system.store.clone();
            for _ in 0..3 {
                store.panic_writer().await;
            }
            let running = system.run_until(std::future::pending(), std::future::pending());
            tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends by itself")
        });
        assert!(matches!(end, End::Failed(_)));
        assert_eq!(end.exit_code(), 70);
        let reason = end.to_string();
        assert!(reason.contains("docket/store failed for good") && reason.contains("told to"), "{reason}");
    }
}
