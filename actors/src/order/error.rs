//! Why a command or a read did not get what it asked for. `src/http/error.rs` maps each to a problem, exhaustively.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::money::Amount;
use crate::order::Version;
use crate::order::aggregate::Status;

/// The aggregate's own no: the caller's matter, and certain. Nothing was written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order. 404 `not-found`.
    #[error("there is no such order")]
    NotFound,
    /// The order has no line with that sku. 404 `not-found`.
    #[error("the order has no line with sku {sku}")]
    UnknownSku {
        /// The sku asked for.
        sku: String,
    },
    /// The order's status (or what is left of it) does not allow this command. 409 `not-allowed`.
    #[error("{detail}")]
    NotAllowed {
        /// The order's status.
        status: Status,
        /// The names of the commands that are allowed now.
        allowed: Vec<&'static str>,
        /// The sentence for the caller.
        detail: String,
    },
    /// The sku is there with another price. 409 `price-differs`.
    #[error("the order has sku {sku} at another price")]
    PriceDiffers {
        /// The sku.
        sku: String,
        /// The price it has in the order.
        expected: Amount,
    },
    /// The payment is not the total. 422 `invalid` with `expected`.
    #[error("the amount must be the order's total")]
    AmountDiffers {
        /// The total.
        expected: Amount,
    },
    /// Fields that cannot be right. 422 `invalid` with `errors`.
    #[error("the command has fields that cannot be right")]
    Invalid {
        /// Each with its reason.
        errors: Vec<FieldError>,
    },
    /// The order has taken as many commands as it can. 409 `order-full`.
    #[error("the order has taken as many commands as it can")]
    OrderFull,
}

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// As a caller writes it: `items[0].sku`.
    pub field: String,
    /// What would be right.
    pub reason: String,
}

/// Certainly not done, and worth repeating: 503 with `Retry-After`. The names are those of the problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// More is waiting than the configuration admits.
    Overloaded,
    /// The store cannot be written or read now.
    StoreAway,
    /// Too many conflicts with other writers in a row.
    Contended,
    /// The order's actor failed again and again and is left alone for a while.
    OrderQuarantined,
    /// The order holds an event from a newer docket.
    SchemaAhead,
    /// It waited behind an outcome that nobody knows yet.
    NotDone,
    /// This process does not serve that.
    NotHere,
}

/// Why a command has no answer of success.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The aggregate refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// `If-Match` names another version. 412 `version-mismatch`.
    #[error("the order is at version {current}")]
    VersionMismatch {
        /// The version it has.
        current: Version,
    },
    /// The idempotency key was used for another body. 422 `key-reused`.
    #[error("the idempotency key was used for another command")]
    KeyReused,
    /// The first use of the key is still under way and cannot be waited for. 409 `key-in-progress`.
    #[error("the first command with this idempotency key is still under way")]
    KeyInProgress,
    /// Certainly not done. 503.
    #[error("not done: {why:?}")]
    NotDone {
        /// Why.
        why: NotDone,
        /// When to try again.
        retry_after: Duration,
    },
    /// It may have happened. 504 `outcome-unknown`.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// The command panicked twice. 500 `internal`.
    #[error("the command failed twice")]
    Internal,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// No such order, or no such version, or not yet at that time. 404 `not-found`.
    #[error("there is no such order, or not at that version or time")]
    NotFound,
    /// 503.
    #[error("cannot be read now: {why:?}")]
    NotDone {
        /// Why.
        why: NotDone,
        /// When to try again.
        retry_after: Duration,
    },
    /// The reading panicked twice. 500 `internal`.
    #[error("the read failed twice")]
    Internal,
}

/// Which state of an order is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// The present one.
    Now,
    /// The one after that event.
    Version(Version),
    /// The one that held at that moment.
    Time(Timestamp),
}
