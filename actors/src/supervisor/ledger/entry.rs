//! One entry of the ledger: who failed, why, what it was doing, and what followed.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::supervisor::panic::Panic;

/// One failure and what followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Greater than that of every earlier entry of this node, also of earlier runs.
    pub seq: u64,
    /// When it failed.
    pub at: Timestamp,
    /// On which node (process).
    pub node: Arc<str>,
    /// Who: `docket/orders/0/…`.
    pub path: Arc<str>,
    /// What it is: `order`, `journal`, `supervisor`.
    pub kind: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// What it was doing, when it had said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// Which restart this is within the window, or in a row where there is no limit; the first is 1. 0: it does not count
    /// (an operator's).
    pub attempt: u32,
    /// How many restarts are borne within the window. `None`: it is restarted for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// The length of the window.
    pub within_ms: u64,
    /// What follows.
    pub decision: Decided,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
}

/// Why a child failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Its code panicked.
    Panic(Panic),
    /// It said so itself.
    Error {
        /// In its words.
        text: String,
    },
    /// It was handling one message for longer than allowed.
    Stuck {
        /// For how long.
        after_ms: u64,
    },
    /// It stopped without being asked to.
    Stop,
    /// The arbiter it ran on has ended.
    ArbiterGone,
    /// It is a supervisor, and a child of it failed for good.
    Escalated {
        /// Which child, at the end of all supervisors.
        path: Arc<str>,
        /// Why that one failed.
        cause: Box<Cause>,
    },
    /// An operator wanted it.
    Operator,
}

impl Cause {
    /// Its name, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Panic(_) => "panic",
            Self::Error { .. } => "error",
            Self::Stuck { .. } => "stuck",
            Self::Stop => "stop",
            Self::ArbiterGone => "arbiter_gone",
            Self::Escalated { .. } => "escalated",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(panic) => write!(f, "panic at {}: {}", panic.place, panic.text),
            Self::Error { text } => write!(f, "error: {text}"),
            Self::Stuck { after_ms } => write!(f, "stuck: a message was not done after {after_ms} ms"),
            Self::Stop => f.write_str("stopped without being asked to"),
            Self::ArbiterGone => f.write_str("its arbiter has ended"),
            Self::Escalated { path, cause } => write!(f, "{path} failed for good: {cause}"),
            Self::Operator => f.write_str("an operator wanted it"),
        }
    }
}

/// What a child was doing when it failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The message's type: `PayOrder`.
    pub name: String,
    /// Which one: a command id, an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What its caller was told: `504 outcome-unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_told: Option<String>,
}

/// What followed a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// It is started again.
    Restart,
    /// It is left alone for a while.
    Quarantine,
    /// Its supervisor fails.
    Escalate,
    /// It has ended; nobody could reach it any more, or it can never be started again.
    End,
}

impl Decided {
    /// Its name, for counting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Quarantine => "quarantine",
            Self::Escalate => "escalate",
            Self::End => "end",
        }
    }
}
