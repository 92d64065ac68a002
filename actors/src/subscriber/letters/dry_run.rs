//! A dry run: what a letter would come to, found out by the handler itself on what is stored now, with nothing written
//! and nothing performed.

use std::sync::Arc;

use super::{Letter, LetterError, LetterId, Letters, Refused};
use crate::event::Envelope;
use crate::inbox::{Body, DocumentWrite, Failure, HoldState, InboxError, Present, Work};
use crate::subscriber::engine::{EventResult, HandledAside};

/// What a letter would come to.
#[derive(Clone, Debug, PartialEq)]
pub enum DryRun {
    /// The event would be handled.
    Applied(WouldApply),
    /// Nobody here knows the event's type: it would only move its lane on.
    Passed,
    /// It would fail again.
    Failed(Failure),
    /// It cannot be read by this docket.
    Undecodable(Failure),
    /// The log has no such event.
    NotInLog,
    /// The log contradicts what was applied: what to do about that is not for a handler to say.
    Contradicts,
    /// An attempt at it ended the process, or may have: a dry run could end this one.
    EndsProcesses,
    /// The effect would be performed; whether that succeeds only performing it says.
    Effect(Body),
}

/// What handling an event would leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WouldApply {
    /// Documents that would be another one afterwards.
    pub documents: Vec<Change>,
    /// Effects that would be recorded, in order.
    pub effects: Vec<Body>,
}

/// A document before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// In which collection.
    pub collection: String,
    /// Which document.
    pub id: String,
    /// As it is stored; `None`: there is none.
    pub before: Option<Body>,
    /// As it would be; `None`: it would be deleted.
    pub after: Option<Body>,
}

impl Letters {
    /// Lets the handler run for what is held under that id.
    ///
    /// # Errors
    /// When that is not held, an attempt at it is under way (or was, when a process ended that nobody has followed), or the
    /// store or the log did not answer.
    pub async fn dry_run(&self, id: LetterId) -> Result<DryRun, LetterError> {
        let found = self.find(id).await?;
        if let Some(effect) = &found.effect {
            return Ok(DryRun::Effect(Arc::clone(&effect.effect.body)));
        }
        if contradicts(&found.letter) {
            return Ok(DryRun::Contradicts);
        }
        if !found.letter.is_at_rest() {
            return Err(Refused::UnderWay(id).into());
        }
        if found.letter.may_end_processes() {
            return Ok(DryRun::EndsProcesses);
        }
        let events = self.read(id.order, id.version, 0).await?;
        let Some(event) = events.into_iter().find(|event| event.version == id.version) else {
            return Ok(DryRun::NotInLog);
        };
        self.handled(&found.present, event).await
    }

    /// What the handler makes of that event, on what is stored now.
    pub(super) async fn handled(&self, present: &Present, event: Arc<Envelope>) -> Result<DryRun, LetterError> {
        let mut handling = self.handling.clone();
        handling.generation = present.generation;
        let HandledAside { result, documents, .. } = match handling.handle_aside(event).await {
            Ok(handled) => handled,
            Err(failure) => return Ok(DryRun::Failed(failure)),
        };
        Ok(match result {
            EventResult::Applied { effects } => {
                DryRun::Applied(WouldApply { documents: self.changes(present, documents).await?, effects })
            }
            // By itself nothing is slow: it has failed when its time is over.
            EventResult::Passed | EventResult::Slow => DryRun::Passed,
            EventResult::Failed(failure) => DryRun::Failed(failure),
            EventResult::Undecodable(failure) => DryRun::Undecodable(failure),
        })
    }

    async fn changes(&self, present: &Present, writes: Vec<DocumentWrite>) -> Result<Vec<Change>, InboxError> {
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        let before = self.inbox.documents(present.generation, keys).await?;
        let changes = writes.into_iter().zip(before).map(|(write, before)| Change {
            collection: write.key.collection.into_owned(),
            id: write.key.id,
            before,
            after: write.body,
        });
        Ok(changes.filter(|change| change.before != change.after).collect())
    }
}

pub(super) fn contradicts(letter: &Letter) -> bool {
    letter.id.work() == Work::Applying && letter.hold.state == HoldState::Conflicting
}
