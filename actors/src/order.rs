//! Orders: what they are told (`command`), what happened to them (`event`), how the one becomes the other
//! (`aggregate`), what is refused and why (`error`), and the actors that run them (`actor`, `directory`).

mod actor;
mod admission;
pub mod aggregate;
pub mod command;
pub mod directory;
pub mod error;
pub mod event;
#[cfg(test)]
pub(crate) mod given_when_then;
pub mod import;
mod load;
mod shard;
pub mod stream;
mod work;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::randomness;

pub use aggregate::Order;
pub use command::Command;
pub use directory::Orders;
pub use error::{CommandError, ReadError, Refusal};
pub use event::OrderEvent;

/// Which order. A UUID: version 7 when nobody needs to find it again, version 8 when it follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct OrderId(Uuid);

impl OrderId {
    /// A new one, sorted by the time of its making.
    pub fn generate() -> Self {
        Self(randomness::uuid_v7())
    }

    /// The order that `customer_id` creates with `key`: the same words, the same order, on any machine, so that the
    /// store itself refuses a second creation. UUIDv8 from SHA-256 of "create", tenant (empty), customer and key, each
    /// with its length before it.
    pub fn of_creation(customer_id: &str, key: &str) -> Self {
        Self::derived(&["create", "", customer_id, key])
    }

    /// The order that an imported `orderId` names when that is not a UUID itself.
    pub fn of_import(order_id: &str) -> Self {
        order_id.parse().unwrap_or_else(|_| Self::derived(&["import", "", order_id]))
    }

    fn derived(words: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for word in words {
            hash.update((word.len() as u64).to_be_bytes());
            hash.update(word.as_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Uuid::new_v8(bytes))
    }

    /// The UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for OrderId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// How many events an order has, and the number of each: the first event is version 1. 0 means: no event yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Version(pub u32);

impl Version {
    /// Before the first event.
    pub const NONE: Self = Self(0);
    /// Of the first event.
    pub const FIRST: Self = Self(1);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// `events` further on. An order ends long before a version does (`order::command::COMMANDS_MAX`).
    #[must_use]
    pub fn plus(self, events: u32) -> Self {
        Self(self.0.saturating_add(events))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
