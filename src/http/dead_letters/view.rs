//! Dead letters as operators get them.

use std::sync::Arc;

use actors::clock::Timestamp;
use actors::event::{Envelope, EventId};
use actors::inbox::{self, Attempt, Failure, FailureKind, HoldState};
use actors::order::{OrderId, Version};
use actors::subscriber::letters::{
    Behind, Change, DryRun, Entry, Group, GroupCount, Letter, Letters, Listed, Retried, Shown, Trial, Tried,
    Unreadable, WouldApply,
};
use serde::Serialize;
use serde_json::value::RawValue;

/// A page of dead letters.
#[derive(Serialize)]
pub(super) struct ListedView {
    dead_letters: Vec<LetterView>,
    next_cursor: Option<String>,
    groups: Vec<GroupView>,
    count: u64,
    retryable: u64,
    /// Whose they are: of those that run elsewhere nothing is known here.
    subscribers: Vec<&'static str>,
    /// Why the messages that nobody can read are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl ListedView {
    pub(super) fn new(listed: Listed, subscribers: &[Letters]) -> Self {
        let Listed { entries, next, groups, count, retryable, trouble } = listed;
        Self {
            dead_letters: entries.iter().map(LetterView::of).collect(),
            next_cursor: next.map(|next| next.to_string()),
            groups: groups.into_iter().map(GroupView::of).collect(),
            count,
            retryable,
            subscribers: subscribers.iter().map(Letters::subscriber).collect(),
            trouble,
        }
    }
}

/// How often something went wrong in the same way.
#[derive(Serialize)]
struct GroupView {
    group: String,
    kind: &'static str,
    place: Option<String>,
    example: String,
    count: u64,
}

impl GroupView {
    fn of(GroupCount { group, kind, place, example, count }: GroupCount) -> Self {
        Self { group: group.to_string(), kind: kind.map_or(UNREADABLE, FailureKind::name), place, example, count }
    }
}

const UNREADABLE: &str = "unreadable";

/// A dead letter in a list.
#[derive(Serialize)]
pub(super) struct LetterView {
    id: String,
    subscriber: &'static str,
    order: Option<OrderId>,
    version: Option<Version>,
    event_id: Option<EventId>,
    event_type: Option<String>,
    /// The place of the effect among those of its event; absent for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<u32>,
    state: &'static str,
    group: Option<String>,
    kind: Option<&'static str>,
    place: Option<String>,
    error: Option<String>,
    attempts: u32,
    since: Option<Timestamp>,
    last_attempt_at: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    waiting_behind: u64,
    /// What comes next, and what the operator can do, in words.
    next: String,
    /// What the operator can do.
    actions: &'static [&'static str],
}

impl LetterView {
    fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Held(letter) => Self::held(letter),
            Entry::Unreadable { subscriber, message } => Self::unreadable(subscriber, message),
        }
    }

    /// What a lane holds.
    pub(super) fn held(letter: &Letter) -> Self {
        let failure = letter.failure();
        Self {
            id: letter.id.to_string(),
            subscriber: letter.subscriber,
            order: Some(letter.id.order),
            version: Some(letter.id.version),
            event_id: letter.event,
            event_type: letter.event_type.clone(),
            effect: letter.id.effect,
            state: letter.hold.state.name(),
            group: letter.group().map(|group| group.to_string()),
            kind: failure.map(|failure| failure.kind.name()),
            place: failure.and_then(|failure| failure.place.as_deref().map(str::to_owned)),
            error: failure.map(|failure| failure.text.to_string()),
            attempts: letter.hold.attempts,
            since: Some(letter.hold.since),
            last_attempt_at: letter.last_attempt_at(),
            next_attempt_at: letter.hold.next_attempt_at,
            waiting_behind: letter.waiting_behind,
            next: next(letter),
            actions: actions(letter),
        }
    }

    fn unreadable(subscriber: &'static str, message: &Unreadable) -> Self {
        Self {
            id: message.id.clone(),
            subscriber,
            order: None,
            version: None,
            event_id: None,
            event_type: None,
            effect: None,
            state: UNREADABLE,
            group: Some(Unreadable::group().to_string()),
            kind: Some(UNREADABLE),
            place: None,
            error: Some(message.reason.clone()),
            attempts: 0,
            since: message.at,
            last_attempt_at: None,
            next_attempt_at: None,
            waiting_behind: 0,
            next:
                "No event waits for it: what the log has comes from there. A docket that can read it puts it back by \
                   itself; else it stays until somebody deletes it at the broker."
                    .to_owned(),
            actions: &[],
        }
    }
}

fn actions(letter: &Letter) -> &'static [&'static str] {
    match (letter.is_at_rest(), letter.may_end_processes()) {
        (false, _) => &["discard"],
        (true, true) => &["retry", "discard"],
        (true, false) => &["retry", "dry_run", "discard"],
    }
}

/// What comes next, for whoever is on call.
fn next(letter: &Letter) -> String {
    let by_itself = letter.hold.next_attempt_at.map_or_else(
        || "It is not tried again by itself.".to_owned(),
        |at| format!("It is tried again by itself at {at}."),
    );
    let what = if letter.id.effect.is_some() { "effects" } else { "events" };
    match letter.hold.state {
        HoldState::Dead => format!(
            "{by_itself} Mend its cause and retry it; or discard it with a reason, and the order's later {what} go on \
             without it."
        ),
        HoldState::Undecodable => format!(
            "{by_itself} This docket cannot read it, a newer one may; or discard it with a reason, and the order's \
             later events go on without it."
        ),
        HoldState::Conflicting => format!(
            "{by_itself} The log contradicts what was applied: is it another store, or one restored from a backup? \
             Retry it when the right one is back; a discard takes what the log has as applied."
        ),
        HoldState::Gap => format!("{by_itself} The log is asked for what is missing, and never skipped by itself."),
        HoldState::Retrying => format!("{by_itself} A retry tries it at once, with all its attempts."),
        HoldState::Attempting => {
            "It is being handled now, or was when a process ended that nobody has followed. A discard \
             lets it go whatever becomes of that."
                .to_owned()
        }
    }
}

/// A dead letter with everything that is known of it.
#[derive(Serialize)]
pub(super) struct ShownView {
    #[serde(flatten)]
    letter: LetterView,
    /// Of an effect: what is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<Box<RawValue>>,
    /// Of a message: what it is called by whoever published it, how long it is, and how it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageView>,
    event: Option<EventView>,
    /// Why the event is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_trouble: Option<String>,
    tried: Vec<AttemptView>,
    behind: Vec<BehindView>,
    /// How many wait besides those.
    behind_more: u64,
}

#[derive(Serialize)]
struct MessageView {
    message_id: Option<String>,
    bytes: usize,
    excerpt: String,
}

#[derive(Serialize)]
struct EventView {
    /// As it was written.
    stored: Arc<Envelope>,
    /// Its data in the newest schema, as a handler gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    upcast: Option<UpcastView>,
    /// Why a handler does not get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

#[derive(Serialize)]
struct UpcastView {
    schema_version: u32,
    data: Box<RawValue>,
}

#[derive(Serialize)]
struct AttemptView {
    at: Timestamp,
    kind: &'static str,
    group: String,
    place: Option<String>,
    error: String,
}

#[derive(Serialize)]
struct BehindView {
    version: Version,
    event_id: EventId,
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<u32>,
}

impl ShownView {
    /// What a lane holds.
    pub(super) fn held(Shown { letter, event, behind, effect }: Shown) -> Self {
        let (event, event_trouble) = match event {
            Ok(Some(event)) => (Some(EventView::of(event)), None),
            Ok(None) => (None, Some(format!("The log has no event {} of this order.", letter.id.version))),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            to_do: effect.and_then(|effect| raw(&effect.effect.body)),
            message: None,
            event,
            event_trouble,
            tried: letter.hold.tried.iter().map(AttemptView::of).collect(),
            behind_more: letter.waiting_behind.saturating_sub(behind.len() as u64),
            behind: behind.into_iter().map(BehindView::of).collect(),
            letter: LetterView::held(&letter),
        }
    }

    /// A message that nobody can read.
    pub(super) fn unreadable(subscriber: &'static str, message: Unreadable) -> Self {
        let letter = LetterView::unreadable(subscriber, &message);
        let Unreadable { message_id, bytes, excerpt, .. } = message;
        Self {
            letter,
            to_do: None,
            message: Some(MessageView { message_id, bytes, excerpt }),
            event: None,
            event_trouble: None,
            tried: Vec::new(),
            behind: Vec::new(),
            behind_more: 0,
        }
    }
}

impl EventView {
    fn of(stored: Arc<Envelope>) -> Self {
        let decoded = stored.decode().map_err(|error| error.to_string());
        let upcast = decoded.and_then(|event| {
            let data = event.encode().map_err(|error| error.to_string())?;
            Ok(UpcastView { schema_version: event.kind().newest_schema(), data })
        });
        let (upcast, unreadable) = match upcast {
            Ok(upcast) => (Some(upcast), None),
            Err(why) => (None, Some(why)),
        };
        Self { stored, upcast, unreadable }
    }
}

impl AttemptView {
    fn of(Attempt { at, failure }: &Attempt) -> Self {
        Self {
            at: *at,
            kind: failure.kind.name(),
            group: Group::of(failure).to_string(),
            place: failure.place.as_deref().map(str::to_owned),
            error: failure.text.to_string(),
        }
    }
}

impl BehindView {
    fn of(Behind { version, event, event_type, effect }: Behind) -> Self {
        Self { version, event_id: event, event_type, effect }
    }
}

/// JSON of the subscriber's own.
fn raw(body: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(body.to_owned()).ok()
}

/// What a letter would come to. Nothing was written, and nothing performed.
#[derive(Serialize)]
pub(super) struct DryRunView {
    dry_run: bool,
    outcome: &'static str,
    /// In words.
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<Vec<ChangeView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effects: Option<Vec<Box<RawValue>>>,
}

/// What an event would come to, held or not.
#[derive(Serialize)]
pub(super) struct TrialView {
    order: OrderId,
    version: Version,
    event_type: Option<String>,
    /// The documents are those behind this event of the order.
    applied: Version,
    #[serde(flatten)]
    run: DryRunView,
}

impl TrialView {
    pub(super) fn of(order: OrderId, Trial { version, event_type, applied, run }: Trial) -> Self {
        Self { order, version, event_type, applied, run: DryRunView::of(run) }
    }
}

#[derive(Serialize)]
struct FailureView {
    kind: &'static str,
    group: String,
    place: Option<String>,
    error: String,
}

#[derive(Serialize)]
struct ChangeView {
    collection: String,
    id: String,
    change: &'static str,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
}

impl DryRunView {
    pub(super) fn of(run: DryRun) -> Self {
        let of = |outcome, says: &str| Self {
            dry_run: true,
            outcome,
            says: says.to_owned(),
            failure: None,
            documents: None,
            effects: None,
        };
        match run {
            DryRun::Applied(WouldApply { documents, effects }) => Self {
                documents: Some(documents.into_iter().map(ChangeView::of).collect()),
                effects: Some(effects.iter().filter_map(|effect| raw(effect)).collect()),
                ..of("would_apply", "It would be handled now.")
            },
            DryRun::Passed => {
                of("would_apply", "Nobody here knows its type: it would only count as handled.").with_nothing()
            }
            DryRun::Failed(failure) => {
                Self { failure: Some(FailureView::of(&failure)), ..of("would_fail", "It would fail.") }
            }
            DryRun::Undecodable(failure) => Self {
                failure: Some(FailureView::of(&failure)),
                ..of("would_fail", "This docket cannot read it; a newer one may.")
            },
            DryRun::NotInLog => of("not_in_log", "The log has no such event: there is nothing to handle."),
            DryRun::Contradicts => of(
                "contradicts",
                "The log contradicts what was applied. A retry looks again; a discard takes what the log has as applied.",
            ),
            DryRun::EndsProcesses => of(
                "ends_processes",
                "An attempt at it ended the process, or may have: a dry run could end this one, so it was not made.",
            ),
            DryRun::Effect(body) => Self {
                effects: Some(raw(&body).into_iter().collect()),
                ..of("would_perform", "It would be performed; whether that succeeds only performing it says.")
            },
        }
    }

    fn with_nothing(self) -> Self {
        Self { documents: Some(Vec::new()), effects: Some(Vec::new()), ..self }
    }
}

impl FailureView {
    fn of(failure: &Failure) -> Self {
        Self {
            kind: failure.kind.name(),
            group: Group::of(failure).to_string(),
            place: failure.place.as_deref().map(str::to_owned),
            error: failure.text.to_string(),
        }
    }
}

impl ChangeView {
    fn of(Change { collection, id, before, after }: Change) -> Self {
        let change = match (&before, &after) {
            (None, _) => "created",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "deleted",
        };
        let json = |body: Option<inbox::Body>| body.and_then(|body| raw(&body));
        Self { collection, id, change, before: json(before), after: json(after) }
    }
}

/// What became of many.
#[derive(Serialize)]
pub(super) struct RetriedView {
    retried: u64,
    /// Handled, discarded or retried by somebody else meanwhile.
    changed: u64,
    /// Not retried.
    left: u64,
    per_second: u32,
    /// When the last of them is tried.
    last_at: Option<Timestamp>,
    /// Why some are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    next: &'static str,
}

impl RetriedView {
    pub(super) fn of(Retried { retried, changed, left, trouble, last_at, resting }: Retried, per_second: u32) -> Self {
        let next = if resting {
            "A subscriber rests: what is due when it goes on is tried at once then, however many per second was said."
        } else if left == 0 {
            "What is handled is gone from the list; what fails again comes back to it after its attempts."
        } else {
            "List them again, and retry what is left with its count."
        };
        Self { retried, changed, left, per_second, last_at, trouble, next }
    }
}

/// What many would come to.
#[derive(Serialize)]
pub(super) struct TriedView {
    dry_run: bool,
    tried: u64,
    would_apply: u64,
    would_perform: u64,
    would_fail: u64,
    changed: u64,
    /// Not tried: the time was over.
    left: u64,
    groups: Vec<GroupView>,
}

impl TriedView {
    pub(super) fn of(Tried { tried, applied, effects, failed, groups, changed, left }: Tried) -> Self {
        Self {
            dry_run: true,
            tried,
            would_apply: applied,
            would_perform: effects,
            would_fail: failed,
            changed,
            left,
            groups: groups.into_iter().map(GroupView::of).collect(),
        }
    }
}

/// A decision that is kept.
#[derive(Serialize)]
pub(super) struct DiscardView {
    discarded: bool,
    subscriber: &'static str,
    order: OrderId,
    version: Version,
    event_id: Option<EventId>,
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<u32>,
    reason: String,
    by: String,
    at: Timestamp,
    next: String,
}

impl DiscardView {
    pub(super) fn of(subscriber: &'static str, discard: inbox::Discard) -> Self {
        let inbox::Discard { order, version, event, event_type, effect, reason, by, at, hold: _ } = discard;
        let what = if effect.is_some() { "effects" } else { "events" };
        Self {
            discarded: true,
            subscriber,
            order,
            version,
            event_id: event,
            event_type,
            effect,
            reason,
            by,
            at,
            next: format!("The order's later {what} go on. The decision is shown with the order's events."),
        }
    }
}
