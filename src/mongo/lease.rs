//! A lease on a document: who works on what it stands for, in which term, until when. It is taken and judged by the
//! server's clock; no process compares that with its own. One server's clock may be hours ahead of the next one's: so a
//! lease is over, too, when it was watched for as long as it lasts and nobody held on to it.
//!
//! The lease only keeps processes out of one another's way. What protects the data is the term: whoever writes is to
//! write this document in the same transaction, conditional on the term ([`Lease::held_in`], [`Lease::kept`]). So a
//! process that was frozen and goes on conflicts with whoever took over, and one of the two has no effect.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::Error;
use mongodb::options::ReturnDocument;
use tokio::time::Instant;

use super::error;
use super::server::{Failed, Server};

/// How long a transaction that is under way may keep a process waiting that wants the lease.
const BLOCKED_AFTER: Duration = Duration::from_millis(500);

/// A lease, as one process sees it. The document exists, with `term`, `holder` and `until`; from the
/// first term on also with `lasts_ms`, for how long the holder wants it.
pub struct Lease {
    server: Server,
    documents: Collection<Document>,
    id: &'static str,
    holder: String,
    lasts: Duration,
    watched: Mutex<Option<Watched>>,
}

/// Another process's lease as it is, and since when it has been so, by a clock of this machine that never jumps.
struct Watched {
    term: i64,
    until: DateTime,
    since: Instant,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It can be had.
    Free(Free),
    /// Another process has it.
    Held(Held),
    /// There is no such document.
    Absent,
}

/// A lease that can be had: it was given up, is over, or is this process's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Free {
    /// The document as it is.
    pub document: Document,
    /// Whether it is this process's own.
    pub own: bool,
    /// For how long it has been over.
    pub over_for: Duration,
}

/// Who has a lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The holder.
    pub by: String,
    /// When it ends if it is not renewed, by the server's clock.
    pub ends_in: Duration,
}

/// What came of trying to have a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquired {
    /// It is this process's own, in a term that is later than every other. The document as it is now.
    Now(Document),
    /// Another process has it.
    Held(Held),
    /// A transaction of somebody's has written the document, and is neither committed nor aborted.
    Blocked,
    /// There is no such document.
    Absent,
}

impl Lease {
    /// The lease on the document `id`, for `holder`: a name that no other process has.
    pub fn new(
        server: &Server,
        documents: Collection<Document>,
        id: &'static str,
        holder: &str,
        lasts: Duration,
    ) -> Self {
        Self { server: server.clone(), documents, id, holder: holder.to_owned(), lasts, watched: Mutex::new(None) }
    }

    /// How long it lasts after it was acquired, renewed or kept.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Who has it. Nothing is written: asking again and again disturbs nobody who writes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn look(&self) -> Result<Seen, Failed> {
        let found = self.server.answer(async {
            let now = doc! { "$set": { "now": "$$NOW" } };
            let mut found = self.documents.aggregate([doc! { "$match": { "_id": self.id } }, now]).await?;
            if found.advance().await? { found.deserialize_current().map(Some) } else { Ok(None) }
        });
        Ok(found.await?.map_or(Seen::Absent, |document| self.seen(document)))
    }

    fn seen(&self, mut document: Document) -> Seen {
        let now = document.remove("now").and_then(|now| now.as_datetime().copied()).unwrap_or(DateTime::MIN);
        let until = document.get_datetime("until").copied().unwrap_or(DateTime::MIN);
        let holder = document.get_str("holder").ok();
        let own = holder == Some(self.holder.as_str());
        let (ends_in, over_for) = self.judge(&document, until, now);
        match holder {
            Some(by) if !own && !ends_in.is_zero() => Seen::Held(Held { by: by.to_owned(), ends_in }),
            Some(_) | None => Seen::Free(Free { own, over_for, document }),
        }
    }

    /// When it ends, and for how long it has been over.
    fn judge(&self, document: &Document, until: DateTime, now: DateTime) -> (Duration, Duration) {
        let between = |from: DateTime, to: DateTime| {
            let millis = to.timestamp_millis().saturating_sub(from.timestamp_millis());
            Duration::from_millis(u64::try_from(millis).unwrap_or(0))
        };
        let (ends_in, over_for) = (between(now, until), between(until, now));
        let unchanged_for = self.unchanged_for(document.get_i64("term").unwrap_or(0), until);
        // Absent while nobody has begun a term.
        let Some(lasts) = document.get_i64("lasts_ms").ok().and_then(|lasts| u64::try_from(lasts).ok()) else {
            return (ends_in, over_for);
        };
        let lasts = Duration::from_millis(lasts);
        (ends_in.min(lasts.saturating_sub(unchanged_for)), over_for.max(unchanged_for.saturating_sub(lasts)))
    }

    /// For how long nobody is known to have held on to it.
    fn unchanged_for(&self, term: i64, until: DateTime) -> Duration {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        match &*watched {
            Some(before) if before.term == term && before.until == until => before.since.elapsed(),
            Some(_) | None => {
                *watched = Some(Watched { term, until, since: Instant::now() });
                Duration::ZERO
            }
        }
    }

    /// Begins a new term, unless another process has held on to the lease since it was seen to be free; `with` is
    /// written too, and as `unclean` whether whoever had it before, be it this process, did not give it up. When nobody knows whether it was done, it can be done again: the holder is not in its own way.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn acquire(&self, seen: &Free, with: Document) -> Result<Acquired, Failed> {
        let (term, until) = (seen.document.get("term"), seen.document.get("until"));
        let free = doc! {
            "_id": self.id,
            "$or": [
                { "holder": &self.holder },
                { "holder": null },
                { "$expr": { "$lte": ["$until", "$$NOW"] } },
                { "term": term, "until": until },
            ],
        };
        let mut fields = self.kept();
        fields.insert("term", doc! { "$add": ["$term", 1_i64] });
        // Nobody is less than any name.
        fields.insert("unclean", doc! { "$gt": ["$holder", null] });
        for (name, value) in with {
            fields.insert(name, doc! { "$literal": value });
        }
        let written = self.documents.find_one_and_update(free, vec![doc! { "$set": fields }]);
        let written = written.return_document(ReturnDocument::After).max_time(blocked_after(&self.server));
        let written = self.server.answer(async {
            match written.await {
                Err(error) if is_blocked(&error) => Ok(Err(error)),
                written => written.map(Ok),
            }
        });
        match written.await? {
            Err(_) => Ok(Acquired::Blocked),
            Ok(Some(document)) => Ok(Acquired::Now(document)),
            Ok(None) => Ok(match self.look().await? {
                Seen::Held(held) => Acquired::Held(held),
                // Somebody had it, and gave it up at once.
                Seen::Free(_) => Acquired::Held(Held { by: "another process".to_owned(), ends_in: Duration::ZERO }),
                Seen::Absent => Acquired::Absent,
            }),
        }
    }

    /// Holds on to the lease of `term`, also when it is over and nobody has begun a later term. The document as it is
    /// now; `None` when somebody has.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn renew(&self, term: i64) -> Result<Option<Document>, Failed> {
        self.write(self.held_in(term), self.kept()).await
    }

    /// Gives up the lease of `term`: whoever wants it can have it at once.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn release(&self, term: i64) -> Result<(), Failed> {
        let given_up = doc! { "holder": null, "until": "$$NOW" };
        self.write(self.held_in(term), given_up).await?;
        Ok(())
    }

    /// Which document a transaction of `term` has to find and to write.
    pub fn held_in(&self, term: i64) -> Document {
        doc! { "_id": self.id, "term": term }
    }

    /// What a transaction sets in it, as a stage of an update does: with that the lease lasts longer.
    pub fn kept(&self) -> Document {
        let lasts_ms = i64::try_from(self.lasts.as_millis()).unwrap_or(i64::MAX);
        let until = doc! { "$dateAdd": { "startDate": "$$NOW", "unit": "millisecond", "amount": lasts_ms } };
        doc! { "holder": { "$literal": &self.holder }, "until": until, "lasts_ms": { "$literal": lasts_ms } }
    }

    async fn write(&self, filter: Document, fields: Document) -> Result<Option<Document>, Failed> {
        let written = self.documents.find_one_and_update(filter, vec![doc! { "$set": fields }]);
        self.server.answer(written.return_document(ReturnDocument::After)).await
    }
}

/// How long a statement waits for a transaction that is under way: less than for an answer, for only the server can say
/// that it is blocked.
pub fn blocked_after(server: &Server) -> Duration {
    BLOCKED_AFTER.min(server.answer_within() / 2)
}

/// Whether the server gave up because somebody else's transaction was in the way.
fn is_blocked(error: &Error) -> bool {
    error::code(error)
        .is_some_and(|code| [error::WRITE_CONFLICT, error::LOCK_TIMEOUT, error::OUT_OF_TIME].contains(&code))
}
