//! The newest events of the change stream in memory, for those who follow in real time: they ask the server for nothing
//! and decode nothing.

use std::collections::VecDeque;

use uuid::Uuid;

use super::place::{Entry, Place, Token};

/// Most events kept.
const ENTRIES_MAX: usize = 8_192;
/// Most bytes kept.
const BYTES_MAX: usize = 16 << 20;

/// A piece of the log without gaps. Its events are numbered in their order; the numbers mean nothing elsewhere.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The number of the first one kept.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Ring {
    /// Adds what comes next, and forgets the oldest.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.first += 1;
            self.bytes -= oldest.bytes();
        }
    }

    /// The number that the next event will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// At most `max` events from that number on; `None` when the first of them is forgotten.
    pub(super) fn from(&self, number: u64, max: usize) -> Option<Vec<Entry>> {
        let skip = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some(self.entries.iter().skip(skip).take(max).cloned().collect())
    }

    /// The event with that token and its number. Who asks is near the end more often than not.
    pub(super) fn find(&self, token: &Token) -> Option<(u64, &Entry)> {
        let place = self.entries.iter().rposition(|entry| entry.token == *token)?;
        Some((self.first + place as u64, &self.entries[place]))
    }

    /// An opening among the events from a number on, with its own number; else where to look from the next time.
    pub(super) fn find_opening(&self, id: Uuid, number: u64) -> Result<(u64, Place), u64> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut numbered = (self.first..).zip(&self.entries).skip(skip);
        let found = numbered.find(|(_, entry)| entry.is_opening(id));
        found.map(|(number, entry)| (number, entry.place())).ok_or_else(|| self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Inserted;
    use super::super::place::Time;
    use super::*;
    use actors::testing::commits::first_of_bytes;
    use mongodb::bson::Timestamp;

    fn token(number: u64) -> Token {
        let id = mongodb::bson::rawdoc! { "_data": format!("{number:08X}") };
        Token::of_event(&id).expect("a token")
    }

    fn time(number: u64) -> Time {
        Timestamp { time: 1_795_000_000, increment: u32::try_from(number).expect("few") }.into()
    }

    fn opening(number: u64) -> Entry {
        Entry { token: token(number), time: time(number), inserted: Inserted::Opening(Uuid::now_v7()) }
    }

    #[test]
    fn the_oldest_is_forgotten_and_who_is_behind_is_told() {
        let mut ring = Ring::default();
        let count = ENTRIES_MAX as u64 + 10;
        for number in 0..count {
            ring.push(opening(number));
        }
        assert_eq!(ring.end(), count);
        assert!(ring.from(9, 1).is_none());
        assert_eq!(ring.from(10, 2).expect("it is there").len(), 2);
        assert!(ring.from(count, 2).expect("nothing is missing").is_empty());
        assert!(ring.find(&token(9)).is_none());
        assert_eq!(ring.find(&token(10)).expect("it is there").0, 10);
    }

    #[test]
    fn large_commits_take_no_more_memory_than_small_ones() {
        let mut ring = Ring::default();
        for number in 0..100 {
            ring.push(Entry {
                token: token(number),
                time: time(number),
                inserted: Inserted::Commit(first_of_bytes(900_000)),
            });
            assert!(ring.bytes <= BYTES_MAX);
        }
        assert_eq!(ring.end(), 100);
        assert!(ring.from(99, 1).is_some_and(|newest| newest.len() == 1));
    }
}
