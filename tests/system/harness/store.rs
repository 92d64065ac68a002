//! What dockets keep their data in and what their events travel by, and what is asked of it past them: whether a promise
//! was kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::commit::Commit;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::{Client, Cursor, Database, bson};
use rusqlite::Connection;
use serde_json::Value;
use servers::{MongoDatabase, MongoServer};

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Files in the data folder.
    Sqlite,
    /// A database on the server that all tests share.
    Mongodb,
}

/// What dockets run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What they keep their data in.
    pub(crate) store: Store,
    /// Whether events travel by RabbitMQ, and mails by SMTP: a virtual host on the node that all tests share, and a mail
    /// server of the setting's own. Else subscribers follow the log, and mails are files.
    pub(crate) servers: bool,
}

impl From<Store> for Setting {
    fn from(store: Store) -> Self {
        Self { store, servers: false }
    }
}

/// Makes tests of scenarios (`async fn name(setting: Setting)`): each on every store, without and with RabbitMQ and SMTP.
macro_rules! in_every_setting {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::harness::Store::Sqlite.into()).await;
            })*
        }
        mod mongodb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::harness::Store::Mongodb.into()).await;
            })*
        }
        mod sqlite_and_rabbitmq {
            $(#[tokio::test]
            async fn $test() {
                let setting = crate::harness::Setting { store: crate::harness::Store::Sqlite, servers: true };
                super::$test(setting).await;
            })*
        }
        mod mongodb_and_rabbitmq {
            $(#[tokio::test]
            async fn $test() {
                let setting = crate::harness::Setting { store: crate::harness::Store::Mongodb, servers: true };
                super::$test(setting).await;
            })*
        }
    };
}
pub(crate) use in_every_setting;

/// Makes tests of scenarios (`async fn name(store: Store)`): each on every store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::harness::Store::Sqlite).await;
            })*
        }
        mod mongodb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::harness::Store::Mongodb).await;
            })*
        }
    };
}
pub(crate) use on_every_store;

/// A mail that the subscriber has recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Recorded {
    pub(crate) order: String,
    pub(crate) version: i64,
    /// Its place among those of the same event.
    pub(crate) index: i64,
    /// What became of it, once that is known.
    pub(crate) outcome: Option<String>,
}

impl Recorded {
    fn read(effect: &Document) -> Self {
        // Written as 32 or 64 bits, as it needs.
        let number = |name| match effect.get(name) {
            Some(Bson::Int32(number)) => i64::from(*number),
            other => other.and_then(Bson::as_i64).expect("a number"),
        };
        let outcome = effect.get_document("outcome").ok();
        Self {
            order: effect.get_str("order").expect("an order").to_owned(),
            version: number("version"),
            index: number("index"),
            outcome: outcome.map(|outcome| outcome.get_str("kind").expect("a kind").to_owned()),
        }
    }
}

/// A copy of all orders.
pub(crate) enum Backup {
    Files(tempfile::TempDir),
    Commits(Vec<Document>),
}

/// The data of one or more dockets.
#[derive(Clone)]
pub(super) enum Stored {
    Files(PathBuf),
    Database {
        uri: String,
        name: String,
        /// Dropped with the last who needs it.
        _own: Option<Arc<MongoDatabase>>,
    },
}

impl Stored {
    pub(super) fn new(store: Store, folder: &Path) -> Self {
        match store {
            Store::Sqlite => Self::Files(folder.join("data")),
            Store::Mongodb => {
                let own = MongoDatabase::new();
                Self::Database { uri: own.uri().to_owned(), name: own.name().to_owned(), _own: Some(Arc::new(own)) }
            }
        }
    }

    pub(super) fn on(server: &MongoServer) -> Self {
        Self::Database { uri: server.uri(), name: "docket".to_owned(), _own: None }
    }

    /// What tells a docket to use it, whatever the environment of the tests says.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        match self {
            Self::Files(_) => vec![setting("MONGODB_URI", "")],
            Self::Database { uri, name, .. } => {
                vec![setting("MONGODB_URI", uri), setting("DOCKET__MONGODB__DATABASE", name)]
            }
        }
    }

    pub(super) async fn database(&self, subscriber: Option<&str>) -> Database {
        let Self::Database { uri, name, .. } = self else { panic!("the store is in files") };
        let name = subscriber.map_or_else(|| name.clone(), |subscriber| format!("{name}_{subscriber}"));
        database(uri, &name).await
    }

    /// Every commit, order by order.
    pub(super) async fn commits(&self) -> Vec<Commit> {
        let bodies: Vec<String> = match self {
            Self::Files(data) => {
                let store = open(data, "orders.db");
                let mut bodies = store.prepare("SELECT body FROM commits ORDER BY key").expect("its commits");
                let bodies = bodies.query_map([], |row| row.get(0)).expect("commits");
                bodies.map(|body| body.expect("a commit")).collect()
            }
            Self::Database { uri, name, .. } => {
                let commits = database(uri, name).await.collection::<Document>("commits");
                let found = commits.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("commits");
                let bodies = all(found).await;
                bodies.iter().map(|commit| commit.get_str("body").expect("its text").to_owned()).collect()
            }
        };
        bodies.iter().map(|body| Commit::decode(body).expect("a commit")).collect()
    }

    /// Every mail that the subscriber `notification` has recorded, in the order of orders and versions.
    pub(super) async fn recorded(&self) -> Vec<Recorded> {
        let mut recorded: Vec<Recorded> = match self {
            Self::Files(data) => {
                let inbox = open(data, "notification.db");
                let mut effects = inbox
                    .prepare("SELECT lower(hex(order_id)), version, position, outcome FROM effects")
                    .expect("its effects");
                let effects = effects.query_map([], |row| {
                    let order: String = row.get(0)?;
                    let order = order.parse::<uuid::Uuid>().expect("an id").to_string();
                    Ok(Recorded { order, version: row.get(1)?, index: row.get(2)?, outcome: row.get(3)? })
                });
                effects.expect("effects").map(|effect| effect.expect("an effect")).collect()
            }
            Self::Database { uri, name, .. } => {
                let effects = database(uri, &format!("{name}_notification")).await.collection::<Document>("effects");
                let effects = all(effects.find(doc! {}).await.expect("effects")).await;
                effects.iter().map(Recorded::read).collect()
            }
        };
        recorded.sort();
        recorded
    }

    /// The documents of a subscriber's collection: of each its id and its text.
    pub(super) async fn documents(&self, subscriber: &str, collection: &str) -> Vec<(String, String)> {
        match self {
            Self::Files(data) => {
                let inbox = open(data, &format!("{subscriber}.db"));
                let mut documents =
                    inbox.prepare("SELECT id, body FROM documents WHERE collection = ?1").expect("its documents");
                let documents = documents.query_map([collection], |row| Ok((row.get(0)?, row.get(1)?)));
                documents.expect("documents").map(|document| document.expect("a document")).collect()
            }
            Self::Database { uri, name, .. } => {
                let documents =
                    database(uri, &format!("{name}_{subscriber}")).await.collection::<Document>("documents");
                let prefix = format!("0/{collection}/");
                let found =
                    documents.find(doc! { "_id": { "$regex": format!("^{prefix}") } }).await.expect("documents");
                let text = |document: &Document, field| document.get_str(field).expect("a text").to_owned();
                let read =
                    |document| (text(document, "_id").trim_start_matches(&prefix).to_owned(), text(document, "body"));
                all(found).await.iter().map(read).collect()
            }
        }
    }

    /// A copy of the orders.
    pub(super) async fn back_up(&self) -> Backup {
        match self {
            Self::Files(data) => {
                let copy = tempfile::tempdir().expect("a folder");
                copy_orders(data, copy.path());
                Backup::Files(copy)
            }
            Self::Database { uri, name, .. } => {
                let commits = database(uri, name).await.collection::<Document>("commits");
                Backup::Commits(all(commits.find(doc! {}).await.expect("commits")).await)
            }
        }
    }

    /// Puts the copy in the place of the orders.
    pub(super) async fn restore(&self, backup: Backup) {
        match (self, backup) {
            (Self::Files(data), Backup::Files(copy)) => {
                for path in orders_in(data) {
                    std::fs::remove_file(path).expect("removed");
                }
                copy_orders(copy.path(), data);
            }
            (Self::Database { uri, name, .. }, Backup::Commits(copy)) => {
                let commits = database(uri, name).await.collection::<Document>("commits");
                commits.drop().await.expect("dropped");
                commits.insert_many(copy).await.expect("inserted");
            }
            (Self::Files(_), Backup::Commits(_)) | (Self::Database { .. }, Backup::Files(_)) => {
                panic!("a backup of another store")
            }
        }
    }

    /// Stores a commit as another build would.
    pub(super) async fn append(&self, commit: &Commit) {
        let (key, id, body) = (commit.key().to_string(), commit.id().0, commit.encoded());
        match self {
            Self::Files(data) => {
                let insert = "INSERT INTO commits (key, id, body) VALUES (?1, ?2, ?3)";
                open(data, "orders.db").execute(insert, (key, id.as_bytes(), body)).expect("an insert");
            }
            Self::Database { uri, name, .. } => {
                let id = Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() };
                let commits = database(uri, name).await.collection::<Document>("commits");
                commits.insert_one(doc! { "_id": key, "id": id, "body": body }).await.expect("an insert");
            }
        }
    }

    /// Damages the data of an order's first event, as a failing disk or a careless hand would.
    pub(super) async fn damage(&self, order: &str) {
        self.rewrite(&format!("{order}:0000000001"), "\"customer_id\"", "\"customer\"").await;
    }

    /// Replaces a text in a commit.
    pub(super) async fn rewrite(&self, key: &str, from: &str, to: &str) {
        let changed = match self {
            Self::Files(data) => {
                let rewrite = "UPDATE commits SET body = replace(body, ?2, ?3) WHERE key = ?1";
                open(data, "orders.db").execute(rewrite, [key, from, to]).expect("an update") as u64
            }
            Self::Database { uri, name, .. } => {
                let commits = database(uri, name).await.collection::<Document>("commits");
                let replaced = doc! { "$replaceAll": { "input": "$body", "find": from, "replacement": to } };
                let damage = vec![doc! { "$set": { "body": replaced } }];
                commits.update_one(doc! { "_id": key }, damage).await.expect("an update").modified_count
            }
        };
        assert_eq!(changed, 1);
    }

    /// Whether nothing is committed behind a subscriber's position.
    pub(super) async fn ends_at(&self, position: &Value) -> bool {
        let Some(token) = position["token"].as_str() else { return false };
        match self {
            Self::Files(data) => {
                let last: Option<i64> = open(data, "orders.db")
                    .query_row("SELECT max(position) FROM commits", [], |row| row.get(0))
                    .expect("its end");
                token == last.unwrap_or_default().to_string()
            }
            Self::Database { uri, name, .. } => {
                let (token, _) = token.split_once(' ').expect("a resume token and its witness");
                let token = bson::deserialize_from_document(doc! { "_data": token }).expect("a resume token");
                let database = database(uri, name).await;
                let behind = database.watch().pipeline([doc! { "$match": { "ns.coll": "commits" } }]);
                // A position that is lost is still shown until a new one is known.
                let behind = behind.resume_after(Some(token)).max_await_time(LOOK);
                let Ok(mut behind) = behind.await else { return false };
                // What the server gives first may be empty though more is there.
                for _ in 0..LOOKS {
                    if !behind.next_if_any().await.is_ok_and(|event| event.is_none()) {
                        return false;
                    }
                }
                true
            }
        }
    }
}

/// How often, and how long each time, the log is asked for what is behind a place before that is the end.
const LOOKS: usize = 3;
const LOOK: Duration = Duration::from_millis(100);

/// The files of the orders there.
fn orders_in(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("orders.db")));
    paths
}

fn copy_orders(from: &Path, to: &Path) {
    for path in orders_in(from) {
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

fn open(data: &Path, file: &str) -> Connection {
    Connection::open(data.join(file)).expect("the file")
}

async fn database(uri: &str, name: &str) -> Database {
    Client::with_uri_str(uri).await.expect("an address").database(name)
}

pub(crate) async fn all(mut found: Cursor<Document>) -> Vec<Document> {
    let mut documents = Vec::new();
    while found.advance().await.expect("an answer") {
        documents.push(found.deserialize_current().expect("a document"));
    }
    documents
}
