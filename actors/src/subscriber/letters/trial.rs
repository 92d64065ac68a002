//! A trial: what an event would come to that may be held or not, the one that is named or the one that is handled next.
//! The handler runs on what is stored now; nothing is written and nothing performed.

use super::dry_run::contradicts;
use super::{DryRun, Letter, LetterError, Letters, Refused};
use crate::inbox::Work;
use crate::order::{OrderId, Version};

/// What an event would come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its version.
    pub version: Version,
    /// Its type, where that is known.
    pub event_type: Option<String>,
    /// The last event of the order that the subscriber has handled: the documents are those behind it.
    pub applied: Version,
    /// What it would come to.
    pub run: DryRun,
}

impl Letters {
    /// Lets the handler run for an event of the order: for that one, or for the one that comes next.
    ///
    /// # Errors
    /// When an attempt at it is under way, or the store or the log did not answer.
    pub async fn trial(&self, order: OrderId, version: Option<Version>) -> Result<Trial, LetterError> {
        let present = self.inbox.present().await?;
        let row = self.inbox.rows(present.generation, vec![order]).await?.into_iter().next();
        let applied = row.as_ref().map_or(Version::NONE, |row| row.applied);
        let version = version.unwrap_or(applied.next());
        let trial = |event_type, run| Trial { version, event_type, applied, run };
        let held = row.and_then(|row| Letter::of(self.name, &row, Work::Applying, None));
        if held.as_ref().is_some_and(contradicts) {
            return Ok(trial(None, DryRun::Contradicts));
        }
        if let Some(letter) = held.filter(|letter| letter.id.version == version) {
            if !letter.is_at_rest() {
                return Err(Refused::UnderWay(letter.id).into());
            }
            if letter.may_end_processes() {
                return Ok(trial(letter.event_type, DryRun::EndsProcesses));
            }
        }
        let events = self.read(order, version, 0).await?;
        match events.into_iter().find(|event| event.version == version) {
            None => Ok(trial(None, DryRun::NotInLog)),
            Some(event) => Ok(trial(Some(event.event_type.clone()), self.handled(&present, event).await?)),
        }
    }
}
