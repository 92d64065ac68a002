//! The order service's history from another process, over HTTP: the log, for subscribers that run apart from the orders,
//! and the registry of processes. The other end is `http/history.rs`; what both say is in `wire.rs`.
//!
//! Every wait has a deadline: for the connection, for an answer, and for a sign of life on a stream. Nothing is tried
//! again here: whoever follows a log opens it again from its last position anyway. The key is never shown.

mod client;
mod follow;
mod log;
mod nodes;
pub mod wire;

pub use client::{Client, check_address};
pub use log::{RemoteHistory, RemoteLog};
pub use nodes::RemoteNodes;
