//! A place in the log: a resume token, and the document whose event it is. That the store still has this document is
//! what shows that it is still the store in which the token was given.

use std::fmt;
use std::sync::Arc;

use actors::commit::{Commit, CommitId, CommitKey};
use actors::log::{LogId, Position};
use mongodb::bson::{Document, RawDocument, Timestamp, doc};
use uuid::Uuid;

/// Behind an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) token: Token,
    pub(super) time: Time,
    pub(super) witness: Witness,
}

/// When, on the clock of the server's own log: what is written later has a later time there, wherever clocks are wrong.
/// The times of two logs say nothing about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time {
    seconds: u32,
    count: u32,
}

/// The document whose insertion the event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    Commit(CommitKey, CommitId),
    Opening(Uuid),
}

/// A resume token: the hexadecimal text that the server gives. What it says is the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token(Arc<str>);

/// What an event tells, with its token.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) token: Token,
    pub(super) time: Time,
    pub(super) inserted: Inserted,
}

/// A document that was inserted.
#[derive(Clone, Debug)]
pub(super) enum Inserted {
    Commit(Arc<Commit>),
    Opening(Uuid),
}

/// In the place of a key, for an opening.
const OPENING: &str = "opening";

impl Place {
    /// The place that a position names, or why it can name none.
    pub(super) fn read(position: &Position) -> Result<Self, String> {
        let unreadable = || format!("{:?} is not a resume token with its witness", position.token);
        let (token, behind) = position.token.split_once(' ').ok_or_else(unreadable)?;
        let (time, witness) = behind.split_once(' ').ok_or_else(unreadable)?;
        let token = Token::of(token).ok_or_else(unreadable)?;
        let time = Time::read(time).ok_or_else(unreadable)?;
        let id = position.commit.ok_or("it does not say which commit is before it")?;
        let witness = match witness {
            OPENING => Witness::Opening(id.0),
            key => Witness::Commit(key.parse().map_err(|_| unreadable())?, id),
        };
        Ok(Self { token, time, witness })
    }

    /// As it is stored. For a place at which nothing had been committed yet the commit id is the opening's.
    pub(super) fn position(&self, log: LogId) -> Position {
        let (witness, id) = match self.witness {
            Witness::Commit(key, id) => (key.to_string(), id),
            Witness::Opening(id) => (OPENING.to_owned(), CommitId(id)),
        };
        Position { log, token: format!("{} {} {witness}", self.token.0, self.time), commit: Some(id) }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(key, id) => write!(f, "the commit {key} with the id {}", id.0),
            Self::Opening(id) => write!(f, "the opening {id}"),
        }
    }
}

impl From<Timestamp> for Time {
    fn from(told: Timestamp) -> Self {
        Self { seconds: told.time, count: told.increment }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds, self.count)
    }
}

impl Time {
    fn read(text: &str) -> Option<Self> {
        let (seconds, count) = text.split_once('.')?;
        Some(Self { seconds: seconds.parse().ok()?, count: count.parse().ok()? })
    }
}

impl Token {
    fn of(text: &str) -> Option<Self> {
        let hexadecimal =
            !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| Self(text.into()))
    }

    /// From an event's `_id`.
    pub(super) fn of_event(id: &RawDocument) -> Option<Self> {
        id.get_str("_data").ok().and_then(Self::of)
    }

    /// As the server takes it.
    pub(super) fn document(&self) -> Document {
        doc! { "_data": &*self.0 }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Entry {
    /// The place behind it.
    pub(super) fn place(&self) -> Place {
        let witness = match &self.inserted {
            Inserted::Commit(commit) => Witness::Commit(commit.key(), commit.id()),
            Inserted::Opening(id) => Witness::Opening(*id),
        };
        Place { token: self.token.clone(), time: self.time, witness }
    }

    /// Whether it tells of that opening.
    pub(super) fn is_opening(&self, id: Uuid) -> bool {
        match &self.inserted {
            Inserted::Opening(opening) => *opening == id,
            Inserted::Commit(_) => false,
        }
    }

    /// The commit that it tells of.
    pub(super) fn commit(&self) -> Option<&Arc<Commit>> {
        match &self.inserted {
            Inserted::Commit(commit) => Some(commit),
            Inserted::Opening(_) => None,
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let inserted = match &self.inserted {
            Inserted::Commit(commit) => commit.encoded().len(),
            Inserted::Opening(_) => 0,
        };
        inserted + self.token.len() + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use actors::testing::commits::first;

    use super::*;

    fn places() -> [Place; 2] {
        let entry = |inserted| Entry {
            token: Token::of("82AB0c").expect("a token"),
            time: Time { seconds: 1_795_000_000, count: 7 },
            inserted,
        };
        [entry(Inserted::Commit(first(1))).place(), entry(Inserted::Opening(Uuid::now_v7())).place()]
    }

    #[test]
    fn a_place_is_found_again_from_its_position() {
        for place in places() {
            let position = place.position(LogId(Uuid::now_v7()));
            assert_eq!(Place::read(&position), Ok(place));
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_words() {
        let good = places()[0].position(LogId(Uuid::now_v7()));
        let wrong = ["", "nonsense", "82AB0C", " 1.1 opening", "82AB0 1.1 opening", "82ABXX 1.1 opening"];
        for token in wrong.into_iter().chain(["82AB0C 1.1 nobody:1", "82AB0C opening", "82AB0C 1 opening"]) {
            let read = Place::read(&Position { token: token.to_owned(), ..good.clone() });
            assert_eq!(read, Err(format!("{token:?} is not a resume token with its witness")));
        }
        let read = Place::read(&Position { commit: None, ..good });
        assert_eq!(read, Err("it does not say which commit is before it".to_owned()));
    }
}
