//! A clock that jumps.

use std::fmt::Debug;
use std::time::Duration;

use super::{Fate, Faulty};
use crate::clock::{Clock, Timestamp};

/// How far a clock is off at most, in either direction, when it is.
const OFF_MAX: Duration = Duration::from_secs(3_600);

impl<P: Clock + Debug + ?Sized> Clock for Faulty<P> {
    /// As often as calls fail, the moment is up to an hour too early or too late.
    fn now(&self) -> Timestamp {
        let now = self.inner.now();
        match self.fate.jump(OFF_MAX) {
            Some(millis) => Timestamp::from_millis(now.as_millis().saturating_add(millis)),
            None => now,
        }
    }
}

impl Fate {
    fn jump(&self, most: Duration) -> Option<i64> {
        let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        self.error().then(|| self.between(-most, most))
    }
}
