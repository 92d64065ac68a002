//! What an event is to its lane, by the order's row alone.

use super::failing::ends_processes;
use crate::event::{Envelope, EventId};
use crate::inbox::Row;

/// What an event is to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was handled before.
    Duplicate,
    /// It comes before what was applied and was made later, or stands in its place: one of them is of another log, and
    /// only history says which.
    OfAnotherLog,
    /// History has it where another event was applied.
    Conflict,
    /// Something before it is missing.
    Gap,
    /// Its lane is held, or what comes is only to be seen.
    Waits,
    /// Too many effects of its order wait.
    Crowded,
    /// Whoever attempted it did not survive.
    EndsProcesses,
    /// It is to be handled.
    Next,
}

/// How an event meets its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    /// History brought it, for a lane that is tried.
    pub(super) in_lane: bool,
    /// What comes only raises *seen*.
    pub(super) resting: bool,
    /// Too many effects of its order wait.
    pub(super) crowded: bool,
    /// The attempt that the row tells of is this one.
    pub(super) attempted: bool,
    /// Whether one that another life left open may have ended that.
    pub(super) unclean: bool,
    pub(super) attempts_max: u32,
}

/// The verdict. What is met first holds: nothing is handled that a row speaks against.
pub(super) fn verdict(event: &Envelope, row: &Row, meeting: Meeting) -> Verdict {
    let Meeting { in_lane, resting, crowded, attempted, unclean, attempts_max } = meeting;
    let admitted = in_lane || attempted || (row.applying.is_ready() && !resting);
    if event.version == row.applied && row.applied_event.is_some_and(|applied| applied != event.id) {
        // What was delivered may come from before a backup was restored.
        if in_lane { Verdict::Conflict } else { Verdict::OfAnotherLog }
    } else if event.version < row.applied && row.applied_event.is_some_and(|applied| is_later(event.id, applied)) {
        Verdict::OfAnotherLog
    } else if event.version <= row.applied {
        Verdict::Duplicate
    } else if !admitted {
        Verdict::Waits
    } else if crowded {
        Verdict::Crowded
    } else if event.version != row.applied.next() {
        Verdict::Gap
    } else if !attempted && unclean && ends_processes(&row.applying, event.id, attempts_max) {
        Verdict::EndsProcesses
    } else {
        Verdict::Next
    }
}

/// Ids of one process grow with time. Only a guess where several processes make them: their clocks differ.
fn is_later(one: EventId, other: EventId) -> bool {
    [one, other].iter().all(|id| id.0.get_version_num() == 7) && one.0 > other.0
}
