//! The limits of a subscriber. Every one is a configuration key, `subscriber.…` or `subscribers.NAME.…`.

use std::time::Duration;

use crate::mutant::Mutant;

/// How much at once, how often, how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most events that are handled for one transaction (`batch_events_max`).
    pub batch_events_max: usize,
    /// Documents after which a transaction takes no further event (`batch_documents_max`).
    pub batch_documents_max: usize,
    /// Bytes of documents and effects after which a transaction takes no further event (`batch_bytes_max`).
    pub batch_bytes_max: usize,
    /// Events that wait to be handled before the log is read further (`queue_events_max`).
    pub queue_events_max: usize,
    /// Rows kept in memory (`rows_cached_max`).
    pub rows_cached_max: usize,
    /// Lanes that are retried at once (`lanes_at_once_max`).
    pub lanes_at_once_max: usize,
    /// Commits of an order that are read from history at once (`history_commits_max`).
    pub history_commits_max: usize,
    /// Effects that are kept in memory (`effects_loaded_max`); the others wait in the store.
    pub effects_loaded_max: usize,
    /// Effects that are performed at once, each of another order (`effects_at_once_max`).
    pub effects_at_once_max: usize,
    /// Effects of one order that may wait; beyond it the order's events wait too (`effects_max`).
    pub effects_max: u32,
    /// Attempts after which what fails is a dead letter (`attempts_max`).
    pub attempts_max: u32,
    /// Orders that fail at their first attempt, one after another with nothing that succeeds between, before something that
    /// all of them need is held to be away (`failing_orders_max`).
    pub failing_orders_max: usize,
    /// How long a batch waits for one handler before it goes on without it (`handler_patience_ms`).
    pub handler_patience: Duration,
    /// How long a handler may take for one event (`handler_timeout_ms`).
    pub handler_timeout: Duration,
    /// How long an effect may take for being performed (`effect_timeout_ms`).
    pub effect_timeout: Duration,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// For the simulation alone.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

/// How long to wait between attempts: a random part (full jitter) of `first * factor^(attempt - 1)`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// After the first failure (`backoff_first_ms`).
    pub first: Duration,
    /// How much longer after each further one (`backoff_factor`).
    pub factor: f64,
    /// At most (`backoff_max_ms`).
    pub max: Duration,
}

impl Backoff {
    /// The longest wait after that many failures.
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        // Beyond what a duration can say, and for what is no number, the limit holds.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max).min(self.max)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(60) }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_events_max: 512,
            batch_documents_max: 2_048,
            batch_bytes_max: 4 << 20,
            queue_events_max: 4_096,
            rows_cached_max: 50_000,
            lanes_at_once_max: 32,
            history_commits_max: 64,
            effects_loaded_max: 1_024,
            effects_at_once_max: 16,
            effects_max: 100,
            attempts_max: 5,
            failing_orders_max: 10,
            handler_patience: Duration::from_millis(250),
            handler_timeout: Duration::from_secs(30),
            effect_timeout: Duration::from_secs(150),
            backoff: Backoff::default(),
            mutant: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_limit_and_never_overflow() {
        let backoff = Backoff::default();
        assert_eq!(backoff.ceiling(1), Duration::from_secs(1));
        assert_eq!(backoff.ceiling(4), Duration::from_secs(8));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(60));
    }
}
