//! The clock port. Nothing that decides or evolves reads it: time arrives with the command or the event.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::temporal::Pieces;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC, to the millisecond: what an event can store is what everybody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The beginning of 1970.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since 1970. What lies outside the years RFC 3339 can write (0000 to 9999) becomes the nearest
    /// moment inside.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(-62_167_219_200_000, 253_402_207_200_000))
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// How long it is from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{moment:.3}")
    }
}

/// The text is not an RFC 3339 date and time.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 date and time such as 2026-11-23T08:00:00.000Z")]
pub struct NotATimestamp;

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    /// Any RFC 3339 date and time; what is finer than a millisecond is cut off, and the last two days of the year 9999,
    /// which callers write for "for ever", are one moment.
    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        match text.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Self::from_millis(moment.as_millisecond())),
            Err(_) if is_of_the_last_days(text) => Ok(Self::from_millis(i64::MAX)),
            Err(_) => Err(NotATimestamp),
        }
    }
}

/// jiff's moments end where every offset can still be written: before the year 9999 does.
fn is_of_the_last_days(text: &str) -> bool {
    let Ok(pieces) = Pieces::parse(text) else { return false };
    let last_days = pieces.date() >= jiff::civil::date(9999, 12, 30);
    last_days && pieces.time().is_some() && pieces.offset().is_some()
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Timestamp")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// Where the time comes from. It may jump; order is never taken from it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }
}

/// A clock that moves with tokio's, so that with tokio's clock paused a day passes in a moment.
#[derive(Debug)]
pub struct TokioClock {
    base: Timestamp,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `base` now. To be made inside the runtime whose time it follows.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.base.after(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_the_contract_writes_it() {
        let moment: Timestamp = "2026-11-23T09:00:00+01:00".parse().expect("RFC 3339");
        assert_eq!(moment.to_string(), "2026-11-23T08:00:00.000Z");
    }

    #[test]
    fn the_end_of_the_year_9999_is_a_moment_too() {
        let moment: Timestamp = "9999-12-31T23:59:59Z".parse().expect("RFC 3339");
        assert_eq!(moment, Timestamp::from_millis(i64::MAX));
        for wrong in ["9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z"] {
            wrong.parse::<Timestamp>().expect_err(wrong);
        }
    }

    #[test]
    fn every_moment_it_can_hold_can_be_written_and_read_again() {
        for millis in [i64::MIN, -1, 0, 1_795_000_000_123, i64::MAX] {
            let moment = Timestamp::from_millis(millis);
            assert_eq!(moment.to_string().parse::<Timestamp>().expect("own text"), moment);
        }
    }
}
