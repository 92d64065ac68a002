//! What an order is asked, on its way through shard and actor to its answer. Whoever drops it has answered it: the reply
//! says then what is known (`admission`).

use std::sync::Arc;
use std::time::Duration;

use actix::Message;

use super::admission::{Answered, CommandReply, Place, ReadReply, command_reply, not_done, not_read};
use super::directory::Request;
use super::error::NotDone;
use super::shard::Panics;
use super::stream::{Question, Verdict};
use super::{Command, CommandError, Order, OrderId, ReadError};
use crate::commit::{Commit, Fingerprint, Key};

/// What an order is asked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) enum Work {
    Command(Box<CommandWork>),
    Read(ReadWork),
}

#[derive(Debug)]
pub(super) struct CommandWork {
    pub(super) request: Request,
    pub(super) key: Option<Key>,
    pub(super) reply: CommandReply,
    /// Held until the answer: the node's place, and the order's.
    pub(super) places: [Option<Place>; 2],
    /// How often another writer was first.
    pub(super) overtaken: u32,
}

#[derive(Debug)]
pub(super) struct ReadWork {
    pub(super) order: OrderId,
    pub(super) reply: ReadReply,
    pub(super) places: [Option<Place>; 2],
    pub(super) overtaken: u32,
}

impl Work {
    pub(super) fn order(&self) -> OrderId {
        match self {
            Self::Command(work) => work.request.order,
            Self::Read(work) => work.order,
        }
    }

    pub(super) fn hold(&mut self, place: Place) {
        match self {
            Self::Command(work) => work.places[1] = Some(place),
            Self::Read(work) => work.places[1] = Some(place),
        }
    }

    /// Another writer was first, once more; how often it is now.
    pub(super) fn overtaken(&mut self) -> u32 {
        let overtaken = match self {
            Self::Command(work) => &mut work.overtaken,
            Self::Read(work) => &mut work.overtaken,
        };
        *overtaken = overtaken.saturating_add(1);
        *overtaken
    }

    /// Answers that it was certainly not done.
    pub(super) fn refuse(self, why: NotDone, retry_after: Duration) {
        match self {
            Self::Command(work) => work.reply.send(Err(CommandError::NotDone { why, retry_after })),
            Self::Read(work) => work.reply.send(Err(ReadError::NotDone { why, retry_after })),
        }
    }

    /// The answer to what stands behind a commit whose outcome is unknown.
    pub(super) fn refuse_behind(self, commit: &Commit) {
        let key = match &self {
            Self::Command(work) => work.key,
            Self::Read(_) => None,
        };
        let same_key = key.is_some_and(|key| commit.has_key(key.hash));
        match self {
            Self::Command(work) if same_key => work.reply.send(Err(CommandError::KeyInProgress)),
            Self::Command(work) => work.reply.send(Err(not_done(NotDone::NotDone))),
            Self::Read(work) => work.reply.send(Err(not_read(NotDone::NotDone))),
        }
    }

    pub(super) fn is_creation(&self) -> bool {
        match self {
            Self::Command(work) => matches!(work.request.command, Command::Create(_) | Command::Import(_)),
            Self::Read(_) => false,
        }
    }

    /// How often the same command panicked before.
    pub(super) fn panics_before(&self, panics: &mut Panics) -> u32 {
        match self {
            Self::Command(work) => panics.times(work.request.order, || work.blamed_as()),
            Self::Read(_) => 0,
        }
    }

    /// Answers that trying again is of no use.
    pub(super) fn refuse_for_good(self) {
        match self {
            Self::Command(work) => work.reply.send(Err(CommandError::Internal)),
            Self::Read(work) => work.reply.send(Err(ReadError::Internal)),
        }
    }
}

impl CommandWork {
    /// The same, to be decided once more: see [`Mutant::DecidesAgain`](crate::mutant::Mutant).
    pub(super) fn once_more(&self) -> Self {
        let (reply, _) = command_reply();
        Self { request: self.request.clone(), key: self.key, reply, places: [None, None], overtaken: 0 }
    }

    pub(super) fn question(&self) -> Question<'_> {
        Question {
            command: &self.request.command,
            key: self.key,
            if_match: self.request.if_match.as_deref(),
            origin: &self.request.origin,
        }
    }

    /// What a command that panics is recognised by when it comes again: its key, or what it says.
    pub(super) fn blamed_as(&self) -> Fingerprint {
        match &self.request.key {
            Some(key) => Fingerprint::of_key(key),
            None => Fingerprint::of(&self.request.command),
        }
    }
}

/// Work with what it came to, once the commit that it rests on is stored.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) work: Work,
    pub(super) verdict: Option<Verdict>,
    /// For a read: the order as it found it.
    pub(super) order: Option<Arc<Order>>,
}

impl Decided {
    pub(super) fn answer(self) {
        match self.work {
            Work::Command(work) => work.reply.send(match self.verdict {
                Some(Verdict::Accepted(order)) => Ok(Answered::Done { order, replayed: false }),
                Some(Verdict::Replayed(order)) => Ok(Answered::Done { order, replayed: true }),
                Some(Verdict::ReplayedAt(version)) => Ok(Answered::ReplayedAt(version)),
                Some(Verdict::Refused(error)) => Err(error),
                None => Err(CommandError::Internal),
            }),
            Work::Read(work) => work.reply.send(self.order.ok_or(ReadError::NotFound)),
        }
    }

    pub(super) fn outcome_unknown(self, commit: &Commit) {
        match (self.work, self.verdict) {
            (Work::Command(work), Some(Verdict::Accepted(_))) => work.reply.send(Err(CommandError::OutcomeUnknown)),
            (work, _) => work.refuse_behind(commit),
        }
    }
}
