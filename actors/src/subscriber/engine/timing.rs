//! When something is to be tried again.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::clock::Timestamp;
use crate::subscriber::settings::Backoff;

/// A random part of the longest wait after that many failures (full jitter).
pub(super) fn wait(backoff: &Backoff, attempts: u32, rng: &mut StdRng) -> Duration {
    let ceiling = u64::try_from(backoff.ceiling(attempts).as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.random_range(0..=ceiling))
}

/// Something that everything behind it needs, and that may be away for a while.
#[derive(Debug, Default)]
pub(super) struct Gate {
    attempts: u32,
    until: Option<Timestamp>,
}

impl Gate {
    /// It did not answer: it is left alone for a while.
    pub(super) fn shut(&mut self, now: Timestamp, backoff: &Backoff, rng: &mut StdRng) {
        self.shut_for(|attempts| wait(backoff, attempts, rng), now);
    }

    /// As [`Gate::shut`], for as long as that says after so many failures.
    pub(super) fn shut_for(&mut self, wait: impl FnOnce(u32) -> Duration, now: Timestamp) {
        self.attempts = self.attempts.saturating_add(1);
        self.until = Some(now.after(wait(self.attempts)));
    }

    /// It may be asked then, and is as far away as it was.
    pub(super) fn open_at(&mut self, at: Timestamp) {
        self.until = self.until.map(|_| at);
    }

    /// It answered.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether it is away, as far as is known.
    pub(super) fn is_shut(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it may be asked.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// When it may be asked again, while it may not.
    pub(super) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until > now)
    }
}

/// When the store has to be asked for lanes that are to be tried again. The times of all lanes are in the store; only
/// the first one is kept here.
#[derive(Debug)]
pub(super) struct Due {
    next: Option<Timestamp>,
    /// A lane is held until then, which is longer than anything is ever to wait: the clock was wrong. It is due now.
    too_far: Option<Timestamp>,
    asked: bool,
}

impl Due {
    /// Asks at once: nobody knows yet what is in the store.
    pub(super) fn at_once() -> Self {
        Self { next: Some(Timestamp::from_millis(i64::MIN)), too_far: None, asked: false }
    }

    /// A lane is to be tried again at that time.
    pub(super) fn add(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Up to which time to ask now, if it is time; then the answer is awaited.
    pub(super) fn ask(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.asked || self.next.is_none_or(|next| next > now) {
            return None;
        }
        self.asked = true;
        self.next = None;
        Some(self.too_far.take().map_or(now, |too_far| too_far.max(now)))
    }

    /// The answer is there; `next` is when the first lane is to be tried that was not in it, and `wait_max` the longest
    /// that any waits.
    pub(super) fn answered(&mut self, next: Option<Timestamp>, now: Timestamp, wait_max: Duration) {
        self.asked = false;
        match next {
            Some(next) if next > now.after(wait_max) => {
                self.too_far = Some(next);
                self.add(now);
            }
            Some(next) => self.add(next),
            None => {}
        }
    }

    /// Whether an answer is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// When to ask, unless an answer is awaited.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.next.filter(|_| !self.asked)
    }
}
