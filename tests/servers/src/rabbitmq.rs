//! A virtual host of one's own on the RabbitMQ node that all tests share, and a node of one's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::process::{Process, said};
use crate::rabbitmq_node::{self, Ports};
use crate::variable;

/// The node that all tests share.
const URL: &str = "DOCKET_TEST_RABBITMQ_URL";
/// Where that one is asked about itself.
const API: &str = "DOCKET_TEST_RABBITMQ_API";
/// The program of nodes of one's own.
const PROGRAM: &str = "DOCKET_TEST_RABBITMQ_PROGRAM";
/// Longest wait for what the node is asked about itself.
const ASK_MAX: Duration = Duration::from_secs(30);
/// The delivery mode of what survives a restart.
const PERSISTENT: u8 = 2;

/// A virtual host, and what an operator or another program does in it.
#[derive(Debug)]
pub struct RabbitVhost {
    name: String,
    /// With the virtual host.
    uri: String,
    api: String,
    removed: bool,
}

impl RabbitVhost {
    /// One that nobody else has, on the node that all tests share; removed with everything in it when it is dropped.
    ///
    /// # Panics
    /// When no node is named, or it does not answer.
    #[expect(clippy::new_without_default, reason = "it is another one each time")]
    #[track_caller]
    pub fn new() -> Self {
        let name = format!("t_{}", Uuid::now_v7().simple());
        let (url, api) = (variable(URL), variable(API).trim_end_matches('/').to_owned());
        let made = asked(Method::PUT, format!("{api}/api/vhosts/{name}"), Some(json!({})));
        assert!(made.is_ok(), "no virtual host: {made:?}");
        Self { uri: format!("{}/{name}", url.trim_end_matches('/')), name, api, removed: true }
    }

    /// Its address for a driver.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its name, as it is written in addresses.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address at a proxy before its node.
    pub fn uri_at(&self, proxy: SocketAddr) -> String {
        let (login, _) = self.uri.rsplit_once('@').expect("a user");
        format!("{login}@{proxy}/{}", self.name)
    }

    /// Where its node is.
    ///
    /// # Panics
    /// When the node that tests share is named by anything but an IP address.
    pub fn address(&self) -> SocketAddr {
        let (_, address) = self.uri.rsplit_once('@').expect("a user");
        address.split('/').next().unwrap_or_default().parse().expect("an IP address and a port")
    }

    /// A connection to it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn connect(&self) -> Connection {
        Connection::connect(self.uri(), ConnectionProperties::default()).await.expect("a connection")
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }

    /// The names of its queues, sorted.
    ///
    /// # Panics
    /// When its node does not answer.
    pub async fn queues(&self) -> Vec<String> {
        let queues = self.asked(Method::GET, format!("queues/{}?columns=name", self.name)).await;
        let queues = queues.as_array().expect("queues").iter();
        let mut names: Vec<String> = queues.map(|queue| queue["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    /// What a queue is: its `arguments`, `type`, and by and by `messages_unacknowledged` and the like. None: there is no
    /// such queue.
    ///
    /// # Panics
    /// When its node does not answer.
    pub async fn queue(&self, name: &str) -> Option<Value> {
        let queue = self.asked(Method::GET, format!("queues/{}/{name}", self.name)).await;
        (!queue.is_null()).then_some(queue)
    }

    /// Messages of a queue that nobody has been handed. None: there is no such queue.
    ///
    /// # Panics
    /// When its node does not answer.
    pub async fn waiting(&self, queue: &str) -> Option<u32> {
        let (_connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some(queue.message_count())
    }

    /// Takes everything out of a queue that nobody has been handed; how many.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn purge(&self, queue: &str) -> u32 {
        let (_connection, channel) = self.channel().await;
        channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.expect("a queue")
    }

    /// Deletes a queue, whoever consumes it.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn delete(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    /// Declares a durable queue with these arguments, as somebody else would.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let (_connection, channel) = self.channel().await;
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), table).await.expect("declared");
    }

    /// Binds a queue to an exchange: it gets a copy of every message with such a routing key from now on.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let (_connection, channel) = self.channel().await;
        let (options, table) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, table).await.expect("bound");
    }

    /// Publishes these bodies as persistent messages, in this order, and waits until the node has them. An empty exchange:
    /// into the queue that has the routing key's name.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn publish(&self, exchange: &str, routing_key: &str, bodies: &[Vec<u8>]) {
        let (_connection, channel) = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        for body in bodies {
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties.clone());
            drop(sent.await.expect("published"));
        }
        channel.wait_for_confirms().await.expect("confirmed");
    }

    /// At most `max` messages of a queue, from its head. They stay where they are.
    ///
    /// # Panics
    /// When there is no such queue, or it has a single active consumer: it gives nothing to those who look.
    pub async fn peek(&self, queue: &str, max: usize) -> Vec<(BasicProperties, Vec<u8>)> {
        // Not acknowledged, they go back where they were when the connection ends.
        let (connection, channel) = self.channel().await;
        let mut messages = Vec::new();
        while messages.len() < max {
            let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("a queue");
            let Some(got) = got else { break };
            messages.push((got.delivery.properties, got.delivery.data));
        }
        connection.close(200, "seen".into()).await.expect("closed");
        messages
    }

    async fn asked(&self, method: Method, path: String) -> Value {
        let url = format!("{}/api/{path}", self.api);
        spawn_blocking(move || asked(method, url, None)).await.expect("no panic").expect("an answer")
    }
}

impl Drop for RabbitVhost {
    fn drop(&mut self) {
        if self.removed {
            // What is left over is only rubbish.
            let _ = asked(Method::DELETE, format!("{}/api/vhosts/{}", self.api, self.name), None);
        }
    }
}

/// Asks a node about itself; null when there is no such thing. On a runtime of its own: that of the test may be the one
/// that waits for this.
fn asked(method: Method, url: String, body: Option<Value>) -> Result<Value, String> {
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(ask(method, &url, body)).map_err(|error| error.to_string())
    });
    asking.join().map_err(|_| "a panic".to_owned())?
}

async fn ask(method: Method, url: &str, body: Option<Value>) -> reqwest::Result<Value> {
    let mut request = reqwest::Client::new().request(method, url).timeout(ASK_MAX);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(Value::Null);
    }
    let text = answer.error_for_status()?.text().await?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// A node of a test's own, on ports and a folder that stay the same until it is dropped.
pub struct RabbitServer {
    program: PathBuf,
    ports: Ports,
    folder: TempDir,
    node: Process,
    _mapper: Process,
}

impl RabbitServer {
    /// One with nothing in it. That takes some ten seconds: tests share one where they can.
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn start() -> Self {
        let program = PathBuf::from(variable(PROGRAM));
        let (ports, folder) = (Ports::take().expect("ports"), tempfile::tempdir().expect("a folder"));
        let mapper = Process::spawn(&mut rabbitmq_node::mapper(&program, &ports), &folder);
        let node = start(&program, &ports, &folder).await;
        Self { program, ports, folder, node, _mapper: mapper }
    }

    /// The virtual host that it has.
    pub fn vhost(&self) -> RabbitVhost {
        let name = "%2f".to_owned();
        RabbitVhost { uri: format!("{}/{name}", self.ports.url()), name, api: self.ports.api(), removed: false }
    }

    /// Where it is, past any proxy.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp.number))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts it again after [`kill`](Self::kill), where it was and with what it had on disk.
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn restart(&mut self) {
        self.node.kill();
        self.node = start(&self.program, &self.ports, &self.folder).await;
    }

    /// Its process stands still (SIGSTOP): connections stay and new ones are made, answers do not come.
    pub fn freeze(&self) {
        self.node.freeze();
    }

    /// Its process goes on (SIGCONT).
    pub fn thaw(&self) {
        self.node.signal("CONT");
    }

    /// From now on it says that it is out of memory: it takes nothing from those who publish, and goes on delivering.
    ///
    /// # Panics
    /// When it does not do as it is told.
    pub async fn alarm(&self) {
        self.control(&["set_vm_memory_high_watermark", "0.00001"]).await;
    }

    /// It has memory again.
    ///
    /// # Panics
    /// When it does not do as it is told.
    pub async fn calm(&self) {
        self.control(&["set_vm_memory_high_watermark", "0.6"]).await;
    }

    /// Has it write down which queues it has. By itself it does so some time after they were declared; killed before that
    /// it has them for ever without anybody who leads them, and nothing can be published to them.
    ///
    /// # Panics
    /// When it does not do as it is told.
    pub async fn write_down_queues(&self) {
        self.control(&["eval", "lists:foreach(fun dets:sync/1, dets:all())."]).await;
    }

    async fn control(&self, words: &[&str]) {
        let mut command = Command::new(self.program.with_file_name("rabbitmqctl"));
        rabbitmq_node::in_its_world(&mut command, &self.program, &self.ports, self.folder.path()).expect("a home");
        command.args(words);
        let done = spawn_blocking(move || command.output()).await.expect("no panic").expect("rabbitmqctl");
        assert!(done.status.success(), "{words:?}: {done:?}");
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        said(&self.folder)
    }
}

/// Starts it, and waits until it answers.
async fn start(program: &Path, ports: &Ports, folder: &TempDir) -> Process {
    let mut command = rabbitmq_node::node(program, ports, folder.path()).expect("its configuration");
    let mut process = Process::spawn(&mut command, folder);
    let port = ports.amqp.number;
    let is_ready =
        async || spawn_blocking(move || rabbitmq_node::is_ready(port)).await.expect("no panic").unwrap_or(false);
    process.until("RabbitMQ", folder, is_ready).await;
    process
}
