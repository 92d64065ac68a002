//! A database of one's own on the server that all tests share, and a server of one's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use uuid::Uuid;

use crate::mongod::{self, Options};
use crate::port::Port;
use crate::process::{Process, said};
use crate::variable;

/// The server that all tests share.
const URI: &str = "DOCKET_TEST_MONGODB_URI";
/// The program of servers of one's own: `mongod` or `secantusd-rs`.
const PROGRAM: &str = "DOCKET_TEST_MONGODB_PROGRAM";
/// Longest wait for a database to be dropped.
const DROP_MAX: Duration = Duration::from_secs(2);

/// A name on the server that all tests share. The database of that name goes with it, and those whose names begin with
/// it and `_`.
#[derive(Debug)]
pub struct MongoDatabase {
    uri: String,
    name: String,
}

impl MongoDatabase {
    /// One that nobody else has.
    ///
    /// # Panics
    /// When no server is named.
    #[expect(clippy::new_without_default, reason = "it is another one each time")]
    #[track_caller]
    pub fn new() -> Self {
        Self { uri: variable(URI), name: format!("t_{}", Uuid::now_v7().simple()) }
    }

    /// The server.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for MongoDatabase {
    fn drop(&mut self) {
        let (uri, name) = (self.uri.clone(), self.name.clone());
        // A runtime of its own: that of the test may be the one that drops this. What is left over is only rubbish.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drop_databases(&uri, &name)).map_err(std::io::Error::other)
        });
        let _ = dropped.join();
    }
}

async fn drop_databases(uri: &str, name: &str) -> mongodb::error::Result<()> {
    let mut options = ClientOptions::parse(uri).await?;
    options.server_selection_timeout = Some(Duration::from_secs(2));
    let client = Client::with_options(options)?;
    for database in client.list_database_names().await? {
        if database.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
            let database = client.database(&database);
            end_transaction(&database).await?;
            // The server has the request then, and does it some time.
            let _ = timeout(DROP_MAX, database.drop()).await;
        }
    }
    Ok(())
}

/// Ends what a killed process left open: it would keep its documents for a minute, and a server that waits with a drop
/// lets nobody else make a collection. A subscriber's document names the session.
async fn end_transaction(database: &Database) -> mongodb::error::Result<()> {
    let subscriber = database.collection::<Document>("subscriber").find_one(doc! {}).await?;
    if let Some(session) = subscriber.as_ref().and_then(|it| it.get_document("session").ok()) {
        database.run_command(doc! { "killSessions": [session.clone()] }).await?;
    }
    Ok(())
}

/// A server of a test's own, on a port and a folder that stay the same until it is dropped.
pub struct MongoServer {
    program: PathBuf,
    options: Options,
    port: Port,
    folder: TempDir,
    process: Process,
}

impl MongoServer {
    /// A replica set of one node, as the shared one is.
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// No replica set.
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn start_standalone() -> Self {
        Self::start_with(Options { standalone: true, ..Options::default() }).await
    }

    /// One that forgets its oplog but for the last `entries` (a `mongod`: but for the last megabyte).
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn start_with_oplog_of(entries: u32) -> Self {
        Self::start_with(Options { oplog_entries_max: Some(entries), ..Options::default() }).await
    }

    /// One that fails on purpose when it is told to (`configureFailPoint`).
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn start_with_failpoints() -> Self {
        Self::start_with(Options { test_commands: true, ..Options::default() }).await
    }

    async fn start_with(options: Options) -> Self {
        let program = PathBuf::from(variable(PROGRAM));
        let port = Port::take().expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(data(&folder)).expect("a folder for its data");
        let process = start(&program, options, &port, &folder).await;
        Self { program, options, port, folder, process }
    }

    /// Where it is, past any proxy.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number))
    }

    /// Its address for a driver.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`kill`](Self::kill), where it was and with what it had on disk.
    ///
    /// # Panics
    /// When it does not serve after two minutes.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = start(&self.program, self.options, &self.port, &self.folder).await;
    }

    /// Its process stands still (SIGSTOP): connections stay and new ones are made, answers do not come.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Its process goes on (SIGCONT). Some servers then close the connections on which they had waited.
    pub fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Keeps a copy of what it has on disk, and goes on.
    ///
    /// # Panics
    /// When it cannot be copied, or does not serve again after two minutes.
    pub async fn back_up(&mut self) {
        self.kill();
        copy(&data(&self.folder), &self.folder.path().join("copy"));
        self.restart().await;
    }

    /// Goes on with what it had when it was [backed up](Self::back_up): all that was written since is gone.
    ///
    /// # Panics
    /// When there is no copy, or it does not serve again after two minutes.
    pub async fn restore(&mut self) {
        self.kill();
        std::fs::remove_dir_all(data(&self.folder)).expect("its data");
        copy(&self.folder.path().join("copy"), &data(&self.folder));
        self.restart().await;
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        said(&self.folder)
    }
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {} to {}", from.display(), to.display());
}

/// Starts it, and waits until it can be written to.
async fn start(program: &Path, options: Options, port: &Port, folder: &TempDir) -> Process {
    let mut process = Process::spawn(&mut mongod::command(program, port.number, &data(folder), options), folder);
    let number = port.number;
    let is_ready = async || spawn_blocking(move || mongod::is_ready(number)).await.expect("no panic").unwrap_or(false);
    process.until("MongoDB", folder, is_ready).await;
    process
}
