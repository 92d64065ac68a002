//! When a checkpoint is stored, and the lease renewed: a plain state machine of what was taken and when.

use std::time::Duration;

use tokio::time::Instant;

use crate::checkpoint::Checkpoint;
use crate::clock::Timestamp;
use crate::log::Position;

/// Checkpoints are stored at most that often.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// A lease is renewed at least that often.
const RENEW_EVERY_MAX: Duration = Duration::from_secs(1);
/// Renewals within the length of a lease: several may fail.
const RENEWALS_PER_LEASE: u32 = 5;

/// What is to be stored, and when.
#[derive(Debug)]
pub(super) struct Saves {
    renew_every: Option<Duration>,
    newest: Timestamp,
    unsaved: Option<Position>,
    asked_at: Instant,
}

impl Saves {
    /// Nothing yet, under a lease of that length, last held at that moment. What was published before is as new as that.
    pub(super) fn new(lease: Option<Duration>, newest: Timestamp, asked_at: Instant) -> Self {
        let renew_every = lease.map(|length| (length / RENEWALS_PER_LEASE).min(RENEW_EVERY_MAX));
        Self { renew_every, newest, unsaved: None, asked_at }
    }

    /// The broker has everything before that place, the newest of it recorded then; without a place, some that lies
    /// elsewhere.
    pub(super) fn taken(&mut self, up_to: Option<Position>, newest: Option<Timestamp>) {
        self.newest = self.newest.max(newest.unwrap_or(self.newest));
        self.unsaved = up_to.or(self.unsaved.take());
    }

    /// When the store is to be asked next; `None`: not as long as nothing more is taken.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let save = self.unsaved.as_ref().map(|_| SAVE_EVERY);
        let every = save.into_iter().chain(self.renew_every).min();
        every.map(|every| self.asked_at + every)
    }

    /// The store is asked now: to store this, or only to renew the lease.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Checkpoint> {
        self.asked_at = now;
        let recorded_at = self.newest;
        self.unsaved.take().map(|position| Checkpoint { position, recorded_at })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::log::LogId;

    fn place(token: u32) -> Position {
        Position { log: LogId(Uuid::nil()), token: token.to_string(), commit: None }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn is_due_twice_a_second_while_something_is_taken() {
        let now = Instant::now();
        let mut saves = Saves::new(None, at(5), now);
        assert_eq!(saves.due_at(), None, "nobody can take its term");
        saves.taken(Some(place(1)), Some(at(7)));
        saves.taken(Some(place(2)), Some(at(6)));
        assert_eq!(saves.due_at(), Some(now + SAVE_EVERY));
        let later = now + SAVE_EVERY * 9;
        assert_eq!(saves.ask(later), Some(Checkpoint { position: place(2), recorded_at: at(7) }));
        assert_eq!(saves.due_at(), None);
        saves.taken(Some(place(3)), None);
        assert_eq!(saves.due_at(), Some(later + SAVE_EVERY));
        assert_eq!(saves.ask(later), Some(Checkpoint { position: place(3), recorded_at: at(7) }));
    }

    #[test]
    fn a_lease_is_renewed_also_when_nothing_is_taken() {
        let now = Instant::now();
        let mut saves = Saves::new(Some(Duration::from_secs(10)), at(5), now);
        assert_eq!(saves.due_at(), Some(now + RENEW_EVERY_MAX));
        assert_eq!(saves.ask(now), None);
        let saves = Saves::new(Some(Duration::from_secs(1)), at(5), now);
        assert_eq!(saves.due_at(), Some(now + Duration::from_millis(200)));
    }

    #[test]
    fn what_lies_elsewhere_moves_no_place() {
        let now = Instant::now();
        let mut saves = Saves::new(None, at(5), now);
        saves.taken(None, Some(at(9)));
        assert_eq!((saves.due_at(), saves.ask(now)), (None, None));
        saves.taken(Some(place(1)), None);
        saves.taken(None, None);
        assert_eq!(saves.ask(now), Some(Checkpoint { position: place(1), recorded_at: at(9) }));
    }
}
