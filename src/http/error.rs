//! Which problem each error of the orders and of the log is: the only place that decides it, without a wildcard.

use std::time::Duration;

use actix_web::http::header;
use actors::event_store::StoreError;
use actors::inbox::InboxError;
use actors::log::LogError;
use actors::order::Version;
use actors::order::error::{CommandError, FieldError, NotDone, ReadError, Refusal};
use actors::subscriber::letters::{LetterError, Refused};

use super::headers::etag;
use super::problem::{self, Kind, Problem};

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::VersionMismatch { current: Version::NONE } => {
                Self::new(problem::VERSION_MISMATCH, "A new order has no version yet: leave If-Match out.")
            }
            CommandError::VersionMismatch { current } => {
                Self::new(problem::VERSION_MISMATCH, format!("The order is at version {current}."))
                    .expected(current.0)
                    .header(header::ETAG, etag(current))
            }
            CommandError::KeyReused => {
                Self::new(problem::KEY_REUSED, "The Idempotency-Key was used for another command.")
            }
            CommandError::KeyInProgress => Self::new(
                problem::KEY_IN_PROGRESS,
                "The first command with this Idempotency-Key is still under way. Repeat after a moment.",
            ),
            CommandError::NotDone { why, retry_after } => not_done(why).retry_after(retry_after),
            CommandError::OutcomeUnknown => outcome_unknown(),
            CommandError::Internal => Self::internal(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => no_such_order(),
            Refusal::UnknownSku { sku } => Self::not_found(format!("The order has no line with sku {sku}.")),
            Refusal::NotAllowed { status: _, allowed, detail } => {
                Self::new(problem::NOT_ALLOWED, sentence(detail)).allowed(allowed)
            }
            Refusal::PriceDiffers { sku, expected } => {
                Self::new(problem::PRICE_DIFFERS, format!("The order has sku {sku} at another price."))
                    .expected(expected.minor_units())
            }
            Refusal::AmountDiffers { expected } => {
                let total = expected.minor_units();
                Self::new(problem::INVALID, format!("The amount must be the order's total, {total}."))
                    .expected(total)
                    .errors(vec![FieldError { field: "amount".to_owned(), reason: format!("must be {total}") }])
            }
            Refusal::Invalid { errors } => invalid(errors),
            Refusal::OrderFull => Self::new(problem::ORDER_FULL, "The order has taken as many commands as it can."),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::not_found("There is no such order, or not at that version or time."),
            ReadError::NotDone { why, retry_after } => not_done(why).retry_after(retry_after),
            ReadError::Internal => Self::internal(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(_) | StoreError::Full(_) => not_done(NotDone::StoreAway).retry_after(STORE_RETRY),
            StoreError::Damaged(_) => Self::internal(),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NoPosition(_) => Self::new(problem::NO_POSITION, problem::NO_POSITION.meaning),
            LogError::Store(error) => error.into(),
        }
    }
}

impl From<LetterError> for Problem {
    fn from(error: LetterError) -> Self {
        match error {
            LetterError::Refused(Refused::NotHeld(id)) => {
                Self::new(problem::LETTER_CHANGED, format!("{id} is not held: it was handled, or discarded."))
            }
            LetterError::Refused(Refused::AnotherHeld(id, now)) => {
                Self::new(problem::LETTER_CHANGED, format!("{id} is not held any more, {now} is."))
                    .expected(now.to_string())
            }
            LetterError::Refused(Refused::UnderWay(id)) => {
                Self::new(problem::LETTER_BUSY, format!("{id} is being handled now: look again in a moment."))
            }
            LetterError::Unknown(order) => Self::not_found(format!("The subscriber has never met an order {order}.")),
            LetterError::Store(error) => error.into(),
            LetterError::Log(error) => error.into(),
            LetterError::Contended => not_done(NotDone::Contended).retry_after(STORE_RETRY),
            LetterError::CountDiffers { present } => {
                Self::new(problem::COUNT_DIFFERS, format!("There are {present} of them now. Nothing was retried."))
                    .expected(present)
            }
            LetterError::TooManyHeld => {
                Self::new(problem::TOO_MANY_HELD, problem::TOO_MANY_HELD.meaning).retry_after(STORE_RETRY)
            }
            LetterError::TooMany { most } => {
                let reason = format!("must be at most {most}: retry them in parts, or with a greater per_second");
                invalid(vec![FieldError { field: "count".to_owned(), reason }])
            }
        }
    }
}

impl From<InboxError> for Problem {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Away(_) | InboxError::Full(_) | InboxError::Held { .. } => store_away(),
            InboxError::Unknown(_) => letter_outcome_unknown(),
            InboxError::Damaged(_) => Self::internal(),
        }
    }
}

/// When a store that is away is worth asking again.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(2);

/// These fields can be read, and cannot be right.
pub(super) fn invalid(errors: Vec<FieldError>) -> Problem {
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    Problem::new(problem::INVALID, format!("These fields cannot be right: {}.", fields.join(", "))).errors(errors)
}

/// The orders' own words, as the other details are written.
fn sentence(words: impl Into<String>) -> String {
    let mut words: String = words.into();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !words.ends_with('.') {
        words.push('.');
    }
    words
}

/// A store cannot be reached; certainly not done.
pub(super) fn store_away() -> Problem {
    not_done(NotDone::StoreAway).retry_after(STORE_RETRY)
}

/// What an operator wanted may have happened.
pub(super) fn letter_outcome_unknown() -> Problem {
    Problem::new(
        problem::OUTCOME_UNKNOWN,
        "No definite answer came in time: it may have happened. Look at the dead letter before you repeat it.",
    )
}

/// It may have happened.
pub(super) fn outcome_unknown() -> Problem {
    Problem::new(
        problem::OUTCOME_UNKNOWN,
        "No definite answer came in time: it may have happened. Repeat with the same Idempotency-Key.",
    )
}

/// No order has that id.
pub(super) fn no_such_order() -> Problem {
    Problem::not_found("There is no such order.")
}

/// Certainly not done.
pub(super) fn not_done(why: NotDone) -> Problem {
    let kind: &'static Kind = match why {
        NotDone::Overloaded => problem::OVERLOADED,
        NotDone::StoreAway => problem::STORE_AWAY,
        NotDone::Contended => problem::CONTENDED,
        NotDone::OrderQuarantined => problem::ORDER_QUARANTINED,
        NotDone::SchemaAhead => problem::SCHEMA_AHEAD,
        NotDone::NotDone => problem::NOT_DONE,
        NotDone::NotHere => problem::NOT_HERE,
    };
    Problem::new(kind, kind.meaning)
}
