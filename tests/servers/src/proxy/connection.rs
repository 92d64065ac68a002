//! One connection through the proxy. Its requests go one way, its answers the other, each in its order and when the
//! weather lets it.

use std::cell::Cell;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::message::Request;
use super::{Line, Matches, Weather};

/// How long the server may take to answer somebody who has gone: until then its connection stays, so that it does not
/// break off what it was asked.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Carries everything between a client and the server until one of them ends it or the weather breaks it.
pub(super) async fn carry(mut client: TcpStream, line: Line) {
    line.until(|weather| !weather.silent || weather.broken).await;
    let Ok(mut server) = TcpStream::connect(line.server).await else { return reset(client) };
    let born = line.weather.borrow().forgotten;
    let ended = tokio::select! {
        biased;
        () = line.until(|weather| weather.broken) => End::Broken,
        () = line.until(|weather| weather.forgotten > born) => End::Forgotten,
        ended = both_ways(&mut client, &mut server, &line) => ended,
    };
    match ended {
        End::Orderly => {}
        End::Forgotten => line.until(|_| false).await,
        End::Broken => {
            reset(client);
            reset(server);
        }
    }
}

enum End {
    /// One side has said its last.
    Orderly,
    /// Neither side will ever know.
    Forgotten,
    Broken,
}

/// Closes it as a broken network does, without a farewell.
fn reset(stream: TcpStream) {
    // It may be closed already.
    let _ = stream.set_zero_linger();
    drop(stream);
}

async fn both_ways(client: &mut TcpStream, server: &mut TcpStream, line: &Line) -> End {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let exchange = Exchange::default();
    let ended = tokio::select! {
        ended = requests(from_client, to_server, line, &exchange) => ended,
        ended = answers(from_server, to_client, line, &exchange) => ended,
    };
    ended.unwrap_or(End::Broken)
}

/// What the two ways of a connection know of each other.
#[derive(Default)]
struct Exchange {
    /// Requests that the server has been given and has not answered.
    unanswered: Cell<u64>,
    answered: Notify,
    /// The answer that comes next is not to be given.
    answer_held: Cell<bool>,
    /// Of the answer that comes next only so much is to be given.
    answer_cut: Cell<Option<usize>>,
}

async fn requests(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, line: &Line, exchange: &Exchange) -> io::Result<End> {
    // A client that breaks off is one that ends: what it sent before arrives.
    while let Ok(Some(message)) = line.protocol.read(&mut from).await {
        let request = line.protocol.request(&message);
        line.let_pass(|weather| holds(weather.requests_held.as_ref(), &request)).await;
        if let Some(bytes) = line.cut(&request, |weather| &mut weather.request_cut) {
            to.write_all(&message[..bytes.min(message.len())]).await?;
            return Ok(End::Broken);
        }
        exchange.answer_cut.set(line.cut(&request, |weather| &mut weather.answer_cut));
        if holds(line.weather.borrow().answers_held.as_ref(), &request) {
            exchange.answer_held.set(true);
        }
        exchange.unanswered.set(exchange.unanswered.get() + 1);
        line.counts.requests.fetch_add(1, Ordering::Relaxed);
        to.write_all(&message).await?;
    }
    let all_answered = async {
        while line.protocol.answers_each() && exchange.unanswered.get() > 0 {
            exchange.answered.notified().await;
        }
    };
    // Whoever keeps the server waiting for longer has ended all the same.
    let _ = timeout(ANSWER_MAX, all_answered).await;
    Ok(End::Orderly)
}

async fn answers(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, line: &Line, exchange: &Exchange) -> io::Result<End> {
    while let Some(message) = line.protocol.read(&mut from).await? {
        let held = exchange.answer_held.take();
        line.let_pass(|weather| held && weather.answers_held.is_some()).await;
        if let Some(bytes) = exchange.answer_cut.take() {
            // Nobody may be there to take it.
            let _ = to.write_all(&message[..bytes.min(message.len())]).await;
            return Ok(End::Broken);
        }
        line.counts.answers.fetch_add(1, Ordering::Relaxed);
        // Nobody may be there to take it.
        let _ = to.write_all(&message).await;
        // The server may send more than it was asked for: its state, as it changes.
        exchange.unanswered.set(exchange.unanswered.get().saturating_sub(1));
        exchange.answered.notify_one();
    }
    Ok(End::Orderly)
}

fn holds(held: Option<&Matches>, request: &Request) -> bool {
    held.is_some_and(|matches| matches(request))
}

impl Line {
    async fn until(&self, weather: impl FnMut(&Weather) -> bool) {
        // It cannot be closed: this is one who could send.
        let _ = self.weather.subscribe().wait_for(weather).await;
    }

    /// Waits until nothing keeps a message back that `is_held` knows.
    async fn let_pass(&self, mut is_held: impl FnMut(&Weather) -> bool) {
        if is_held(&self.weather.borrow()) {
            self.counts.held.fetch_add(1, Ordering::Relaxed);
        }
        let delay = self.weather.borrow().delay;
        sleep(delay).await;
        self.until(|weather| !weather.silent && !is_held(weather)).await;
    }

    /// How much of this request, or of its answer, may pass before the connection breaks, if it is the one to be cut.
    fn cut(&self, request: &Request, cut: impl Fn(&mut Weather) -> &mut Option<(Matches, usize)>) -> Option<usize> {
        let mut bytes = None;
        self.weather.send_if_modified(|weather| {
            bytes = cut(weather).take_if(|(matches, _)| matches(request)).map(|(_, bytes)| bytes);
            bytes.is_some()
        });
        bytes
    }
}
