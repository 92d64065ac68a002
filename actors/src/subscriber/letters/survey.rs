//! Looks through everything that is held: counts it, groups it by what went wrong, and gives one page of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::unreadable::numbered;
use super::{Group, Letter, LetterError, Letters, SetAside, Unreadable};
use crate::clock::Timestamp;
use crate::event_store::StoreError;
use crate::inbox::{FailureKind, HoldState, InboxError, LaneCounts, RecordedEffect, Row, Which, Work};

/// Rows that are read at once.
const ROWS_READ: usize = 500;
/// Messages at the broker that are looked at.
const MESSAGES_READ_MAX: usize = 1_000;
/// How long the broker may take to show them, for all subscribers together.
const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Events that are looked up at once.
const EVENTS_READ_AT_ONCE: usize = 16;
/// How long the log may take to say of which types the events of a page are.
const TYPES_WITHIN: Duration = Duration::from_secs(2);

/// What a letter can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Held by a lane.
    Held(HoldState),
    /// A message that nobody can read.
    Unreadable,
}

impl State {
    /// What waits for a person: [`Filter::default`].
    pub const DEFAULT: [Self; 4] = [
        Self::Held(HoldState::Dead),
        Self::Held(HoldState::Undecodable),
        Self::Held(HoldState::Conflicting),
        Self::Unreadable,
    ];

    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        HoldState::ALL.into_iter().map(Self::Held).chain([Self::Unreadable])
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held(state) => state.name(),
            Self::Unreadable => "unreadable",
        }
    }

    /// The state with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|state| state.name() == name)
    }
}

/// Which letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Of events of this type.
    pub event_type: Option<String>,
    /// Whose last failure is of this group.
    pub group: Option<Group>,
    /// In one of these states.
    pub states: Vec<State>,
    /// Held since that moment or later.
    pub from: Option<Timestamp>,
    /// Held since before that moment.
    pub to: Option<Timestamp>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { event_type: None, group: None, states: State::DEFAULT.to_vec(), from: None, to: None }
    }
}

impl Filter {
    fn wants(&self, state: State) -> bool {
        self.states.contains(&state)
    }

    /// The states of the lanes that are counted there which are asked for.
    fn wanted_of(&self, counts: &LaneCounts) -> Vec<HoldState> {
        HoldState::ALL.into_iter().filter(|state| self.wants(State::Held(*state)) && counts.of(*state) > 0).collect()
    }

    fn has_time(&self, at: Option<Timestamp>) -> bool {
        let from = self.from.is_none_or(|from| at.is_some_and(|at| at >= from));
        let to = self.to.is_none_or(|to| at.is_some_and(|at| at < to));
        from && to
    }

    /// Whether that letter is asked for.
    pub fn has(&self, letter: &Letter) -> bool {
        self.event_type.as_ref().is_none_or(|wanted| letter.event_type.as_ref() == Some(wanted))
            && self.has_but_type(letter)
    }

    fn has_but_type(&self, letter: &Letter) -> bool {
        let of_group = self.group.as_ref().is_none_or(|wanted| letter.group().as_ref() == Some(wanted));
        self.wants(State::Held(letter.hold.state)) && of_group && self.has_time(Some(letter.hold.since))
    }

    fn has_message(&self, message: &Unreadable) -> bool {
        let of_group = self.group.as_ref().is_none_or(|wanted| *wanted == Unreadable::group());
        self.wants(State::Unreadable) && self.event_type.is_none() && of_group && self.has_time(message.at)
    }
}

/// Something that is listed.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// What a lane holds.
    Held(Letter),
    /// What nobody can read.
    Unreadable {
        /// Whose.
        subscriber: &'static str,
        /// The message.
        message: Unreadable,
    },
}

impl Entry {
    /// Where it stands in the list.
    pub fn place(&self) -> Place {
        match self {
            Self::Held(letter) => {
                Place { since: letter.hold.since, subscriber: letter.subscriber.to_owned(), id: letter.id.to_string() }
            }
            Self::Unreadable { subscriber, message } => Place {
                since: message.at.unwrap_or(Timestamp::EPOCH),
                subscriber: (*subscriber).to_owned(),
                id: message.id.clone(),
            },
        }
    }

    fn group(&self) -> Option<(Group, GroupKind)> {
        match self {
            Self::Held(letter) => {
                let failure = letter.failure()?;
                let place = failure.place.as_deref().map(str::to_owned);
                Some((
                    Group::of(failure),
                    GroupKind { kind: Some(failure.kind), place, example: failure.text.to_string() },
                ))
            }
            Self::Unreadable { message, .. } => {
                Some((Unreadable::group(), GroupKind { kind: None, place: None, example: message.reason.clone() }))
            }
        }
    }
}

/// A place in the list: the latest are first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    since: Timestamp,
    subscriber: String,
    id: String,
}

/// The text is no place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place is as it was given")]
pub struct NotAPlace;

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let later_first = other.since.as_millis().cmp(&self.since.as_millis());
        later_first.then_with(|| (&self.subscriber, &self.id).cmp(&(&other.subscriber, &other.id)))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}", self.since.as_millis(), self.id, self.subscriber)
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let mut parts = text.split('~');
        let (Some(since), Some(id), Some(subscriber), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAPlace);
        };
        let since = Timestamp::from_millis(since.parse().map_err(|_| NotAPlace)?);
        Ok(Self { since, subscriber: subscriber.to_owned(), id: id.to_owned() })
    }
}

/// How often something went wrong in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCount {
    /// Which group.
    pub group: Group,
    /// Of which kind its failures are; `None`: they are messages that nobody can read.
    pub kind: Option<FailureKind>,
    /// Where in the code.
    pub place: Option<String>,
    /// What one of them says.
    pub example: String,
    /// How many.
    pub count: u64,
}

struct GroupKind {
    kind: Option<FailureKind>,
    place: Option<String>,
    example: String,
}

/// A page of letters, and what all of them add up to.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The page, the latest first.
    pub entries: Vec<Entry>,
    /// Where the next page begins: behind that.
    pub next: Option<Place>,
    /// What went wrong, on all pages, the most frequent first.
    pub groups: Vec<GroupCount>,
    /// How many there are on all pages.
    pub count: u64,
    /// How many of them can be retried.
    pub retryable: u64,
    /// Why the messages that nobody can read are not among them, when that is so.
    pub trouble: Option<String>,
}

/// Adds up, and keeps as much as one page needs.
struct Survey {
    after: Option<Place>,
    limit: usize,
    page: BTreeMap<Place, Entry>,
    groups: HashMap<Group, GroupCount>,
    count: u64,
    retryable: u64,
}

impl Survey {
    fn take(&mut self, entry: Entry) {
        self.count += 1;
        if let Entry::Held(letter) = &entry {
            self.retryable += u64::from(letter.is_at_rest());
        }
        if let Some((group, GroupKind { kind, place, example })) = entry.group() {
            let counted = self.groups.entry(group.clone());
            counted.or_insert(GroupCount { group, kind, place, example, count: 0 }).count += 1;
        }
        let place = entry.place();
        if self.after.as_ref().is_some_and(|after| place <= *after) {
            return;
        }
        self.page.insert(place, entry);
        // One more than is asked for says whether there is another page.
        if self.page.len() > self.limit + 1 {
            self.page.pop_last();
        }
    }

    fn listed(self, trouble: Option<String>) -> Listed {
        let mut entries: Vec<_> = self.page.into_values().collect();
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        let next = entries.last().filter(|_| more).map(Entry::place);
        let mut groups: Vec<_> = self.groups.into_values().collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.group.cmp(&b.group)));
        Listed { entries, next, groups, count: self.count, retryable: self.retryable, trouble }
    }
}

impl Letters {
    /// A page of what these subscribers hold, with what the whole adds up to. That the broker does not answer is said
    /// there, and keeps nothing else from being shown.
    ///
    /// # Errors
    /// When the store of one of them did not answer, or so much is held that it was not looked through by `until`: half a
    /// list would be taken for the whole.
    pub async fn list(
        subscribers: &[Self],
        set_aside: Option<&dyn SetAside>,
        filter: &Filter,
        (after, limit): (Option<Place>, usize),
        until: Instant,
    ) -> Result<Listed, LetterError> {
        let (page, groups) = (BTreeMap::new(), HashMap::new());
        let mut survey = Survey { after, limit, page, groups, count: 0, retryable: 0 };
        for letters in subscribers {
            letters.each(filter, until, |letter| survey.take(Entry::Held(letter))).await?;
        }
        let trouble = match set_aside.filter(|_| filter.wants(State::Unreadable)) {
            Some(set_aside) => Self::take_unreadable(subscribers, set_aside, filter, &mut survey).await.err(),
            None => None,
        };
        let mut listed = survey.listed(trouble);
        // Whoever cannot learn of which type they are sees them all the same.
        let until = until.min(Instant::now() + TYPES_WITHIN);
        let named = timeout_at(until, Self::name_types(subscribers, &mut listed, until)).await;
        if let Ok(Err(error)) = named {
            tracing::debug!(%error, "of which types the events of some dead letters are is not known");
        }
        Ok(listed)
    }

    /// A broker that does not answer about one subscriber is not asked about the next.
    async fn take_unreadable(
        subscribers: &[Self],
        set_aside: &dyn SetAside,
        filter: &Filter,
        survey: &mut Survey,
    ) -> Result<(), String> {
        let until = Instant::now() + BROKER_ANSWERS_WITHIN;
        for letters in subscribers {
            let messages = letters.unreadable_until(set_aside, until).await?;
            for message in messages.into_iter().filter(|message| filter.has_message(message)) {
                survey.take(Entry::Unreadable { subscriber: letters.name, message });
            }
        }
        Ok(())
    }

    /// The messages that nobody can read, or why they are not shown.
    ///
    /// # Errors
    /// In words.
    pub async fn unreadable(&self, set_aside: &dyn SetAside) -> Result<Vec<Unreadable>, String> {
        self.unreadable_until(set_aside, Instant::now() + BROKER_ANSWERS_WITHIN).await
    }

    async fn unreadable_until(&self, set_aside: &dyn SetAside, until: Instant) -> Result<Vec<Unreadable>, String> {
        match timeout_at(until, set_aside.unreadable(self.name, MESSAGES_READ_MAX)).await {
            Ok(Ok(messages)) => Ok(numbered(messages)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the broker did not show them in time".to_owned()),
        }
    }

    /// Gives every letter that is asked for, in no order.
    ///
    /// # Errors
    /// When the store did not answer, or not all of them were looked through by `until`.
    pub(super) async fn each(
        &self,
        filter: &Filter,
        until: Instant,
        mut visit: impl FnMut(Letter),
    ) -> Result<(), LetterError> {
        let generation = self.inbox.present().await?.generation;
        let totals = self.inbox.totals(generation).await?;
        for (work, counts) in [(Work::Applying, &totals.applying), (Work::Performing, &totals.performing)] {
            // Where a million lanes wait in a state that nobody asks for, they are not looked through.
            let states = filter.wanted_of(counts);
            let mut after = None;
            while !states.is_empty() {
                let rows = self.inbox.held(generation, work, &states, after, ROWS_READ).await?;
                let Some(last) = rows.last() else { break };
                if after.is_some() && Instant::now() >= until {
                    return Err(LetterError::TooManyHeld);
                }
                after = Some(last.order);
                self.wanted(filter, &rows, (work, until)).await?.into_iter().for_each(&mut visit);
            }
        }
        Ok(())
    }

    /// The letters of these rows that are asked for.
    async fn wanted(
        &self,
        filter: &Filter,
        rows: &[Row],
        (work, until): (Work, Instant),
    ) -> Result<Vec<Letter>, LetterError> {
        let firsts = self.first_effects(rows, work).await?;
        let letters = rows.iter().filter_map(|row| {
            let first = firsts.iter().find(|first| first.effect.order == row.order);
            Letter::of(self.name, row, work, first)
        });
        let mut letters: Vec<_> = letters.filter(|letter| filter.has_but_type(letter)).collect();
        if filter.event_type.is_some() {
            self.learn_types(letters.iter_mut(), until).await?;
            letters.retain(|letter| filter.has(letter));
        }
        Ok(letters)
    }

    /// Of which types the events of a page are.
    async fn name_types(subscribers: &[Self], listed: &mut Listed, until: Instant) -> Result<(), LetterError> {
        for letters in subscribers {
            let held = listed.entries.iter_mut().filter_map(|entry| match entry {
                Entry::Held(letter) => Some(letter).filter(|letter| letter.subscriber == letters.name),
                Entry::Unreadable { .. } => None,
            });
            letters.learn_types(held, until).await?;
        }
        Ok(())
    }

    /// Asks the log of which types the events are that the letters are about, where nobody wrote that down.
    async fn learn_types(&self, letters: impl Iterator<Item = &mut Letter>, until: Instant) -> Result<(), LetterError> {
        let unknown = letters.filter(|letter| letter.event_type.is_none() && letter.is_of_event_in_log());
        let learned = stream::iter(unknown).map(|letter| async move {
            letter.event_type = self.type_of(letter).await?;
            Ok(())
        });
        let mut learned = learned.buffer_unordered(EVENTS_READ_AT_ONCE);
        while learned.try_next().await.map_err(LetterError::Log)?.is_some() {
            if Instant::now() >= until {
                return Err(LetterError::TooManyHeld);
            }
        }
        Ok(())
    }

    async fn type_of(&self, letter: &Letter) -> Result<Option<String>, StoreError> {
        let commits = self.history.read(letter.id.order, letter.id.version, 1).await?;
        let mut events = commits.iter().flat_map(|commit| commit.envelopes());
        let event = events.find(|event| event.version == letter.id.version);
        Ok(event.filter(|event| letter.event.is_none_or(|known| known == event.id)).map(|event| event.event_type))
    }

    /// The first effects of lanes of which nobody wrote down what they wait for.
    async fn first_effects(&self, rows: &[Row], work: Work) -> Result<Vec<RecordedEffect>, InboxError> {
        let headless = |row: &&Row| work.lane(row).hold().is_some_and(|hold| hold.head.is_none());
        match work {
            Work::Applying => Ok(Vec::new()),
            Work::Performing => {
                let orders: Vec<_> = rows.iter().filter(headless).map(|row| row.order).collect();
                if orders.is_empty() { Ok(Vec::new()) } else { self.inbox.effects(orders, Which::Waiting, 1).await }
            }
        }
    }
}
