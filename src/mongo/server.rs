//! A MongoDB deployment and how it is spoken to: pool, concerns, and a deadline for every wait.

use std::time::Duration;

use actors::event_store::StoreError;
use mongodb::options::{
    Acknowledgment, ClientOptions, DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Database};

use super::error::{self, is_unsent};

/// How to reach it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `mongodb://…`. What it says about concerns, read preference and retries is overruled.
    pub uri: String,
    /// Most connections to a member.
    pub pool_max: u32,
    /// How long to look for a primary.
    pub select_within: Duration,
    /// How long to wait for an answer. The driver itself would wait for ever.
    pub answer_within: Duration,
}

/// A deployment. Cheap to clone: all clones share one pool.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
    answer_within: Duration,
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

impl Server {
    /// Reads the address. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub async fn new(settings: &Settings) -> Result<Self, ConnectError> {
        let mut options = ClientOptions::parse(&settings.uri).await.map_err(ConnectError::Uri)?;
        options.app_name = Some("docket".to_owned());
        options.max_pool_size = Some(settings.pool_max);
        // A cold pool made the first hundred operations wait for one another.
        options.min_pool_size = Some(settings.pool_max.min(4));
        options.max_connecting = Some(8);
        options.connect_timeout = Some(settings.select_within);
        options.server_selection_timeout = Some(settings.select_within);
        options.heartbeat_freq = Some(Duration::from_secs(1));
        options.retry_writes = Some(true);
        options.retry_reads = Some(true);
        let client = Client::with_options(options).map_err(ConnectError::Uri)?;
        Ok(Self { client, answer_within: settings.answer_within })
    }

    /// A database, read at its primary and written to a majority's disks.
    pub fn database(&self, name: &str) -> Database {
        let write = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let options = DatabaseOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(write)
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        self.client.database_with_options(name, options)
    }

    /// For sessions, and what concerns the whole deployment.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for an answer, but not for ever. What is given up is dropped: the driver then closes its connection.
    ///
    /// # Errors
    /// Whatever the driver says, as a port's error.
    pub async fn answer<T>(&self, operation: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T, Failed> {
        match tokio::time::timeout(self.answer_within, operation).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_unsent(&error) => Err(Failed::NotDone(error::store_error(&error))),
            Ok(Err(error)) => Err(Failed::Unknown(error::store_error(&error))),
            Err(_) => Err(Failed::Unknown(StoreError::Away(format!(
                "MongoDB did not answer within {} ms",
                self.answer_within.as_millis()
            )))),
        }
    }
}
