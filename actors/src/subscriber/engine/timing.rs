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
        self.attempts = self.attempts.saturating_add(1);
        self.until = Some(now.after(wait(backoff, self.attempts, rng)));
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
    asked: bool,
}

impl Due {
    /// Asks at once: nobody knows yet what is in the store.
    pub(super) fn at_once() -> Self {
        Self { next: Some(Timestamp::from_millis(i64::MIN)), asked: false }
    }

    /// A lane is to be tried again at that time.
    pub(super) fn add(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Whether to ask now; then the answer is awaited.
    pub(super) fn ask(&mut self, now: Timestamp) -> bool {
        let ask = !self.asked && self.next.is_some_and(|next| next <= now);
        if ask {
            self.asked = true;
            self.next = None;
        }
        ask
    }

    /// The answer is there; `next` is when the first lane is to be tried that was not in it.
    pub(super) fn answered(&mut self, next: Option<Timestamp>) {
        self.asked = false;
        if let Some(next) = next {
            self.add(next);
        }
    }

    /// When to ask, unless an answer is awaited.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.next.filter(|_| !self.asked)
    }
}
