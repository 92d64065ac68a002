//! What an operator does about something that is held: tries it again, or lets it go. Pure: from a row as it was to the row
//! as it shall be. It never reads, writes or waits, and never touches another thing than the one that was named.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::event::EventId;
use crate::inbox::{
    Discard, EffectOutcome, HeadOfLane, Hold, HoldState, Lane, NewEffect, Outcome, OutcomeKind, RecordedEffect, Row,
    Work,
};
use crate::order::{OrderId, Version};

/// Longest reason for a discard, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// What is held, as operators name it: `ORDER.VERSION` for an event, `ORDER.VERSION.INDEX` for an effect that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// Of which order.
    pub order: OrderId,
    /// The event's version.
    pub version: Version,
    /// The place of the effect among those of that event; `None`: it is the event.
    pub effect: Option<u32>,
}

/// The text names nothing that can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter is ORDER.VERSION for an event, and ORDER.VERSION.INDEX for an effect")]
pub struct NotALetterId;

/// What an operator decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Why, in the operator's words.
    pub reason: String,
    /// Who: the name of a key, or `anonymous`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not held: it was handled, or somebody has discarded it.
    #[error("{0} is not held")]
    NotHeld(LetterId),
    /// Something else is at the head of that lane now.
    #[error("{0} is not held, {1} is")]
    AnotherHeld(LetterId, LetterId),
    /// An attempt at it is under way, and how it ends is not known yet.
    #[error("{0} is being handled now")]
    UnderWay(LetterId),
}

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InLog {
    /// Its version.
    pub version: Version,
    /// The event.
    pub event: EventId,
    /// Its type.
    pub event_type: String,
}

/// As much of an order's stream as a decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The event at the version in question, or the last one before it.
    pub nearest: Option<InLog>,
    /// The version of the stream's last event.
    pub end: Version,
}

impl LetterId {
    /// What is at the head of a lane that is held; `None` while it is ready, and for an effect that nobody knows without
    /// looking it up.
    pub fn of(row: &Row, work: Work) -> Option<Self> {
        let hold = work.lane(row).hold()?;
        let head = hold.head.as_ref();
        let (version, effect) = match work {
            Work::Applying => (version_of(row, hold), None),
            Work::Performing => (head?.version, Some(head?.effect?)),
        };
        Some(Self { order: row.order, version, effect })
    }

    /// That effect.
    pub fn of_effect(effect: &NewEffect) -> Self {
        Self { order: effect.order, version: effect.version, effect: Some(effect.id.index) }
    }

    /// In which of a row's two lanes it is.
    pub fn work(self) -> Work {
        match self.effect {
            None => Work::Applying,
            Some(_) => Work::Performing,
        }
    }
}

/// A lane handles the event behind what is applied; one that contradicts the log is stuck at what it has applied itself.
fn version_of(row: &Row, hold: &Hold) -> Version {
    match hold.state {
        HoldState::Conflicting => row.applied,
        HoldState::Attempting | HoldState::Retrying | HoldState::Gap | HoldState::Dead | HoldState::Undecodable => {
            row.applied.next()
        }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, version, effect } = self;
        write!(f, "{order}.{version}")?;
        effect.map_or(Ok(()), |effect| write!(f, ".{effect}"))
    }
}

impl FromStr for LetterId {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, NotALetterId> {
        let mut parts = text.split('.');
        let order = parts.next().and_then(|part| part.parse().ok()).ok_or(NotALetterId)?;
        let version = parts.next().and_then(number).ok_or(NotALetterId)?;
        let effect = parts.next().map(|part| number(part).ok_or(NotALetterId)).transpose()?;
        match parts.next() {
            None => Ok(Self { order, version: Version(version), effect }),
            Some(_) => Err(NotALetterId),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The row whose lane tries `id` again at that time, with all its attempts. What became of earlier ones is kept. One that
/// contradicts the log asks the log once more, as for what is next.
///
/// # Errors
/// When that is not what is held. An attempt that is under way is left alone.
pub fn retry(row: &Row, id: LetterId, at: Timestamp) -> Result<Row, Refused> {
    let mut hold = held(row, id)?.clone();
    hold.state = match hold.state {
        // There is nothing to try until the log was asked.
        HoldState::Gap | HoldState::Conflicting => HoldState::Gap,
        HoldState::Attempting | HoldState::Retrying | HoldState::Dead | HoldState::Undecodable => HoldState::Retrying,
    };
    hold.attempts = 0;
    hold.next_attempt_at = Some(at);
    let mut row = row.clone();
    *id.work().lane_mut(&mut row) = Lane::Held(Box::new(hold));
    Ok(row)
}

/// The row whose lane goes on behind the event `id`, as if that were applied, and the decision to be kept. The log is asked
/// for what is next at once.
///
/// A lane that contradicts the log takes what the log has as what it has applied: where the log has nothing there, up to
/// the log's end. Of the effects that wait (`waiting`, all of them) those of events behind that are not performed: they
/// were asked for by what is not in the log.
///
/// Also while an attempt at it is under way, or nobody knows how that ended because the subscriber rests: the row that the
/// attempt began with is no more, so nothing of it is stored.
///
/// # Errors
/// When that is not what is held, or is an effect.
pub fn discard_event(
    row: &Row,
    id: LetterId,
    stream: &Stream,
    waiting: &[RecordedEffect],
    decision: Decision,
) -> Result<(Row, Vec<EffectOutcome>, Discard), Refused> {
    let hold = at_head(row, id)?;
    if hold.state != HoldState::Conflicting && id.version > row.seen {
        // Nobody has seen it: the lane looks whether there is something, and what is to come is not let go before it is there.
        return Err(Refused::NotHeld(id));
    }
    let there = stream.nearest.as_ref().filter(|event| event.version == id.version);
    let mut after = row.clone();
    let mut outcomes = Vec::new();
    match hold.state {
        HoldState::Conflicting => {
            after.applied = stream.nearest.as_ref().map_or(Version::NONE, |event| event.version);
            after.applied_event = stream.nearest.as_ref().map(|event| event.event);
            // What was seen of a stream that is gone would be waited for, and taken for what comes in its place.
            after.seen = stream.end.max(after.applied);
            after.performed = row.performed.min(after.applied);
            outcomes = let_go(&mut after, waiting, &decision);
        }
        HoldState::Attempting | HoldState::Retrying | HoldState::Gap | HoldState::Dead | HoldState::Undecodable => {
            after.applied = id.version;
            after.applied_event = there.map(|event| event.event);
            after.seen = row.seen.max(id.version);
        }
    }
    if after.effects_waiting == 0 {
        after.performed = after.applied;
    }
    after.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, hold.since, Some(decision.at))));
    let known = there.map(|event| (event.event, event.event_type.clone()));
    let known = known.or_else(|| head_at(hold, id).map(|head| (head.event, head.event_type.clone())));
    Ok((after, outcomes, discard(id, known, hold, decision)))
}

/// The row whose lane goes on behind an effect, the effect's outcome, and the decision to be kept.
///
/// # Errors
/// When that effect is not what is held.
pub fn discard_effect(
    row: &Row,
    effect: &NewEffect,
    decision: Decision,
) -> Result<(Row, EffectOutcome, Discard), Refused> {
    let id = LetterId::of_effect(effect);
    let hold = held(row, id)?;
    let mut after = row.clone();
    after.performing = Lane::Ready;
    after.effects_waiting = row.effects_waiting.saturating_sub(1);
    after.performed = row.performed.max(performed_up_to(&after, effect));
    let outcome = EffectOutcome {
        order: row.order,
        id: effect.id,
        outcome: Outcome { kind: OutcomeKind::Discarded, detail: decision.reason.clone() },
        at: decision.at,
    };
    let event_type = head_at(hold, id).and_then(known_type);
    let discard = Discard { event: Some(effect.id.event), event_type, ..discard(id, None, hold, decision) };
    Ok((after, outcome, discard))
}

/// The outcomes of effects whose events are not in the log any more.
fn let_go(row: &mut Row, waiting: &[RecordedEffect], decision: &Decision) -> Vec<EffectOutcome> {
    let gone: Vec<_> = waiting.iter().map(|one| &one.effect).filter(|effect| effect.version > row.applied).collect();
    if waiting.first().is_some_and(|first| first.effect.version > row.applied) {
        row.performing = Lane::Ready;
    }
    row.effects_waiting = row.effects_waiting.saturating_sub(u32::try_from(gone.len()).unwrap_or(u32::MAX));
    let outcome = |effect: &NewEffect| EffectOutcome {
        order: row.order,
        id: effect.id,
        outcome: Outcome { kind: OutcomeKind::Discarded, detail: decision.reason.clone() },
        at: decision.at,
    };
    gone.into_iter().map(outcome).collect()
}

fn performed_up_to(row: &Row, effect: &NewEffect) -> Version {
    if row.effects_waiting == 0 {
        row.applied
    } else if effect.last_of_event {
        effect.version
    } else {
        Version(effect.version.0.saturating_sub(1))
    }
}

fn discard(id: LetterId, known: Option<(EventId, String)>, hold: &Hold, decision: Decision) -> Discard {
    let (event, event_type) = known.unzip();
    let Decision { reason, by, at } = decision;
    Discard {
        order: id.order,
        version: id.version,
        event,
        event_type,
        effect: id.effect,
        reason,
        by,
        at,
        hold: hold.clone(),
    }
}

/// Why `id` is held, when it is and no attempt at it is under way.
fn held(row: &Row, id: LetterId) -> Result<&Hold, Refused> {
    let hold = at_head(row, id)?;
    if hold.state == HoldState::Attempting { Err(Refused::UnderWay(id)) } else { Ok(hold) }
}

/// Why `id` is held, when it is.
fn at_head(row: &Row, id: LetterId) -> Result<&Hold, Refused> {
    let Some(hold) = id.work().lane(row).hold() else { return Err(Refused::NotHeld(id)) };
    match LetterId::of(row, id.work()) {
        Some(head) if head != id => Err(Refused::AnotherHeld(id, head)),
        Some(_) | None => Ok(hold),
    }
}

/// What was written down about the head, if it is about that one.
pub(super) fn head_at(hold: &Hold, id: LetterId) -> Option<&HeadOfLane> {
    hold.head.as_ref().filter(|head| (head.version, head.effect) == (id.version, id.effect))
}

/// The type of the event, where it was written down: with an effect it is not.
pub(super) fn known_type(head: &HeadOfLane) -> Option<String> {
    Some(&head.event_type).filter(|event_type| !event_type.is_empty()).cloned()
}

/// The row whose lane for performing is held for the first effect that waits, whatever was written down about its head.
pub(super) fn held_for(mut row: Row, first: &NewEffect) -> Row {
    let head = HeadOfLane {
        version: first.version,
        event: first.id.event,
        event_type: String::new(),
        effect: Some(first.id.index),
    };
    if let Lane::Held(hold) = &mut row.performing
        && head_at(hold, LetterId::of_effect(first)).is_none()
    {
        hold.head = Some(head);
    }
    row
}

impl Work {
    /// That lane of a row.
    pub fn lane(self, row: &Row) -> &Lane {
        match self {
            Self::Applying => &row.applying,
            Self::Performing => &row.performing,
        }
    }

    fn lane_mut(self, row: &mut Row) -> &mut Lane {
        match self {
            Self::Applying => &mut row.applying,
            Self::Performing => &mut row.performing,
        }
    }
}

#[cfg(test)]
mod tests;
