//! HTTP: the callers' address and the operators'. A file a resource; which paths there are, and what each needs, is one
//! table (`routes.rs`), what all share is at the edge (`edge.rs`), and every error is a problem (`problem.rs`, `error.rs`).
//!
//! Never decides about orders and never touches a store: it is handed a door to the orders and asks there.

mod asyncapi;
mod body;
mod dead_letters;
mod docs;
mod edge;
mod error;
mod guard;
mod headers;
mod health;
mod history;
mod html;
mod import;
mod openapi;
mod ops;
mod orders;
mod origin;
mod parameters;
mod problem;
mod problems;
mod routes;
mod streams;
mod subscribers;
mod unread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use actors::bridge::relay::RelayHandle;
use actors::log::Log;
use actors::nodes::{Nodes, Roll};
use actors::order::directory::{Answer, Request, Trail};
use actors::order::error::{At, CommandError, NotDone, ReadError};
use actors::order::{Order, OrderId, Orders, Version};
use actors::subscriber::actor::SubscriberHandle;
use actors::subscriber::letters::SetAside;
use actors::supervisor::Node;
use async_trait::async_trait;

use crate::config::{Config, millis};
use docs::Description;
use guard::Guard;
pub use health::{Part, Readiness};
pub use openapi::document;
use orders::Arrivals;
use origin::Names;
use problem::Problem;
pub use problem::{KINDS, Kind};
use routes::Place;
pub use routes::{Access, Address, RouteEntry, routes};
use streams::Streams;

/// What is said of a path that an address does not have.
pub(crate) const NO_SUCH_PATH: &str = "There is no such path.";

/// What answers for orders. [`Orders`] does; tests stand in for it.
#[async_trait(?Send)]
pub trait OrderDoor: Send + Sync {
    /// Tells an order to do something.
    async fn command(&self, request: Request) -> Result<Answer, CommandError>;
    /// The order's state, present or earlier.
    async fn get(&self, order: OrderId, at: At) -> Result<Arc<Order>, ReadError>;
    /// The order's events after `after`, at most `limit`.
    async fn trail(&self, order: OrderId, after: Version, limit: usize) -> Result<Trail, ReadError>;
}

#[async_trait(?Send)]
impl OrderDoor for Orders {
    async fn command(&self, request: Request) -> Result<Answer, CommandError> {
        self.command(request).await
    }

    async fn get(&self, order: OrderId, at: At) -> Result<Arc<Order>, ReadError> {
        self.get(order, at).await
    }

    async fn trail(&self, order: OrderId, after: Version, limit: usize) -> Result<Trail, ReadError> {
        self.trail(order, after, limit).await
    }
}

/// What the handlers stand on.
pub struct Service {
    /// The orders; `None` in a process that runs without them (503 `not-here`).
    pub orders: Option<Arc<dyn OrderDoor>>,
    /// What other processes may ask about the orders; `None` in a process that runs without them (503 `not-here`).
    pub history: Option<HistoryPorts>,
    /// What `/readyz` says.
    pub readiness: Arc<dyn Readiness>,
    /// The tree of supervisors, with its ledger.
    pub tree: Node,
    /// The processes that share the store.
    pub nodes: Roll,
    /// The subscribers of this process.
    pub subscribers: Vec<SubscriberHandle>,
    /// Where the broker keeps what nobody can read; `None` where there is no broker.
    pub set_aside: Option<Arc<dyn SetAside>>,
    /// The relay of this process, where one runs.
    pub relay: Option<RelayHandle>,
    /// How long to wait.
    pub limits: Limits,
}

/// What other processes may ask about the orders.
#[derive(Clone)]
pub struct HistoryPorts {
    /// Everything that happened.
    pub log: Arc<dyn Log>,
    /// Which processes there are.
    pub nodes: Arc<dyn Nodes>,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the body to arrive.
    pub body_timeout: Duration,
    /// For an order's answer. Longer than the orders themselves take to give up: they know more about what was not done.
    pub answer_timeout: Duration,
}

/// By how much.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

impl Limits {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            body_timeout: millis(config.http.body_timeout_ms),
            answer_timeout: millis(config.http.answer_timeout_ms) + ANSWER_GRACE,
        }
    }
}

impl Service {
    fn orders(&self) -> Result<&dyn OrderDoor, Problem> {
        self.orders.as_deref().ok_or_else(not_here)
    }

    fn history(&self) -> Result<&HistoryPorts, Problem> {
        self.history.as_ref().ok_or_else(not_here)
    }
}

/// Other processes of the deployment have it, and that does not change soon.
fn not_here() -> Problem {
    error::not_done(NotDone::NotHere).retry_after(NOT_HERE_RETRY)
}

/// When it is worth asking again for what another process of the deployment has.
const NOT_HERE_RETRY: Duration = Duration::from_secs(60);

/// Two addresses that are bound: connections wait until they are served.
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    ops: TcpListener,
}

impl Listeners {
    /// Binds both addresses.
    ///
    /// # Errors
    /// When an address cannot be bound; the message names its key.
    pub fn bind(config: &Config) -> io::Result<Self> {
        Ok(Self { http: bound("http.bind", config.http.bind)?, ops: bound("ops.bind", config.ops.bind)? })
    }

    /// Where callers and operators are served, with the real ports.
    ///
    /// # Errors
    /// When the machine does not say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.ops.local_addr()?))
    }
}

/// Most streams of the operators' address: of subscribers in other processes, mostly.
const OPERATORS_STREAMS_MAX: usize = 256;

/// Two addresses that are being served.
#[derive(Debug)]
pub struct Server {
    streams: [Data<Streams>; 2],
    handles: [ServerHandle; 2],
    running: [actix_rt::task::JoinHandle<io::Result<()>>; 2],
}

/// Serves both addresses, again if need be: the listeners stay. To be called on an actix system.
///
/// # Errors
/// When the machine gives no threads.
pub fn serve(config: &Config, listeners: &Listeners, service: Data<Service>) -> io::Result<Server> {
    let (http, ops) = listeners.addresses()?;
    let (callers, operators) = (listeners.http.try_clone()?, listeners.ops.try_clone()?);
    let description = Data::new(Description::new(!config.auth.keys.is_empty()));
    // Callers who watch their orders take no place from subscribers.
    let streams = [config.http.streams_max as usize, OPERATORS_STREAMS_MAX].map(|max| Data::new(Streams::new(max)));
    let [of_callers, of_operators] = streams.clone();
    let callers = Site {
        listener: callers,
        names: Names::new(http, &config.http.hosts),
        places: routes::callers,
        streams: of_callers,
    };
    let operators = Site {
        listener: operators,
        names: Names::new(ops, &config.ops.hosts),
        places: routes::operators,
        streams: of_operators,
    };
    let callers = start(config, callers, service.clone(), description.clone())?;
    let operators = start(config, operators, service, description)?;
    Ok(Server {
        streams,
        handles: [callers.handle(), operators.handle()],
        running: [actix_rt::spawn(callers), actix_rt::spawn(operators)],
    })
}

impl Server {
    /// Takes no more connections, ends the streams, lets what is under way finish, and cuts off what is not done at the
    /// deadline.
    pub async fn stop(self, deadline: Duration) {
        self.streams.iter().for_each(|streams| streams.close());
        let [callers, operators] = &self.handles;
        let drained = async { tokio::join!(callers.stop(true), operators.stop(true)) };
        if tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::warn!("cut off the requests that were not answered at the deadline");
            for running in &self.running {
                running.abort();
            }
        }
    }

    /// Resolves when an address is no longer served though nobody stopped it.
    pub async fn ended(&mut self) -> io::Error {
        let [callers, operators] = &mut self.running;
        let ended = tokio::select! { ended = callers => ended, ended = operators => ended };
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("an address is no longer served"),
            Err(error) => io::Error::other(error),
        }
    }
}

fn bound(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {key} = {address}: {error}"));
    TcpListener::bind(address).map_err(named)
}

/// An address and what it has.
struct Site {
    listener: TcpListener,
    names: Names,
    places: fn() -> Vec<Place>,
    streams: Data<Streams>,
}

fn start(
    config: &Config,
    Site { listener, names, places, streams }: Site,
    service: Data<Service>,
    description: Data<Description>,
) -> io::Result<actix_web::dev::Server> {
    let workers = match config.http.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers as usize,
    };
    let arrivals = Data::new(Arrivals::default());
    let guard = Arc::new(Guard::new(&config.auth, names.clone()));
    let server = HttpServer::new(move || {
        App::new()
            .wrap(edge::Edge::new(names.clone()))
            .app_data(service.clone())
            .app_data(streams.clone())
            .app_data(arrivals.clone())
            .app_data(description.clone())
            .configure(|config| places().into_iter().for_each(|place| place.serve(&guard, config)))
            .default_service(web::to(nothing_here))
    });
    let server = server
        .workers(workers)
        .max_connections(config.http.connections_max as usize)
        .client_request_timeout(millis(config.http.head_timeout_ms))
        .keep_alive(millis(config.http.keep_alive_ms))
        .shutdown_timeout(config.shutdown.deadline_ms.div_ceil(1_000))
        .tcp_nodelay(true)
        .disable_signals();
    Ok(server.listen(listener)?.run())
}

async fn nothing_here() -> Result<actix_web::HttpResponse, Problem> {
    Err(Problem::not_found(NO_SUCH_PATH))
}
