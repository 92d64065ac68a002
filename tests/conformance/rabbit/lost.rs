//! Connections that go silent, brokers that never answer: noticed in good time, and nothing of them is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::broker::BrokerError;
use actors::testing::conformance::broker::{consumer, messages, next, publish, soon};
use docket::rabbit::Settings;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ANALYTICS, Host, broker};
use crate::again::this_test_again;

/// A line to the broker on which nothing may arrive any more.
struct Line {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    open: watch::Receiver<usize>,
    _carrying: JoinSet<()>,
}

impl Line {
    async fn to(broker: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (silent, _) = watch::channel(false);
        let (count, open) = watch::channel(0);
        let (count, weather, broker) = (Arc::new(count), silent.clone(), broker.to_owned());
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                count.send_modify(|open| *open += 1);
                let (count, silent, broker) = (Arc::clone(&count), weather.subscribe(), broker.clone());
                lines.spawn(async move {
                    carry(client, &broker, silent).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, silent, open, _carrying: carrying }
    }

    async fn until_open(&mut self, count: usize) {
        soon(self.open.wait_for(|open| *open == count)).await.expect("the line");
    }
}

/// Until the client has closed its side, also in silence.
async fn carry(mut client: TcpStream, broker: &str, mut silent: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(broker).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        _ = silent.wait_for(|silent| *silent) => {}
    }
    let mut unread = [0; 4096];
    while client.read(&mut unread).await.is_ok_and(|read| read > 0) {}
}

fn through(host: &Host, address: SocketAddr) -> Settings {
    let uri = host.0.uri();
    let (user, place) = uri.rsplit_once('@').expect("a user");
    let (_, name) = place.split_once('/').expect("a virtual host");
    let answer_within = Duration::from_secs(20);
    Settings { answer_within, heartbeat_s: 1, ..Settings::new(&format!("{user}@{address}/{name}")) }
}

async fn line(host: &Host) -> Line {
    let place = host.0.uri().rsplit_once('@').expect("a user").1;
    Line::to(place.split_once('/').expect("a virtual host").0).await
}

#[tokio::test]
async fn a_consumer_to_which_nothing_can_come_is_told_so_and_leaves_nothing() {
    let host = Host::new();
    let mut line = line(&host).await;
    let broker = broker(&through(&host, line.address), &[]);
    let mut consume = consumer(&broker, &ANALYTICS).await;
    line.silent.send_replace(true);
    let error = soon(consume.next(10)).await.expect_err("nothing can come");
    assert!(matches!(error, BrokerError::Away(_)), "{error:?}");
    drop(consume);
    line.until_open(0).await;
}

#[tokio::test]
async fn a_publisher_that_nobody_hears_fails_and_leaves_nothing() {
    let host = Host::new();
    let mut line = line(&host).await;
    let broker = broker(&through(&host, line.address), &[ANALYTICS]);
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    assert_eq!(publish(&mut publisher, &messages(10)).await, 0);
    line.silent.send_replace(true);
    soon(publisher.publish(&messages(3_000))).await.expect_err("nobody confirms");
    drop(publisher);
    line.until_open(0).await;
}

#[tokio::test]
async fn whoever_is_dropped_in_good_weather_leaves_nothing() {
    let host = Host::new();
    let mut line = line(&host).await;
    let broker = broker(&through(&host, line.address), &[ANALYTICS]);
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    let mut consume = consumer(&broker, &ANALYTICS).await;
    publish(&mut publisher, &messages(10)).await;
    next(&mut consume, 5).await;
    line.until_open(2).await;
    drop((publisher, consume));
    line.until_open(0).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_away_and_its_socket_is_closed() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = Settings {
        answer_within: Duration::from_millis(300),
        ..Settings::new(&format!("amqp://guest:guest@{address}"))
    };
    let error = soon(broker(&settings, &[]).publisher()).await.map(drop).expect_err("nobody answers");
    assert!(error.to_string().contains("did not answer within 300 ms"), "{error}");
    let (mut client, _) = soon(listener.accept()).await.expect("a connection");
    let mut greeting = Vec::new();
    soon(client.read_to_end(&mut greeting)).await.expect("its end");
    assert_eq!(greeting, b"AMQP\x00\x00\x09\x01");
}

/// Says that this is the process of its own.
const ALONE: &str = "DOCKET_TEST_ALONE";

/// The threads on which the driver reads its connections.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "lapin-io-loop").count()
}

#[tokio::test]
async fn no_thread_is_left() {
    if std::env::var_os(ALONE).is_none() {
        // Other tests have such threads as well.
        let mut again = this_test_again(&[], "rabbit::lost::no_thread_is_left", ALONE, "yes".as_ref());
        let ended = tokio::task::spawn_blocking(move || again.status()).await.expect("no panic").expect("a process");
        assert!(ended.success(), "{ended}");
        return;
    }
    let host = Host::new();
    let line = line(&host).await;
    let broker = broker(&through(&host, line.address), &[ANALYTICS]);
    for silent in [false, true] {
        line.silent.send_replace(false);
        let mut publisher = soon(broker.publisher()).await.expect("a connection");
        let consume = consumer(&broker, &ANALYTICS).await;
        publish(&mut publisher, &messages(10)).await;
        assert!(threads() >= 2);
        line.silent.send_replace(silent);
        drop((publisher, consume));
        let gone = async {
            while threads() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(gone).await;
    }
    // One that is given up while it connects.
    assert!(tokio::time::timeout(Duration::from_millis(300), broker.publisher()).await.is_err(), "somebody answers");
    soon(async {
        while threads() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
