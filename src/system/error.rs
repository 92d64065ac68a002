//! Why a docket does not start.

use std::io;

use actors::inbox::InboxError;

use crate::mail;
use crate::sqlite::{DirectoryError, OpenError};

/// Why a docket does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used, or another docket uses it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The deployment at `mongodb.uri` would never do.
    #[error("{0}")]
    Mongodb(String),
    /// A subscriber's store cannot be opened.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// Mails can be neither sent nor written.
    #[error(transparent)]
    Mail(#[from] mail::OpenError),
    /// There is no such part.
    #[error("--only {name}: there is no such part; there are {known}")]
    UnknownPart {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The configuration has a section for a subscriber that does not exist.
    #[error("subscribers.{name}: there is no such subscriber; there are {known}")]
    UnknownSubscriber {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// Without the orders, nobody says what happened to them.
    #[error(
        "--only without orders: history.url must say where the operators' address of the order service is, such as \
         http://orders:8081, for subscribers read there what happened; or name orders as well"
    )]
    WithoutHistory,
    /// The order service cannot be where the configuration says.
    #[error("{0}")]
    History(String),
    /// An address cannot be bound.
    #[error(transparent)]
    Address(#[from] io::Error),
}

impl StartError {
    /// Whether another command line would help, not another machine.
    pub fn is_wrong_command(&self) -> bool {
        matches!(
            self,
            Self::UnknownPart { .. } | Self::UnknownSubscriber { .. } | Self::WithoutHistory | Self::History(_)
        )
    }
}
