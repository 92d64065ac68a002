//! What follows a failure: whether it is counted, when there is another attempt, and when nobody tries any more. The same
//! for handling events and for performing effects; nothing here knows where a lane is kept.

use rand::rngs::StdRng;

use super::timing::wait;
use crate::clock::Timestamp;
use crate::event::{Envelope, EventId};
use crate::inbox::{Attempt, Failure, FailureKind, HeadOfLane, Hold, HoldState, Lane, NewEffect};
use crate::subscriber::settings::Settings;

/// How lanes are held.
pub(super) struct Rules<'a> {
    pub(super) now: Timestamp,
    pub(super) settings: &'a Settings,
    pub(super) rng: &'a mut StdRng,
}

/// Against what a failure is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// What failed: the attempt counts.
    Itself,
    /// Something that all orders need: it says nothing about what failed.
    Dependency,
}

/// The event at the head of its lane.
pub(super) fn event_head(event: &Envelope) -> HeadOfLane {
    HeadOfLane { version: event.version, event: event.id, event_type: event.event_type.clone(), effect: None }
}

/// The effect at the head of its lane. The type of its event is not kept with it.
pub(super) fn effect_head(effect: &NewEffect) -> HeadOfLane {
    HeadOfLane {
        version: effect.version,
        event: effect.id.event,
        event_type: String::new(),
        effect: Some(effect.id.index),
    }
}

/// Whether both are the same thing. Of which type its event is, is told to people, and may not be known.
pub(super) fn is_same(one: &HeadOfLane, other: &HeadOfLane) -> bool {
    (one.version, one.event, one.effect) == (other.version, other.event, other.effect)
}

/// Whether nothing is known of an earlier attempt at the same thing. One that has begun and has not ended is this one.
pub(super) fn is_first_attempt(lane: &Lane, head: &HeadOfLane) -> bool {
    let about_it = lane.hold().filter(|hold| is_about(hold, Kind::Attempts, Some(head)));
    about_it.is_none_or(|hold| hold.tried.len() <= usize::from(hold.state == HoldState::Attempting))
}

/// After an attempt at what is at its head.
pub(super) fn failed(before: &Lane, head: HeadOfLane, failure: Failure, blame: Blame, rules: &mut Rules<'_>) -> Lane {
    let mut hold = going_on(before, Kind::Attempts, Some(head), rules.now);
    if hold.state == HoldState::Attempting {
        // It was counted when it began.
        hold.tried.pop();
        hold.attempts = hold.attempts.saturating_sub(1);
    }
    match blame {
        Blame::Itself => {
            hold.attempts = hold.attempts.saturating_add(1);
            let last = failure.kind == FailureKind::Permanent || hold.attempts >= rules.settings.attempts_max;
            (hold.state, hold.next_attempt_at) =
                if last { (HoldState::Dead, None) } else { (HoldState::Retrying, Some(later(&hold, rules))) };
        }
        Blame::Dependency => {
            (hold.state, hold.next_attempt_at) = (HoldState::Retrying, Some(rules.now));
            // An outage must not push out what is known of the thing itself.
            hold.tried.pop_if(|attempt| attempt.failure.kind == failure.kind && attempt.failure.place == failure.place);
        }
    }
    keep(hold, failure, rules.now)
}

/// The attempts at it that were counted say nothing about it after all: it is tried as if for the first time.
pub(super) fn give_back(lane: &mut Lane, head: &HeadOfLane, now: Timestamp) {
    if let Lane::Held(hold) = lane
        && is_about(hold, Kind::Attempts, Some(head))
        && hold.state != HoldState::Attempting
    {
        (hold.state, hold.attempts, hold.next_attempt_at) = (HoldState::Retrying, 0, Some(now));
    }
}

/// An attempt is about to begin that may end the process: it is counted before. One that is open already ended the process
/// only if the life before did not end in order (`unclean`); else this one is counted in its place.
pub(super) fn begun(before: &Lane, head: HeadOfLane, unclean: bool, now: Timestamp) -> Lane {
    let mut hold = going_on(before, Kind::Attempts, Some(head), now);
    if hold.state == HoldState::Attempting && !unclean {
        hold.tried.pop();
    } else {
        hold.attempts = hold.attempts.saturating_add(1);
    }
    (hold.state, hold.next_attempt_at) = (HoldState::Attempting, Some(now));
    keep(hold, Failure::transient(ATTEMPT_BEGAN), now)
}

/// Whether the process has ended so often while it attempted this that nobody tries it again.
pub(super) fn ends_processes(lane: &Lane, event: EventId, attempts_max: u32) -> bool {
    let about_it = |hold: &&Hold| hold.head.as_ref().is_some_and(|head| head.event == event && head.effect.is_none());
    let hold = lane.hold().filter(|hold| hold.state == HoldState::Attempting).filter(about_it);
    hold.is_some_and(|hold| hold.attempts >= attempts_max)
}

/// What is known of an attempt that has not ended.
const ATTEMPT_BEGAN: &str = "this attempt began, and nobody knows how it ended";
/// How the failure begins of what ends processes.
const PROCESS_ENDED: &str = "the process ended";

/// Whether an attempt at it ended the process, or may have.
pub(crate) fn may_end_processes(hold: &Hold) -> bool {
    let ended = |text: &str| text == ATTEMPT_BEGAN || text.starts_with(PROCESS_ENDED);
    hold.tried.iter().any(|attempt| ended(&attempt.failure.text))
}

/// After attempts each of which ended the process.
pub(super) fn ended_processes(before: &Lane, head: HeadOfLane, now: Timestamp) -> Lane {
    let mut hold = going_on(before, Kind::Attempts, Some(head), now);
    (hold.state, hold.next_attempt_at) = (HoldState::Dead, None);
    let text = format!("{PROCESS_ENDED} {} times while this was attempted", hold.attempts);
    keep(hold, Failure::permanent(text), now)
}

/// What is at its head takes long, which says nothing about it yet. Until then it waits in the store: whoever begins anew
/// finds it there.
pub(super) fn put_aside(before: &Lane, head: HeadOfLane, until: Timestamp, now: Timestamp) -> Lane {
    let mut hold = going_on(before, Kind::Attempts, Some(head), now);
    (hold.state, hold.next_attempt_at) = (HoldState::Retrying, Some(until));
    Lane::Held(Box::new(hold))
}

/// What is at its head cannot be read here. Another docket may begin at any time that can: it is never given up.
pub(super) fn undecodable(before: &Lane, head: HeadOfLane, failure: Failure, rules: &mut Rules<'_>) -> Lane {
    let mut hold = going_on(before, Kind::Undecodable, Some(head), rules.now);
    hold.attempts = hold.attempts.saturating_add(1);
    hold.next_attempt_at = Some(rules.now.after(wait(&rules.settings.backoff, u32::MAX, rules.rng)));
    keep(hold, failure, rules.now)
}

/// The log does not have what must come next. Looked for as long as it takes: a gap is never skipped.
pub(super) fn missing(before: &Lane, failure: Failure, rules: &mut Rules<'_>) -> Lane {
    let hold = looked_in_vain(before, &failure, rules);
    keep(hold, failure, rules.now)
}

/// The log does not have what was applied. Absence is a guess: the lane contradicts the log when it stays away.
pub(super) fn absent(before: &Lane, failure: Failure, rules: &mut Rules<'_>) -> Lane {
    let hold = looked_in_vain(before, &failure, rules);
    if hold.attempts >= rules.settings.attempts_max {
        return contradicted(before, failure, rules.now);
    }
    keep(hold, failure, rules.now)
}

/// The log contradicts what was applied: somebody must decide.
pub(super) fn contradicted(before: &Lane, failure: Failure, now: Timestamp) -> Lane {
    let failure = Failure { kind: FailureKind::Permanent, ..failure };
    keep(going_on(before, Kind::Conflicting, None, now), failure, now)
}

/// Looks for another thing begin anew.
fn looked_in_vain(before: &Lane, failure: &Failure, rules: &mut Rules<'_>) -> Hold {
    let mut hold = going_on(before, Kind::Gap, None, rules.now);
    if hold.failure().is_some_and(|last| last.place != failure.place) {
        hold = Hold::new(HoldState::Gap, hold.since, None);
    }
    hold.attempts = hold.attempts.saturating_add(1);
    hold.next_attempt_at = Some(later(&hold, rules));
    hold
}

fn later(hold: &Hold, rules: &mut Rules<'_>) -> Timestamp {
    rules.now.after(wait(&rules.settings.backoff, hold.attempts, rules.rng))
}

fn keep(mut hold: Hold, failure: Failure, at: Timestamp) -> Lane {
    hold.keep(Attempt { at, failure });
    Lane::Held(Box::new(hold))
}

/// What the attempts that are counted together have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Attempts,
    Gap,
    Undecodable,
    Conflicting,
}

impl Kind {
    fn of(state: HoldState) -> Self {
        match state {
            HoldState::Attempting | HoldState::Retrying | HoldState::Dead => Self::Attempts,
            HoldState::Gap => Self::Gap,
            HoldState::Undecodable => Self::Undecodable,
            HoldState::Conflicting => Self::Conflicting,
        }
    }

    fn first_state(self) -> HoldState {
        match self {
            Self::Attempts => HoldState::Retrying,
            Self::Gap => HoldState::Gap,
            Self::Undecodable => HoldState::Undecodable,
            Self::Conflicting => HoldState::Conflicting,
        }
    }
}

fn is_about(hold: &Hold, kind: Kind, head: Option<&HeadOfLane>) -> bool {
    let same = match (&hold.head, head) {
        (Some(one), Some(other)) => is_same(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    Kind::of(hold.state) == kind && same
}

/// The same hold when it is about the same thing; else a new one, of a lane that is held since then.
fn going_on(before: &Lane, kind: Kind, head: Option<HeadOfLane>, now: Timestamp) -> Hold {
    match before.hold() {
        Some(hold) if is_about(hold, kind, head.as_ref()) => hold.clone(),
        before => {
            let since = before.map_or(now, |hold| hold.since);
            Hold { head, ..Hold::new(kind.first_state(), since, None) }
        }
    }
}
