//! A MongoDB deployment and how it is spoken to: pool, concerns, and a deadline for every wait. It never decides what an
//! unclear answer is taken for; it says what is known.
//!
//! Connections are few, and whoever finds none waits behind all who came before. So what callers can ask for in any
//! number takes turns ([`Server::answer_in_turn`]), and never has more than half of the pool. What uses the rest bounds
//! itself: the journal, looks at the store, leases, subscribers, the change stream. A pool of their own for these would
//! do the same for the price of a second set of monitors, and of a second view of which member is the primary.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::event_store::StoreError;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{
    Acknowledgment, ClientOptions, DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Database};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::error::{self, is_certainly_not_done};
use super::uri::Uri;

/// How to reach it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `mongodb://…`. What it says about concerns, read preference and retries is overruled.
    pub uri: Uri,
    /// Most connections to a member.
    pub pool_max: u32,
    /// How long to look for a primary. Who asks while there has been none for that long is refused at once.
    pub select_within: Duration,
    /// How long to wait for an answer. The driver itself would wait for ever.
    pub answer_within: Duration,
    /// How long the log may be without an event; then one is written. What is saved of the log is a place in the
    /// server's oplog, which others fill too, and must be newer than what that holds.
    pub quiet_max: Duration,
}

/// Far less than any oplog in use holds, and hardly a write.
const QUIET_MAX: Duration = Duration::from_secs(10 * 60);

impl Settings {
    /// With the defaults of the configuration. When there is no primary a caller is to be told within a second.
    pub fn new(uri: &str) -> Self {
        Self {
            uri: Uri::new(uri),
            pool_max: 32,
            select_within: Duration::from_secs(1),
            answer_within: Duration::from_secs(3),
            quiet_max: QUIET_MAX,
        }
    }
}

/// A deployment. Cheap to clone: all clones share one pool.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
    answer_within: Duration,
    quiet_max: Duration,
    primary: Arc<Primary>,
    turns: Arc<Semaphore>,
}

/// Why there is nothing to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be read.
    #[error("mongodb.uri: {0}")]
    Uri(mongodb::error::Error),
}

/// Why an operation has no answer that counts.
#[derive(Clone, Debug)]
pub enum Failed {
    /// It was certainly not done.
    NotDone(StoreError),
    /// It may have been done, or may be done later.
    Unknown(StoreError),
}

impl Failed {
    /// The error, for those to whom both are the same: reads.
    pub fn into_error(self) -> StoreError {
        match self {
            Self::NotDone(error) | Self::Unknown(error) => error,
        }
    }
}

/// What a deployment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The replica set's name.
    pub set_name: Option<String>,
    /// Whether it is a sharded cluster's router.
    pub router: bool,
    /// The server's version: `7.0.14`.
    pub version: String,
    /// The newest wire protocol that it speaks.
    pub wire_version: i32,
    /// Its clock.
    pub local_time: DateTime,
    /// The primary, as the set names it.
    pub primary: Option<String>,
}

/// Why docket does not run on a deployment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has neither transactions nor change streams.
    #[error(
        "MongoDB is a standalone server, which has neither transactions nor change streams. Make it a replica set, of one \
         node if you like: start mongod with --replSet rs0 (in mongod.conf: replication.replSetName: rs0) and then, once, \
         run: mongosh --eval 'rs.initiate()'"
    )]
    Standalone,
    /// It lacks what docket needs.
    #[error("MongoDB is {version}; docket needs {OLDEST} or newer")]
    TooOld {
        /// Its version.
        version: String,
    },
}

/// The oldest version that will do: with `$dateAdd` in updates.
pub const OLDEST: &str = "5.0";
/// The newest wire protocol of [`OLDEST`].
const OLDEST_WIRE_VERSION: i32 = 13;

impl Hello {
    /// Why docket cannot run on it, when it cannot.
    pub fn unfit(&self) -> Option<Unfit> {
        if self.set_name.is_none() && !self.router {
            return Some(Unfit::Standalone);
        }
        (self.wire_version < OLDEST_WIRE_VERSION).then(|| Unfit::TooOld { version: self.version.clone() })
    }

    fn read(hello: &Document, build: &Document) -> Self {
        let text = |name: &str| hello.get_str(name).ok().map(str::to_owned);
        Self {
            set_name: text("setName"),
            router: hello.get_str("msg").is_ok_and(|said| said == "isdbgrid"),
            version: build.get_str("version").unwrap_or("of an unknown version").to_owned(),
            wire_version: hello.get_i32("maxWireVersion").unwrap_or(0),
            local_time: hello.get_datetime("localTime").copied().unwrap_or(DateTime::MIN),
            primary: text("primary"),
        }
    }
}

impl Server {
    /// Reads the address. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub async fn new(settings: &Settings) -> Result<Self, ConnectError> {
        let mut options = ClientOptions::parse(settings.uri.expose()).await.map_err(ConnectError::Uri)?;
        let primary = Arc::new(Primary::looked_for(settings.select_within));
        options.app_name.get_or_insert_with(|| "docket".to_owned());
        options.max_pool_size = Some(settings.pool_max);
        // A cold pool made the first hundred operations wait for one another.
        options.min_pool_size = Some(settings.pool_max.min(4));
        options.max_connecting = Some(8);
        options.connect_timeout = Some(settings.select_within);
        options.server_selection_timeout = Some(settings.select_within);
        // The shortest there is: a primary that was taken for lost is found again before anybody gives up on it.
        options.heartbeat_freq = Some(Duration::from_millis(500));
        options.retry_writes = Some(true);
        options.retry_reads = Some(true);
        options.sdam_event_handler = Some(primary.watcher());
        let client = Client::with_options(options).map_err(ConnectError::Uri)?;
        let turns = Arc::new(Semaphore::new((settings.pool_max as usize / 2).max(1)));
        let Settings { answer_within, quiet_max, .. } = *settings;
        Ok(Self { client, answer_within, quiet_max, primary, turns })
    }

    /// A database, read at its primary and written to a majority's disks.
    pub fn database(&self, name: &str) -> Database {
        let options = DatabaseOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(self.durable())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        self.client.database_with_options(name, options)
    }

    /// On a majority's disks. A majority that lags makes the server say so in the end, with an error of its own; without
    /// that it would keep a write that nobody waits for any more, and its connection, until the majority is back.
    pub fn durable(&self) -> WriteConcern {
        WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(self.answer_within).build()
    }

    /// For sessions, and what concerns the whole deployment.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long [`Server::answer`] waits.
    pub fn answer_within(&self) -> Duration {
        self.answer_within
    }

    /// How long the log may be without an event.
    pub(super) fn quiet_max(&self) -> Duration {
        self.quiet_max
    }

    /// What it says of itself, at its primary. Whether that will do: [`Hello::unfit`].
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn hello(&self) -> Result<Hello, StoreError> {
        let admin = self.database("admin");
        let both = async {
            let hello = admin.run_command(doc! { "hello": 1 }).await?;
            let build = admin.run_command(doc! { "buildInfo": 1 }).await?;
            Ok(Hello::read(&hello, &build))
        };
        self.answer(both).await.map_err(Failed::into_error)
    }

    /// Why nothing is sent now, when the driver's monitors have not seen a primary for too long.
    pub fn away(&self) -> Option<String> {
        let missing_for = self.primary.missing_for()?;
        Some(format!("MongoDB has had no primary for {} s", missing_for.as_secs()))
    }

    /// Waits for an answer, but not for ever. What is given up is dropped: the driver then closes its connection. While
    /// it is known that there is no primary, nothing is sent. For one operation: what is said of several is true of the
    /// last of them only.
    ///
    /// # Errors
    /// Whatever the driver says, as a port's error.
    pub async fn answer<T>(&self, operation: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T, Failed> {
        if let Some(why) = self.away() {
            return Err(Failed::NotDone(StoreError::Away(why)));
        }
        match timeout(self.answer_within, operation).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_certainly_not_done(&error) => Err(Failed::NotDone(error::store_error(&error))),
            Ok(Err(error)) => Err(Failed::Unknown(error::store_error(&error))),
            Err(_) => Err(Failed::Unknown(StoreError::Away(format!(
                "MongoDB did not answer within {} ms",
                self.answer_within.as_millis()
            )))),
        }
    }

    /// As [`Server::answer`], for what callers can ask for in any number. Waits for its turn first, no longer than for an
    /// answer; without a turn nothing was sent.
    ///
    /// # Errors
    /// Whatever the driver says, as a port's error.
    pub async fn answer_in_turn<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, Failed> {
        let Ok(Ok(_turn)) = timeout(self.answer_within, self.turns.acquire()).await else {
            return Err(Failed::NotDone(StoreError::Away("too many wait to read from MongoDB".to_owned())));
        };
        self.answer(operation).await
    }
}

/// Whether there is a primary, as the driver's monitors see it. Without this everybody who asks would look for one as
/// long as the driver may, again and again.
#[derive(Debug)]
struct Primary {
    missing_since: Mutex<Option<Instant>>,
    looked_for: Duration,
}

impl Primary {
    /// Nothing is known yet: it is looked for from now on.
    fn looked_for(looked_for: Duration) -> Self {
        Self { missing_since: Mutex::new(Some(Instant::now())), looked_for }
    }

    fn watcher(self: &Arc<Self>) -> EventHandler<SdamEvent> {
        let primary = Arc::clone(self);
        EventHandler::callback(move |event| {
            if let SdamEvent::TopologyDescriptionChanged(change) = event {
                primary.set(change.new_description.has_writable_server());
            }
        })
    }

    fn set(&self, there: bool) {
        let mut since = self.since();
        *since = if there { None } else { since.or_else(|| Some(Instant::now())) };
    }

    /// For how long it is missing, when that is so long that nobody need look for it.
    fn missing_for(&self) -> Option<Duration> {
        let since = *self.since();
        since.map(|since| since.elapsed()).filter(|missing| *missing > self.looked_for)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.missing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_for_a_primary_that_has_been_missing_for_long_enough() {
        let primary = Primary::looked_for(Duration::from_secs(1));
        let pass = |millis| tokio::time::advance(Duration::from_millis(millis));
        assert_eq!(primary.missing_for(), None);
        pass(1_100).await;
        assert_eq!(primary.missing_for(), Some(Duration::from_millis(1_100)));
        primary.set(true);
        pass(5_000).await;
        assert_eq!(primary.missing_for(), None);
        primary.set(false);
        pass(600).await;
        assert_eq!(primary.missing_for(), None);
        // Seen to be missing once more: it counts from the first time.
        primary.set(false);
        pass(600).await;
        assert_eq!(primary.missing_for(), Some(Duration::from_millis(1_200)));
    }

    #[tokio::test]
    async fn a_majority_that_lags_holds_no_write_for_ever() {
        let settings = Settings::new("mongodb://127.0.0.1:9");
        let server = Server::new(&settings).await.expect("an address");
        let concern = server.database("docket").write_concern().cloned().expect("a write concern");
        assert_eq!(concern.w_timeout, Some(settings.answer_within));
        assert_eq!((concern.w, concern.journal), (Some(Acknowledgment::Majority), Some(true)));
    }

    #[test]
    fn only_a_replica_set_that_is_new_enough_will_do() {
        let unfit = |hello: Document| Hello::read(&hello, &doc! { "version": "4.4.29" }).unfit();
        assert_eq!(unfit(doc! { "maxWireVersion": 21 }), Some(Unfit::Standalone));
        assert_eq!(unfit(doc! { "maxWireVersion": 21, "setName": "rs0" }), None);
        assert_eq!(unfit(doc! { "maxWireVersion": 21, "msg": "isdbgrid" }), None);
        let old = unfit(doc! { "maxWireVersion": 9, "setName": "rs0" }).expect("too old");
        assert_eq!(old.to_string(), "MongoDB is 4.4.29; docket needs 5.0 or newer");
    }
}
