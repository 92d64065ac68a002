//! A proxy in front of a server that does what networks do: delays, goes silent, forgets connections, breaks them. Of
//! MongoDB's protocol it knows messages, and the command that a request begins with: there it also breaks connections in
//! the middle of a message, and lets requests arrive long after whoever sent them has given up.
//!
//! It never changes what passes.

mod connection;
mod message;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

pub use message::Request;

use connection::carry;
use message::Protocol;

/// The proxy, until it is dropped: then every connection through it ends. It has a thread of its own, so that it works
/// also while a test waits.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What the proxy does with all that comes, at the moment.
#[derive(Clone, Default)]
struct Weather {
    delay: Duration,
    silent: bool,
    broken: bool,
    /// How often connections were forgotten: those that are older than the last time are dead.
    forgotten: u64,
    requests_held: Option<Matches>,
    answers_held: Option<Matches>,
    request_cut: Option<(Matches, usize)>,
    answer_cut: Option<(Matches, usize)>,
}

type Matches = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
    held: AtomicU64,
}

/// What passed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Connections that were accepted.
    pub connections: u64,
    /// Whole requests that the server was given.
    pub requests: u64,
    /// Whole answers that were given to those who asked, or came for somebody who had gone.
    pub answers: u64,
    /// Messages that were held back, also those that went on later.
    pub held: u64,
}

impl Proxy {
    /// One before a MongoDB. It lets everything pass.
    ///
    /// # Panics
    /// When there is no port or thread for it.
    pub fn before(server: SocketAddr) -> Self {
        Self::with(server, Protocol::Mongodb)
    }

    /// One before any server. It lets everything pass. A request or an answer is here whatever comes at a time.
    ///
    /// # Panics
    /// When there is no port or thread for it.
    pub fn raw_before(server: SocketAddr) -> Self {
        Self::with(server, Protocol::Any)
    }

    fn with(server: SocketAddr, protocol: Protocol) -> Self {
        let (weather, _) = watch::channel(Weather::default());
        let counts = Arc::<Counts>::default();
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("its address");
        let line = Line { server, protocol, weather: weather.clone(), counts: Arc::clone(&counts) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                tokio::select! {
                    () = accept(listener, line) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, weather, counts, running: Some((stop, thread)) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for MongoDB's driver, which then does not ask the server for another.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address)
    }

    /// Everything passes from now on, also what was held or lost in silence.
    pub fn pass(&self) {
        self.weather.send_modify(|weather| {
            *weather = Weather { forgotten: weather.forgotten, ..Weather::default() };
        });
    }

    /// Every message, to either side, arrives so much later.
    pub fn delay(&self, by: Duration) {
        self.weather.send_modify(|weather| weather.delay = by);
    }

    /// Nothing passes and nothing breaks: connections stay, new ones are accepted, no message arrives. What was sent
    /// arrives when it [passes](Self::pass) again, as it does when a network heals.
    pub fn stall(&self) {
        self.weather.send_modify(|weather| weather.silent = true);
    }

    /// Nothing passes any more, ever, on the connections that there are, and neither side is told: as when a machine is
    /// unplugged. New ones pass.
    pub fn forget_connections(&self) {
        self.weather.send_modify(|weather| weather.forgotten += 1);
    }

    /// Resets every connection, and every new one at once.
    pub fn drop_connections(&self) {
        self.weather.send_modify(|weather| weather.broken = true);
    }

    /// Of the next request that matches, the server gets the first `bytes` only; then its connection is reset on both
    /// sides. Once.
    pub fn cut(&self, bytes: usize, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        self.weather.send_modify(|weather| weather.request_cut = Some((Arc::new(matches), bytes)));
    }

    /// The server gets the next request that matches, and whoever sent it the first `bytes` of the answer only; then the
    /// connection is reset on both sides. Once.
    pub fn cut_answer(&self, bytes: usize, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        self.weather.send_modify(|weather| weather.answer_cut = Some((Arc::new(matches), bytes)));
    }

    /// Keeps requests that match from the server. They get there when it [passes](Self::pass) again, also those whose
    /// sender has given up since.
    pub fn hold_requests(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        self.weather.send_modify(|weather| weather.requests_held = Some(Arc::new(matches)));
    }

    /// The server gets requests that match, and those who sent them no answer until it [passes](Self::pass) again.
    pub fn hold_answers(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        self.weather.send_modify(|weather| weather.answers_held = Some(Arc::new(matches)));
    }

    /// What passed so far.
    pub fn passed(&self) -> Passed {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Passed {
            connections: read(&self.counts.connections),
            requests: read(&self.counts.requests),
            answers: read(&self.counts.answers),
            held: read(&self.counts.held),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            // It may have ended by a panic, which has been shown.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Line {
    server: SocketAddr,
    protocol: Protocol,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
}

async fn accept(listener: TcpListener, line: Line) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        line.counts.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn_local(carry(client, line.clone()));
        while connections.try_join_next().is_some() {}
    }
}
