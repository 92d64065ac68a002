//! The consumer of `examples/`, a program in another language with a queue of its own: it handles every event once, also
//! those that happened while it was dead, and those that come again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use servers::RabbitVhost;

use crate::harness::{Folder, Store, an_order, eventually};

/// As the program calls it.
const QUEUE: &str = "takings-of-the-shop";

const COPIES: &str = "copies";

/// A running consumer. It ends with the test.
struct Consumer {
    child: Child,
    heard: PathBuf,
}

impl Consumer {
    /// On that folder, which keeps what it has had.
    fn start(folder: &Path, vhost: &RabbitVhost) -> Self {
        let heard = folder.join("heard");
        let output = File::options().append(true).create(true).open(&heard).expect("a file");
        let child = Command::new("/usr/bin/python3") // Debian's, which has Debian's pika
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/consumer.py"))
            .env("RABBITMQ_URL", vhost.uri())
            .env("CONSUMER_STORE", folder.join("consumer.db"))
            .stdout(Stdio::from(output))
            .spawn()
            .expect("python3");
        Self { child, heard }
    }

    /// Order, version and type of every event that was handled, in that order.
    fn heard(&self) -> Vec<String> {
        let lines = fs::read_to_string(&self.heard).expect("what it printed");
        lines.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_outside_makes_of_an_older_event_what_docket_makes_of_it() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/events");
    let event = fixtures.join("order.shipped.v1.plain.json");
    let upcast = "import consumer, json, sys; print(json.dumps(consumer.upcast(json.load(open(sys.argv[1])))))";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", upcast])
        .arg(event)
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = fs::read(fixtures.join("order.shipped.v1.plain.expected.json")).expect("the fixture");
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
    assert_eq!(json(&output.stdout), json(&expected));
}

#[tokio::test]
async fn a_program_outside_docket_handles_every_event_once() {
    let (kept, vhost) = (tempfile::tempdir().expect("a folder"), RabbitVhost::new());
    let consumer = Consumer::start(kept.path(), &vhost);
    eventually("it has its queue", async || vhost.queue(QUEUE).await.is_some()).await;
    // Another queue, so that what was sent can be sent again.
    vhost.declare(COPIES, &[]).await;
    let channel = vhost.connect().await.create_channel().await.expect("a channel");
    let bound =
        channel.queue_bind(COPIES.into(), "orders".into(), "order.#".into(), Default::default(), Default::default());
    bound.await.expect("bound");
    let folder = Folder::new(Store::Sqlite).set("RABBITMQ_URL", vhost.uri());
    let docket = folder.start().await;
    // The first relay of a log begins with what happens next.
    eventually("it hears of orders", async || {
        docket.place(&an_order("before")).expect(StatusCode::CREATED).await;
        !consumer.heard().is_empty()
    })
    .await;
    let first = docket.place(&an_order("first")).expect(StatusCode::CREATED).await.id();
    let created = |order: &str| format!("{order} 1 order.created");
    eventually("it hears of the first", async || consumer.heard().contains(&created(&first))).await;
    drop(consumer); // kill -9

    let second = docket.place(&an_order("second")).expect(StatusCode::CREATED).await.id();
    eventually("it waits", async || vhost.waiting(QUEUE).await.is_some_and(|waiting| waiting > 0)).await;
    for (_, again) in vhost.peek(COPIES, 100).await {
        vhost.publish("", QUEUE, &[again.clone(), again]).await;
    }
    let last = docket.place(&an_order("last")).expect(StatusCode::CREATED).await.id();

    let consumer = Consumer::start(kept.path(), &vhost);
    eventually("it hears of the last", async || consumer.heard().contains(&created(&last))).await;
    let heard = consumer.heard();
    for order in [&first, &second, &last] {
        assert_eq!(heard.iter().filter(|line| **line == created(order)).count(), 1, "{heard:#?}");
    }
    eventually("everything is acknowledged", async || {
        let queue = vhost.queue(QUEUE).await.unwrap_or_default();
        queue["messages"] == 0
    })
    .await;
    assert_eq!(consumer.heard(), heard);
}
