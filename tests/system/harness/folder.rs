//! Where dockets keep their data, over several starts, and several at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actors::commit::Commit;
use mongodb::Database;
use serde_json::Value;
use servers::{MongoServer, Proxy, RabbitVhost, SmtpServer};
use tempfile::TempDir;

use super::store::{Backup, Recorded, Setting, Stored};
use super::{Docket, Process, eventually};

/// The built program.
const DOCKET: &str = env!("CARGO_BIN_EXE_docket");

/// A folder, a database where the store is one, and what carries events and mails away. On SQLite one docket at a time runs on it.
pub(crate) struct Folder {
    path: PathBuf,
    settings: Vec<(String, String)>,
    stored: Stored,
    carried: Carried,
    temporary: Option<Arc<TempDir>>,
}

/// What carries events and mails away; none: they stay in the process, and in files.
#[derive(Clone, Default)]
struct Carried {
    rabbitmq: Option<Arc<RabbitVhost>>,
    mail: Option<Arc<SmtpServer>>,
}

/// Keeps what a docket runs on for as long as it runs.
pub(super) struct Kept {
    _stored: Stored,
    _carried: Carried,
    _folder: Option<Arc<TempDir>>,
}

impl Folder {
    /// An empty one.
    pub(crate) fn new(setting: impl Into<Setting>) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut folder = Self::at(setting, temporary.path());
        folder.temporary = Some(Arc::new(temporary));
        folder
    }

    /// One that somebody else made and removes.
    pub(crate) fn at(setting: impl Into<Setting>, path: &Path) -> Self {
        let setting = setting.into();
        let folder = Self::of(Stored::new(setting.store, path), path);
        if setting.servers { folder.carried_by(RabbitVhost::new()).mailed_by(SmtpServer::start_now()) } else { folder }
    }

    /// An empty one, with its database on that server.
    pub(crate) fn on(server: &MongoServer) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut folder = Self::of(Stored::on(server), temporary.path());
        folder.temporary = Some(Arc::new(temporary));
        folder
    }

    /// Whatever the environment of the tests says.
    fn of(stored: Stored, path: &Path) -> Self {
        let (settings, carried) = (stored.settings(), Carried::default());
        let folder = Self { path: path.to_owned(), settings, stored, carried, temporary: None };
        folder.set("RABBITMQ_URL", "")
    }

    /// Its dockets' events travel by that virtual host.
    pub(crate) fn carried_by(mut self, rabbitmq: RabbitVhost) -> Self {
        self = self.set("RABBITMQ_URL", rabbitmq.uri());
        self.carried.rabbitmq = Some(Arc::new(rabbitmq));
        self
    }

    /// Its dockets' mails leave by that server.
    pub(crate) fn mailed_by(mut self, mail: SmtpServer) -> Self {
        self = self.set("DOCKET__NOTIFICATION__SMTP_URL", &mail.url());
        self.carried.mail = Some(Arc::new(mail));
        self
    }

    /// What its dockets' events travel by.
    pub(crate) fn rabbitmq(&self) -> &RabbitVhost {
        self.carried.rabbitmq.as_deref().expect("a virtual host")
    }

    /// Its dockets reach the server through that proxy.
    pub(crate) fn through(self, proxy: &Proxy) -> Self {
        self.set("MONGODB_URI", &proxy.uri())
    }

    /// With that environment variable, at every start.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file of the directory in which its dockets work.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file of the data directory.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path.join("data").join(name)
    }

    /// A docket on this folder, once it serves.
    pub(crate) async fn start(&self) -> Docket {
        self.try_start().await.unwrap_or_else(|said| panic!("docket ended before it served:\n{said}"))
    }

    /// As `start`, of a docket that runs only these parts.
    pub(crate) async fn start_only(&self, parts: &str) -> Docket {
        let started = self.try_start_program(Path::new(DOCKET), &["--only", parts]).await;
        started.unwrap_or_else(|said| panic!("docket ended before it served:\n{said}"))
    }

    /// As `start`, of a docket with subscribers of its own: that program of `examples/`.
    pub(crate) async fn start_example(&self, name: &str) -> Docket {
        self.start_example_with(name, &[]).await
    }

    /// As `start_example`, of one that runs only these parts.
    pub(crate) async fn start_example_only(&self, name: &str, parts: &str) -> Docket {
        self.start_example_with(name, &["--only", parts]).await
    }

    /// The same, or what it said when it ended instead.
    pub(crate) async fn try_start_example_only(&self, name: &str, parts: &str) -> Result<Docket, String> {
        self.try_start_program(&example(name), &["--only", parts]).await
    }

    async fn start_example_with(&self, name: &str, arguments: &[&str]) -> Docket {
        let started = self.try_start_program(&example(name), arguments).await;
        started.unwrap_or_else(|said| panic!("{name} ended before it served:\n{said}"))
    }

    /// A docket on this folder once it serves, or what it said when it ended instead.
    pub(crate) async fn try_start(&self) -> Result<Docket, String> {
        self.try_start_program(Path::new(DOCKET), &[]).await
    }

    async fn try_start_program(&self, program: &Path, arguments: &[&str]) -> Result<Docket, String> {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let output = || Stdio::from(File::options().append(true).open(log.path()).expect("the log"));
        let child =
            self.command_of(program, arguments).stdout(output()).stderr(output()).spawn().expect("the built docket");
        let mut process = Process(child);
        let said = || std::fs::read_to_string(log.path()).expect("the log");
        let (http, ops) = loop {
            if let Some(addresses) = addresses(&said()) {
                break addresses;
            }
            if process.0.try_wait().expect("a child").is_some() {
                return Err(said());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let kept =
            Kept { _stored: self.stored.clone(), _carried: self.carried.clone(), _folder: self.temporary.clone() };
        Ok(Docket::new(process, (http, ops), log, kept))
    }

    /// The program with this folder's settings, for whatever else than serving it can do.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(DOCKET), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .env("DOCKET__HTTP__BIND", "127.0.0.1:0")
            .env("DOCKET__OPS__BIND", "127.0.0.1:0")
            .env("DOCKET__LOG__FORMAT", "json")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Waits until every subscriber has handled all that is stored, and done what follows from it, each in one of these
    /// dockets: all that run on this folder.
    pub(crate) async fn settled(&self, dockets: &[&Docket]) {
        eventually("the subscribers have handled everything", async || {
            let mut active = Vec::new();
            let mut names = Vec::new();
            for docket in dockets {
                for subscriber in docket.subscribers().await {
                    names.push(subscriber["name"].to_string());
                    if subscriber["state"] == "running" {
                        active.push(subscriber);
                    }
                }
            }
            names.sort();
            names.dedup();
            // Whoever is not active in exactly one has not begun, or is handed over.
            active.len() == names.len() && self.all_are_settled(&active).await
        })
        .await;
    }

    async fn all_are_settled(&self, subscribers: &[Value]) -> bool {
        for subscriber in subscribers {
            let at_rest = subscriber["behind"] == 0 && subscriber["effects_waiting"] == 0;
            if !at_rest || !self.stored.ends_at(&subscriber["position"]).await {
                return false;
            }
        }
        true
    }

    /// Every commit in the store, order by order.
    pub(crate) async fn commits(&self) -> Vec<Commit> {
        self.stored.commits().await
    }

    /// Every mail that was recorded, in the order of orders and versions.
    pub(crate) async fn recorded(&self) -> Vec<Recorded> {
        self.stored.recorded().await
    }

    /// The mails that were written, or that the mail server has, each as its text. The latter may have one twice: when a
    /// docket was killed before it knew that it was sent.
    pub(crate) fn mails(&self) -> Vec<String> {
        if let Some(mail) = &self.carried.mail {
            return mail.mails().into_iter().map(|mail| mail.text).collect();
        }
        let Ok(entries) = std::fs::read_dir(self.data("mail")) else { return Vec::new() };
        let files = entries.map(|entry| entry.expect("an entry").path());
        let mails = files.filter(|path| path.extension().is_some_and(|it| it == "eml"));
        mails.map(|path| std::fs::read_to_string(path).expect("a mail")).collect()
    }

    /// The database of the orders, or of a subscriber. Only where the store is MongoDB.
    pub(crate) async fn database(&self, subscriber: Option<&str>) -> Database {
        self.stored.database(subscriber).await
    }

    /// The documents of a subscriber's collection: of each its id and its text.
    pub(crate) async fn documents(&self, subscriber: &str, collection: &str) -> Vec<(String, String)> {
        self.stored.documents(subscriber, collection).await
    }

    /// A copy of the orders as they are stored, while no docket runs on them.
    pub(crate) async fn back_up(&self) -> Backup {
        self.stored.back_up().await
    }

    /// Puts the copy in the place of what is stored, while no docket runs on it.
    pub(crate) async fn restore(&self, backup: Backup) {
        self.stored.restore(backup).await;
    }

    /// Stores a commit as another build would, past every docket. On SQLite none may run on it.
    pub(crate) async fn append(&self, commit: &Commit) {
        self.stored.append(commit).await;
    }

    /// Replaces a text that a commit holds once, while no docket runs on it.
    pub(crate) async fn rewrite(&self, commit: &Commit, from: &str, to: &str) {
        assert_eq!(commit.encoded().matches(from).count(), 1, "{from} in {}", commit.encoded());
        self.stored.rewrite(&commit.key().to_string(), from, to).await;
    }

    /// Damages the data of an order's first event in the store, as a failing disk or a careless hand would.
    pub(crate) async fn damage(&self, order: &str) {
        self.stored.damage(order).await;
    }
}

/// A program of `examples/`.
fn example(name: &str) -> PathBuf {
    let program = Path::new(DOCKET).with_file_name("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo build --examples`", program.display());
    program
}

/// The two addresses, from the start-up line that names them.
fn addresses(said: &str) -> Option<(String, String)> {
    let line = said.lines().find(|line| line.contains("\"http.address\""))?;
    let line: Value = serde_json::from_str(line).ok()?;
    Some((format!("http://{}", line["http.address"].as_str()?), format!("http://{}", line["ops.address"].as_str()?)))
}
