//! Supervision of everything: what fails is started again with its state rebuilt, after a backoff; what keeps failing
//! is quarantined alone or ends the process with its reason; all of it is data.

pub mod child;
pub mod ledger;
pub mod panic;
pub mod policy;
pub mod tree;

pub use child::{ChildSpec, Event, Failure, Handle};
pub use ledger::{Ledger, LedgerStore};
pub use policy::{Importance, Policy, Strategy};
pub use tree::Node;
