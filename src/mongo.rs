//! The MongoDB adapters: event store, log, snapshots and ledger in the order service's database, each subscriber's inbox
//! in a database of its own (`docket_NAME`). Any number of processes share them.
//!
//! Everything that is acknowledged is on the disks of a majority (`w: "majority", j: true`), and everything that
//! something rests on is read from the primary. This module has what all adapters share; it never decides what is
//! stored.

mod checkpoint;
mod commits;
pub mod copying;
pub mod error;
mod event_store;
pub mod inbox;
pub mod lease;
mod ledger;
mod log;
mod lookup;
pub mod nodes;
pub mod server;
mod snapshots;
pub mod store;
pub mod unusable;
pub mod uri;

pub use checkpoint::MongoCheckpoints;
pub use event_store::{GROUP_BYTES_MAX, GROUP_COMMITS_MAX};
pub use inbox::MongoInbox;
pub use ledger::MongoLedger;
pub use nodes::MongoNodes;
pub use server::{ConnectError, Hello, Server, Unfit};
pub use store::{OpenError, Store};
pub use uri::Uri;
