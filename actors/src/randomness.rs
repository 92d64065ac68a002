//! Where new ids come from: the system's generator, or, on a thread on which a simulation runs, its seed. The same seed then
//! gives the same ids, with the times of tokio's clock.
//!
//! Nothing else draws from it: jitter has generators of its own, whose seeds are arguments.

use std::cell::RefCell;
use std::marker::PhantomData;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;

/// A new UUIDv7.
pub fn uuid_v7() -> Uuid {
    SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map_or_else(Uuid::now_v7, Seeded::uuid_v7))
}

/// From now on ids made on this thread come from the seed, as if it were that moment; until what is returned is dropped.
#[must_use]
pub fn seed(seed: u64, moment: Timestamp) -> Seeding {
    let seeded = Seeded { rng: StdRng::seed_from_u64(seed), began: Instant::now(), moment };
    SEEDED.set(Some(seeded));
    Seeding(PhantomData)
}

/// Ids come from a seed as long as this is there. It stays on its thread.
#[derive(Debug)]
pub struct Seeding(PhantomData<*const ()>);

impl Drop for Seeding {
    fn drop(&mut self) {
        SEEDED.set(None);
    }
}

struct Seeded {
    rng: StdRng,
    began: Instant,
    moment: Timestamp,
}

impl Seeded {
    fn uuid_v7(&mut self) -> Uuid {
        let now = self.moment.after(self.began.elapsed()).as_millis();
        Builder::from_unix_timestamp_millis(now.unsigned_abs(), &self.rng.random()).into_uuid()
    }
}

thread_local! {
    static SEEDED: RefCell<Option<Seeded>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seed_gives_the_same_ids_with_the_time_of_tokios_clock_until_it_is_dropped() {
        let moment = Timestamp::from_millis(1_795_000_000_000);
        let ids = async |number| {
            let _seeding = seed(number, moment);
            let first = uuid_v7();
            tokio::time::advance(Duration::from_millis(7)).await;
            [first, uuid_v7()]
        };
        let [first, second] = ids(1).await;
        assert_eq!(ids(1).await, [first, second]);
        assert_ne!(ids(2).await, [first, second]);
        assert_eq!((first.get_version_num(), second.get_version_num()), (7, 7));
        let millis = |id: Uuid| id.as_u128() >> 80;
        assert_eq!((millis(first), millis(second)), (1_795_000_000_000, 1_795_000_000_007));
        assert_ne!(uuid_v7(), uuid_v7());
    }
}
