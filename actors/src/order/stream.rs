//! An order with what its stream says beyond its state: where it ends, how many commands it took, and which idempotency
//! keys were used for what. Plain data and functions, as the aggregate.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aggregate::{self, CannotEvolve, STATE_SCHEMA};
use super::command::{COMMANDS_KEPT_TO_FINISH, COMMANDS_MAX, Command};
use super::error::Refusal;
use super::event::OrderEvent;
use super::{CommandError, Order, OrderId, Version};
use crate::clock::Timestamp;
use crate::commit::{Commit, Fingerprint, Key, KeyHash, Origin, Part, StreamEnd};
use crate::event::{Envelope, EventId};
use crate::snapshots::Snapshot;

/// The aggregate's two functions. Always [`Rules::ORDER`], but in tests that show what becomes of a rule that panics.
#[derive(Clone, Copy)]
pub struct Rules {
    /// [`aggregate::decide`].
    pub decide: fn(Option<&Order>, &Command) -> Result<Vec<OrderEvent>, Refusal>,
    /// [`aggregate::evolve`].
    pub evolve: fn(Option<Order>, OrderId, &OrderEvent, Timestamp) -> Result<Order, CannotEvolve>,
}

impl Rules {
    /// Those of orders.
    pub const ORDER: Self = Self { decide: aggregate::decide, evolve: aggregate::evolve };
}

/// Why a stored event cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unreadable {
    /// A newer docket wrote it.
    #[error("event {version} is of a newer schema: {what}")]
    SchemaAhead {
        /// The event.
        version: Version,
        /// Its type and schema.
        what: String,
    },
    /// It is damaged, or cannot follow on the event before it.
    #[error("event {version} cannot be applied: {what}")]
    Poisonous {
        /// The event.
        version: Version,
        /// What is wrong.
        what: String,
    },
}

/// The order after one more stored event.
///
/// # Errors
/// When the event cannot be read or cannot follow.
pub fn fold(rules: Rules, order: Option<Order>, envelope: &Envelope) -> Result<Order, Unreadable> {
    let version = envelope.version;
    let decoded = OrderEvent::decode(&envelope.event_type, envelope.schema_version, &envelope.data);
    let event = decoded.map_err(|error| match error.is_ahead() {
        true => Unreadable::SchemaAhead { version, what: error.to_string() },
        false => Unreadable::Poisonous { version, what: error.to_string() },
    })?;
    let poisonous = |what: String| Unreadable::Poisonous { version, what };
    let order = (rules.evolve)(order, envelope.order, &event, envelope.recorded_at)
        .map_err(|error| poisonous(error.to_string()))?;
    if order.version != version {
        return Err(poisonous(format!("it follows on version {}", order.version)));
    }
    Ok(order)
}

/// An order as its stored commits made it.
#[derive(Clone, Debug)]
pub struct Stream {
    end: StreamEnd,
    order: Option<Arc<Order>>,
    commands: u32,
    keys: HashMap<KeyHash, Used>,
}

/// What a key was used for, and the version that the command led to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Used {
    fingerprint: Fingerprint,
    version: Version,
}

#[derive(Serialize, Deserialize)]
struct State {
    order: Order,
    commands: u32,
    keys: Vec<(KeyHash, Used)>,
}

impl Stream {
    /// An order without events.
    pub fn nothing(order: OrderId) -> Self {
        Self { end: StreamEnd::nothing(order), order: None, commands: 0, keys: HashMap::new() }
    }

    /// As a snapshot has it; `None` when the snapshot is of another shape.
    pub fn from_snapshot(snapshot: &Snapshot) -> Option<Self> {
        if snapshot.schema != STATE_SCHEMA {
            return None;
        }
        let state: State = serde_json::from_str(&snapshot.state).ok()?;
        let fits = state.order.id == snapshot.end.order() && state.order.version == snapshot.end.version();
        fits.then(|| Self {
            end: snapshot.end,
            order: Some(Arc::new(state.order)),
            commands: state.commands,
            keys: state.keys.into_iter().collect(),
        })
    }

    /// For [`Stream::from_snapshot`]; `None` while there is no event.
    pub fn to_snapshot(&self) -> Option<Snapshot> {
        let state = State {
            order: Order::clone(self.order.as_deref()?),
            commands: self.commands,
            keys: self.keys.iter().map(|(key, used)| (*key, *used)).collect(),
        };
        let state = serde_json::to_string(&state).ok()?;
        Some(Snapshot { end: self.end, schema: STATE_SCHEMA, state })
    }

    /// Takes in the next stored commit.
    ///
    /// # Errors
    /// When an event of it cannot be applied; the stream is then to be thrown away.
    pub fn extend(&mut self, commit: &Commit, rules: Rules) -> Result<(), Unreadable> {
        if commit.key() != self.end.next_key() {
            let what = format!("the commit begins at {} behind version {}", commit.first(), self.end.version());
            return Err(Unreadable::Poisonous { version: commit.first(), what });
        }
        let mut order = self.order.take().map(Arc::unwrap_or_clone);
        for envelope in commit.envelopes() {
            order = Some(fold(rules, order, &envelope)?);
        }
        self.order = order.map(Arc::new);
        let mut version = self.end.version();
        for part in commit.commands() {
            version = version.plus(u32::try_from(part.events.len()).unwrap_or(u32::MAX));
            self.note_command(part.key, version);
        }
        self.end = commit.stored_end();
        Ok(())
    }

    /// Takes in what a draft decided, now that its commit is stored.
    pub fn adopt(&mut self, draft: Draft, commit: &Commit) {
        self.order = draft.order;
        self.commands = draft.commands;
        self.keys.extend(draft.keys.into_iter().map(|(key, (used, _))| (key, used)));
        self.end = commit.stored_end();
    }

    /// Where it ends.
    pub fn end(&self) -> &StreamEnd {
        &self.end
    }

    /// The order, when it has an event.
    pub fn order(&self) -> Option<&Arc<Order>> {
        self.order.as_ref()
    }

    fn note_command(&mut self, key: Option<Key>, version: Version) {
        self.commands += 1;
        if let Some(Key { hash, fingerprint }) = key {
            self.keys.insert(hash, Used { fingerprint, version });
        }
    }
}

/// What one command asks, as far as the decision goes.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What to do.
    pub command: &'a Command,
    /// Its idempotency key.
    pub key: Option<Key>,
    /// The versions of `If-Match`; `None` without it, empty for any.
    pub if_match: Option<&'a [Version]>,
    /// Who asks.
    pub origin: &'a Origin,
}

/// What a command comes to, once the draft's commit (if it has one) is stored.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It has events; the order as it leaves it.
    Accepted(Arc<Order>),
    /// It was done before; the order as it left it.
    Replayed(Arc<Order>),
    /// It was done before; the order as it left it has to be read.
    ReplayedAt(Version),
    /// It is refused.
    Refused(CommandError),
}

/// A stream with commands decided one after another on it, to become one commit.
#[derive(Debug)]
pub struct Draft {
    order: Option<Arc<Order>>,
    commands: u32,
    keys: HashMap<KeyHash, (Used, Arc<Order>)>,
    parts: Vec<Part>,
    bytes: usize,
    recorded_at: Timestamp,
}

impl Draft {
    /// Nothing decided yet. What will be is recorded at `now`, but never before what was recorded last.
    pub fn new(stream: &Stream, now: Timestamp) -> Self {
        Self {
            order: stream.order.clone(),
            commands: stream.commands,
            keys: HashMap::new(),
            parts: Vec::new(),
            bytes: 0,
            recorded_at: stream.order.as_ref().map_or(now, |order| now.max(order.updated_at)),
        }
    }

    /// Decides one more command. The checks stand in the contract's order: key, `If-Match`, status.
    pub fn judge(&mut self, stream: &Stream, question: Question<'_>, rules: Rules) -> Verdict {
        if let Some(verdict) = self.already_done(stream, question.key) {
            return verdict;
        }
        self.decide(stream.end.order(), question, rules).map_or_else(Verdict::Refused, Verdict::Accepted)
    }

    /// The order as the draft leaves it.
    pub fn order(&self) -> Option<&Arc<Order>> {
        self.order.as_ref()
    }

    /// Roughly how many bytes the commit has so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many commands were accepted.
    pub fn accepted(&self) -> usize {
        self.parts.len()
    }

    /// The commit to write, when a command was accepted. To be called once.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn commit(&mut self, stream: &Stream) -> Result<Option<Commit>, crate::commit::NotACommit> {
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return Ok(None);
        }
        Commit::new(&stream.end, self.recorded_at, parts).map(Some)
    }

    fn already_done(&self, stream: &Stream, key: Option<Key>) -> Option<Verdict> {
        let Key { hash, fingerprint } = key?;
        if let Some((used, order)) = self.keys.get(&hash) {
            return Some(match used.fingerprint == fingerprint {
                true => Verdict::Replayed(Arc::clone(order)),
                false => Verdict::Refused(CommandError::KeyReused),
            });
        }
        let used = stream.keys.get(&hash)?;
        Some(match &stream.order {
            _ if used.fingerprint != fingerprint => Verdict::Refused(CommandError::KeyReused),
            Some(order) if order.version == used.version => Verdict::Replayed(Arc::clone(order)),
            Some(_) | None => Verdict::ReplayedAt(used.version),
        })
    }

    fn decide(&mut self, id: OrderId, question: Question<'_>, rules: Rules) -> Result<Arc<Order>, CommandError> {
        let current = self.order.as_deref();
        if let (Some(versions), Some(order)) = (question.if_match, current)
            && !versions.is_empty()
            && !versions.contains(&order.version)
        {
            return Err(CommandError::VersionMismatch { current: order.version });
        }
        if question.if_match.is_some() && current.is_none() && matches!(question.command, Command::Create(_)) {
            return Err(CommandError::VersionMismatch { current: Version::NONE });
        }
        let events = (rules.decide)(current, question.command)?;
        let room = if question.command.finishes() { COMMANDS_MAX } else { COMMANDS_MAX - COMMANDS_KEPT_TO_FINISH };
        if self.commands >= room {
            return Err(Refusal::OrderFull.into());
        }
        self.accept(id, question, &events, rules)
    }

    fn accept(
        &mut self,
        id: OrderId,
        question: Question<'_>,
        events: &[OrderEvent],
        rules: Rules,
    ) -> Result<Arc<Order>, CommandError> {
        // Encoded and evolved before anything is written, so that no accepted event can poison its order.
        let mut order = self.order.as_deref().cloned();
        let mut stored = Vec::with_capacity(events.len());
        let mut bytes = 0;
        for event in events {
            let form = question.command.stored_form(EventId::generate(), event).map_err(|e| internal(id, &e))?;
            bytes += form.data.get().len();
            stored.push(form);
            order = Some((rules.evolve)(order, id, event, self.recorded_at).map_err(|error| internal(id, &error))?);
        }
        let order = Arc::new(order.ok_or_else(|| internal(id, &"no event was decided"))?);
        self.commands += 1;
        self.bytes += bytes + PART_BYTES;
        self.order = Some(Arc::clone(&order));
        if let Some(Key { hash, fingerprint }) = question.key {
            self.keys.insert(hash, (Used { fingerprint, version: order.version }, Arc::clone(&order)));
        }
        self.parts.push(Part { key: question.key, origin: question.origin.clone(), events: stored });
        Ok(order)
    }
}

/// What a part takes besides its data: ids, correlation, trace context, principal.
const PART_BYTES: usize = 700;

fn internal(order: OrderId, error: &dyn std::fmt::Display) -> CommandError {
    tracing::error!(order.id = %order, %error, "a decided event cannot be applied");
    CommandError::Internal
}

#[cfg(test)]
mod tests;
