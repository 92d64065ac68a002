//! A commit: the events of one or more commands, decided one after another on one order and written as one document.
//!
//! Its key is the order and the version of its first event. That key alone is the concurrency check: two commits that
//! continue the same end have the same key, and the store takes only one. For this to hold no commit may begin inside
//! another one, so a commit is made only from a [`StreamEnd`], and a [`StreamEnd`] only from a commit that is stored.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Envelope, EventId};
use crate::order::{Command, OrderId, Version};
use crate::randomness;

/// Most commands of a commit.
pub const COMMANDS_MAX: usize = 100;
/// Most bytes of a commit as stored: 1 MiB, or one command's events when those alone are larger.
pub const BYTES_MAX: usize = 1 << 20;

/// Which commit, so that its writer recognises it after an unclear answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitId(pub Uuid);

impl CommitId {
    /// A new one.
    pub fn generate() -> Self {
        Self(randomness::uuid_v7())
    }
}

/// Under which key a commit is stored: its order and the version of its first event. Written
/// `order:version`, the version in ten digits, so that the order of the text is the order of the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitKey {
    /// The order.
    pub order: OrderId,
    /// The version of the commit's first event.
    pub first: Version,
}

impl fmt::Display for CommitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:010}", self.order, self.first.0)
    }
}

/// The text is not a commit's key.
#[derive(Debug, thiserror::Error)]
#[error("not a commit key such as 01939c2e-0000-7000-8000-000000000000:0000000001")]
pub struct NotACommitKey;

impl FromStr for CommitKey {
    type Err = NotACommitKey;

    fn from_str(text: &str) -> Result<Self, NotACommitKey> {
        let (order, first) = text.split_once(':').ok_or(NotACommitKey)?;
        let order = order.parse().map_err(|_| NotACommitKey)?;
        let first = first.parse().map(Version).map_err(|_| NotACommitKey)?;
        Ok(Self { order, first })
    }
}

/// Who caused something and in the course of what. Travels from the request into the command, its events, their
/// subscribers, mails and log lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The same for everything that one request set off.
    pub correlation_id: String,
    /// The command or event that caused this.
    pub causation_id: String,
    /// W3C trace context, when the caller sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What kind of principal: `api_key`, or `system` without authentication.
    pub authtype: Cow<'static, str>,
    /// Which one: the key's name, or `anonymous` without authentication.
    pub authid: Cow<'static, str>,
}

/// Who asks without authentication.
pub const ANONYMOUS: &str = "anonymous";

impl Origin {
    /// A request without authentication: a new command id is what causes its events.
    pub fn anonymous(correlation_id: String, traceparent: Option<String>) -> Self {
        Self {
            correlation_id,
            causation_id: randomness::uuid_v7().to_string(),
            traceparent,
            authtype: Cow::Borrowed("system"),
            authid: Cow::Borrowed(ANONYMOUS),
        }
    }

    /// The same, from whoever showed the API key of that name.
    #[must_use]
    pub fn with_api_key(self, name: &str) -> Self {
        Self { authtype: Cow::Borrowed("api_key"), authid: Cow::Owned(name.to_owned()), ..self }
    }
}

/// An idempotency key as it is kept, with what the command under it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key.
    pub hash: KeyHash,
    /// What the command said.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of an idempotency key, its first 16 bytes: keys may be personal, so only their hash is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(Uuid);

impl KeyHash {
    /// Of that key.
    pub fn of(key: &str) -> Self {
        Self(hash16(&[key.as_bytes()]))
    }
}

/// What a command said, as a hash: the same words again are the same command, under one key another one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Uuid);

impl Fingerprint {
    /// Of that command. What a caller expects (`If-Match`) is no part of what it says.
    pub fn of(command: &Command) -> Self {
        // Strings, integers and options under fixed names: serde_json cannot fail on them.
        let words = serde_json::to_vec(command).unwrap_or_default();
        Self(hash16(&[command.name().as_bytes(), &words]))
    }

    /// Of a key, for those who recognise a command by its key alone.
    pub fn of_key(key: &str) -> Self {
        Self(hash16(&[b"key", key.as_bytes()]))
    }
}

fn hash16(words: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(bytes)
}

/// Where an order's stored events end: what the next commit continues. `Version::NONE` when there is none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    order: OrderId,
    version: Version,
    commit: Option<CommitId>,
}

impl StreamEnd {
    /// The end of an order that has no event. If it has, the append is refused as a conflict.
    pub fn nothing(order: OrderId) -> Self {
        Self { order, version: Version::NONE, commit: None }
    }

    /// The order.
    pub fn order(&self) -> OrderId {
        self.order
    }

    /// The version of its last event.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The commit that holds that event.
    pub fn commit(&self) -> Option<CommitId> {
        self.commit
    }

    /// The key of the commit that would come next.
    pub fn next_key(&self) -> CommitKey {
        CommitKey { order: self.order, first: self.version.next() }
    }
}

/// One command's part of a commit: who sent it, and the events it brought about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its idempotency key, when it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Who sent it. `causation_id` of a command from outside is its own id.
    pub origin: Origin,
    /// Its events, at least one.
    pub events: Vec<StoredEvent>,
}

/// An event as written: its number follows from its place in the commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its id, everywhere and for ever.
    pub id: EventId,
    /// `order.created` and so on.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Of which schema its data is.
    pub schema_version: u32,
    /// The data, exactly as first written.
    pub data: Box<RawValue>,
}

/// A commit, encoded once: the same bytes are written again while its outcome is unknown.
#[derive(Clone)]
pub struct Commit {
    head: Head,
    encoded: Box<str>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Head {
    id: CommitId,
    order: OrderId,
    first: Version,
    recorded_at: Timestamp,
    commands: Vec<Part>,
}

impl Head {
    /// `None` when no event can have that version.
    fn last(&self) -> Option<Version> {
        let events: usize = self.commands.iter().map(|part| part.events.len()).sum();
        self.first.0.checked_sub(1)?.checked_add(u32::try_from(events).ok()?).map(Version)
    }

    /// Without an event a commit would leave the stream's end where it is and take the next one's key.
    fn checked(self) -> Result<Self, NotACommit> {
        let numbered = self.last().is_some_and(|last| last >= self.first);
        numbered.then_some(self).ok_or_else(|| NotACommit(serde::de::Error::custom("it has no event, or no version")))
    }
}

/// The bytes are no commit that this docket can read.
#[derive(Debug, thiserror::Error)]
#[error("not a commit: {0}")]
pub struct NotACommit(#[from] serde_json::Error);

impl Commit {
    /// A commit that continues `end`.
    ///
    /// # Errors
    /// When it has no event, or cannot be encoded.
    pub fn new(end: &StreamEnd, recorded_at: Timestamp, commands: Vec<Part>) -> Result<Self, NotACommit> {
        let id = CommitId::generate();
        let head = Head { id, order: end.order, first: end.version.next(), recorded_at, commands }.checked()?;
        let encoded = serde_json::to_string(&head)?.into_boxed_str();
        Ok(Self { head, encoded })
    }

    /// From what [`Commit::encoded`] gave.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn decode(encoded: &str) -> Result<Self, NotACommit> {
        let head: Head = serde_json::from_str(encoded)?;
        Ok(Self { head: head.checked()?, encoded: encoded.into() })
    }

    /// The JSON text to store.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }

    /// Which commit.
    pub fn id(&self) -> CommitId {
        self.head.id
    }

    /// Which order.
    pub fn order(&self) -> OrderId {
        self.head.order
    }

    /// Under which key it is stored.
    pub fn key(&self) -> CommitKey {
        CommitKey { order: self.head.order, first: self.head.first }
    }

    /// The version of its first event.
    pub fn first(&self) -> Version {
        self.head.first
    }

    /// The version of its last event.
    pub fn last(&self) -> Version {
        self.head.last().unwrap_or(self.head.first)
    }

    /// When its commands were decided. Never earlier than the commit before it.
    pub fn recorded_at(&self) -> Timestamp {
        self.head.recorded_at
    }

    /// Its commands, in the order in which they were decided.
    pub fn commands(&self) -> &[Part] {
        &self.head.commands
    }

    /// Whether one of its commands came with that idempotency key.
    pub fn has_key(&self, key: KeyHash) -> bool {
        self.head.commands.iter().any(|part| part.key.is_some_and(|used| used.hash == key))
    }

    /// Its events as the world sees them, in version order.
    pub fn envelopes(&self) -> impl Iterator<Item = Envelope> + '_ {
        let parts = self.head.commands.iter().flat_map(|part| part.events.iter().map(move |event| (part, event)));
        (self.head.first.0..).zip(parts).map(|(version, (part, event))| Envelope {
            id: event.id,
            order: self.head.order,
            version: Version(version),
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            recorded_at: self.head.recorded_at,
            origin: part.origin.clone(),
            data: event.data.clone(),
        })
    }

    /// Where the stream ends once this commit is stored. For stores, and for those who read from one: the end of a
    /// commit that was refused is nobody's end.
    pub fn stored_end(&self) -> StreamEnd {
        StreamEnd { order: self.head.order, version: self.last(), commit: Some(self.head.id) }
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {} to {} of {}", self.first(), self.last(), self.order())
    }
}
