//! A lease on a document: who works on what it stands for, in which term, until when. It is taken and judged by the
//! server's clock alone; no process compares it with its own.
//!
//! The lease only keeps processes out of one another's way. What protects the data is the term: whoever writes is to
//! write this document in the same transaction, conditional on the term ([`Lease::held_in`], [`Lease::kept`]). So a
//! process that was frozen and goes on conflicts with whoever took over, and one of the two has no effect.

use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use super::server::{Failed, Server};

/// A lease, as one process sees it. The document exists, with `term`, `holder` and `until`.
pub struct Lease {
    server: Server,
    documents: Collection<Document>,
    id: &'static str,
    holder: String,
    lasts: Duration,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It can be had: it was given up, is over, or is this process's own. The document as it is.
    Free(Document),
    /// Another process has it.
    Held(Held),
    /// There is no such document.
    Absent,
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
        Self { server: server.clone(), documents, id, holder: holder.to_owned(), lasts }
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
        let ends_in = until.timestamp_millis().saturating_sub(now.timestamp_millis());
        match document.get_str("holder") {
            Ok(by) if by != self.holder && ends_in > 0 => {
                let ends_in = Duration::from_millis(u64::try_from(ends_in).unwrap_or(0));
                Seen::Held(Held { by: by.to_owned(), ends_in })
            }
            Ok(_) | Err(_) => Seen::Free(document),
        }
    }

    /// Begins a new term, unless another process has the lease; `with` is written too. When nobody knows whether it was
    /// done, it can be done again: the holder is not in its own way.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn acquire(&self, with: Document) -> Result<Acquired, Failed> {
        let free = doc! {
            "_id": self.id,
            "$or": [
                { "holder": &self.holder },
                { "holder": null },
                { "$expr": { "$lte": ["$until", "$$NOW"] } },
            ],
        };
        let mut fields = self.kept();
        fields.insert("term", doc! { "$add": ["$term", 1_i64] });
        for (name, value) in with {
            fields.insert(name, doc! { "$literal": value });
        }
        match self.write(free, fields).await? {
            Some(document) => Ok(Acquired::Now(document)),
            None => Ok(match self.look().await? {
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
        doc! { "holder": { "$literal": &self.holder }, "until": until }
    }

    async fn write(&self, filter: Document, fields: Document) -> Result<Option<Document>, Failed> {
        let written = self.documents.find_one_and_update(filter, vec![doc! { "$set": fields }]);
        self.server.answer(written.return_document(ReturnDocument::After)).await
    }
}
