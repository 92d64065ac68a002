//! On MongoDB: any number of processes on one replica set.
//!
//! At the start a deployment that is away is waited for; one that would never do ends the start with the sentence that
//! says what to do. A store that was replaced under a running process ends that process: what it knows is of another log.

use std::sync::Arc;
use std::time::Duration;

use actors::checkpoint::Checkpoints;
use actors::inbox::{Inbox, InboxError};
use actors::nodes::Nodes;
use actors::supervisor::{Child, Failure, Handle, Intensity, LedgerStore, Node, Policy};
use async_trait::async_trait;
use futures_util::FutureExt;
use mongodb::bson::doc;
use tokio::time::Instant;

use super::StartError;
use super::only::ORDERS;
use super::storage::{OrderStore, Ports, Storage};
use crate::config;
use crate::mongo::inbox::subscriber_database;
use crate::mongo::unusable::{Unusable, answered, unusable};
use crate::mongo::{
    ConnectError, Hello, MongoCheckpoints, MongoInbox, MongoLedger, MongoNodes, OpenError, Server, Store, Uri,
};

/// How long to wait before a deployment that is away is tried again.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is said that it is away.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// A deployment.
pub(super) struct Mongodb {
    uri: Uri,
    database: String,
    server: Server,
    hello: Hello,
    holder: String,
}

/// The order service's database in it.
struct MongodbOrders {
    server: Server,
    database: String,
    holder: String,
    store: Store,
}

impl Mongodb {
    /// Waits until the deployment answers. `holder` is the name in which leases are held. Dropping the future ends the
    /// wait. No database is opened yet.
    pub(super) async fn reach(config: &config::Mongodb, holder: &str) -> Result<Self, StartError> {
        patiently(&config.uri, async || Self::try_reach(config, holder).await).await
    }

    async fn try_reach(config: &config::Mongodb, holder: &str) -> Result<Self, Unopened> {
        let settings = config.settings();
        let server = Server::new(&settings).await?;
        // What an operation of a port says no more: whether somebody refuses us, or nobody answers.
        answered(settings.answer_within, server.database("admin").run_command(doc! { "ping": 1 })).await?;
        let hello = server.hello().await.map_err(|error| Unopened::Away(error.to_string()))?;
        if let Some(unfit) = hello.unfit() {
            return Err(OpenError::Unfit(unfit).into());
        }
        let (uri, database) = (config.uri.clone(), config.database.clone());
        Ok(Self { uri, database, server, hello, holder: holder.to_owned() })
    }

    async fn try_orders(&self) -> Result<Store, Unopened> {
        let database = self.server.database(&self.database);
        answered(self.server.answer_within(), database.list_collection_names()).await?;
        Ok(Store::open(&self.server, &self.database).await?)
    }

    async fn try_inbox(&self, name: &str, lease: Duration) -> Result<MongoInbox, Unopened> {
        let database = self.server.database(&subscriber_database(&self.database, name));
        answered(self.server.answer_within(), database.list_collection_names()).await?;
        Ok(MongoInbox::open(&self.server, &self.database, name, &self.holder, lease).await?)
    }
}

/// Tries to open something until it is open or never will be, and says every few seconds what it waits for.
async fn patiently<T>(uri: &Uri, mut open: impl AsyncFnMut() -> Result<T, Unopened>) -> Result<T, StartError> {
    let mut said: Option<Instant> = None;
    loop {
        let why = match open().await {
            Ok(opened) => return Ok(opened),
            Err(Unopened::Refused(error)) => return Err(error),
            Err(Unopened::Away(why)) => why,
        };
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            tracing::warn!("waiting for {uri}, which cannot be used now: {why}");
            said = Some(Instant::now());
        }
        tokio::time::sleep(TRIED_AGAIN_AFTER).await;
    }
}

#[async_trait(?Send)]
impl Storage for Mongodb {
    async fn orders(&self) -> Result<Arc<dyn OrderStore>, StartError> {
        let store = patiently(&self.uri, async || self.try_orders().await).await?;
        let (server, database, holder) = (self.server.clone(), self.database.clone(), self.holder.clone());
        Ok(Arc::new(MongodbOrders { server, database, holder, store }))
    }

    async fn inbox(&self, name: &'static str, lease: Duration) -> Result<Arc<dyn Inbox>, StartError> {
        Ok(Arc::new(patiently(&self.uri, async || self.try_inbox(name, lease).await).await?))
    }

    fn ledger(&self, part: &str) -> Arc<dyn LedgerStore> {
        let database = match part {
            ORDERS => self.database.clone(),
            subscriber => subscriber_database(&self.database, subscriber),
        };
        Arc::new(MongoLedger::new(&self.server, &database))
    }

    fn away(&self) -> Option<String> {
        self.server.away()
    }

    fn said(&self, orders: bool) -> String {
        let (version, set) = (&self.hello.version, self.hello.set_name.as_deref());
        let set = set.map_or_else(|| "sharded".to_owned(), |name| format!("replica set {name}"));
        let database = match orders {
            true => format!("database {}", self.database),
            false => format!("databases {}", subscriber_database(&self.database, "NAME")),
        };
        format!(
            "MongoDB at {}, {database}, {set}, server {version}; on the disks of a majority at each commit",
            self.uri
        )
    }

    async fn close(&self) {}
}

#[async_trait(?Send)]
impl OrderStore for MongodbOrders {
    fn ports(&self) -> Ports {
        Ports::of(self.store.clone())
    }

    fn checkpoints(&self, lease: Duration) -> Arc<dyn Checkpoints> {
        Arc::new(MongoCheckpoints::new(&self.server, &self.database, &self.holder, lease))
    }

    fn nodes(&self) -> Arc<dyn Nodes> {
        Arc::new(MongoNodes::new(&self.server, &self.database))
    }

    /// The driver looks after its connections itself. What it cannot see is that the store is another one: then the
    /// process ends at once, for every further write would continue what is not there.
    fn child(&self) -> Child {
        let store = self.store.clone();
        let child = Child::task("store", "store", move |_: &Node| {
            move |handle: &Handle| {
                let (store, handle) = (store.clone(), handle.clone());
                async move {
                    tokio::select! {
                        said = store.replaced() => Err(Failure::error(said)),
                        () = handle.stop_requested() => Ok(()),
                    }
                }
                .boxed_local()
            }
        });
        child.policy(Policy { intensity: Intensity::NONE, ..Policy::default() })
    }

    async fn close(&self) {}
}

/// Why the databases are not open.
enum Unopened {
    /// It may be better later.
    Away(String),
    /// It will not.
    Refused(StartError),
}

impl From<Unusable> for Unopened {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Away(why) => Self::Away(why),
            Unusable::Refused(why) => Self::Refused(StartError::Mongodb(format!("mongodb.uri: {why}"))),
        }
    }
}

impl From<ConnectError> for Unopened {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Uri(error) => unusable(&error).into(),
        }
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Away(error) => Self::Away(error.to_string()),
            error @ (OpenError::Unfit(_) | OpenError::Foreign { .. } | OpenError::Incomplete { .. }) => {
                Self::Refused(StartError::Mongodb(error.to_string()))
            }
        }
    }
}

impl From<InboxError> for Unopened {
    fn from(error: InboxError) -> Self {
        match error {
            error @ (InboxError::Away(_) | InboxError::Full(_) | InboxError::Unknown(_) | InboxError::Held { .. }) => {
                Self::Away(error.to_string())
            }
            error @ InboxError::Damaged(_) => Self::Refused(error.into()),
        }
    }
}
