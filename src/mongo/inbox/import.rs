//! A subscriber's state as another store had it: written in pages, each of which can be written again, and read back as
//! it is stored. The lease is taken from everybody until it is handed over, so that nobody begins a term on a part.

use std::collections::HashMap;

use actors::event_store::StoreError;
use actors::inbox::{Body, Discard, DocumentKey, Generation, InboxError, RecordedEffect, Row, TransactionId};
use mongodb::bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::{Collection, Database};

use super::discards::StoredDiscard;
use super::documents::{self, StoredDocument};
use super::effects::StoredEffect;
use super::rows::StoredRow;
use super::schema::{self, DISCARDS, DOCUMENTS, EFFECTS, INBOX, ONLY, SUBSCRIBER};
use super::statements::encode;
use crate::mongo::error::were_there;
use crate::mongo::server::{Failed, Server};

/// Who has the lease while it is not handed over.
const HOLDER: &str = "docket copy";
/// Most ids that are counted at once.
const COUNTED_MAX: i64 = 20_000;

/// The database of a subscriber, for those who bring its state there.
pub struct Import {
    server: Server,
    database: Database,
    name: String,
}

/// What a subscriber's state consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Inbox rows.
    Row,
    /// Documents.
    Document,
    /// Recorded effects.
    Effect,
    /// What operators decided.
    Discard,
}

/// What came of writing a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// All of it is there.
    All,
    /// Under this id something else is there.
    Taken(String),
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Row, Self::Document, Self::Effect, Self::Discard];

    /// In words, as in `the row …`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Document => "document",
            Self::Effect => "effect",
            Self::Discard => "discard",
        }
    }

    fn collection(self) -> &'static str {
        match self {
            Self::Row => INBOX,
            Self::Document => DOCUMENTS,
            Self::Effect => EFFECTS,
            Self::Discard => DISCARDS,
        }
    }
}

/// A row as it is stored.
///
/// # Errors
/// When MongoDB cannot store it.
pub fn row(generation: Generation, row: &Row) -> Result<RawDocumentBuf, InboxError> {
    let written_by =
        row.written_by.ok_or_else(|| InboxError::Damaged(format!("nobody wrote the row of {}", row.order)));
    encode(&StoredRow::of(generation, row, written_by?)?)
}

/// A document as it is stored.
///
/// # Errors
/// When MongoDB cannot store it.
pub fn document(generation: Generation, key: &DocumentKey, body: &Body) -> Result<RawDocumentBuf, InboxError> {
    encode(&StoredDocument { _id: documents::id(generation, key), body: body.as_ref().to_owned() })
}

/// An effect as it is stored.
///
/// # Errors
/// When MongoDB cannot store it.
pub fn effect(effect: &RecordedEffect) -> Result<RawDocumentBuf, InboxError> {
    encode(&StoredEffect::recorded(effect)?)
}

/// A discard as it is stored by that transaction, in which it has that place.
///
/// # Errors
/// When MongoDB cannot store it.
pub fn discard(discard: &Discard, written_by: TransactionId, place: u32) -> Result<RawDocumentBuf, InboxError> {
    encode(&StoredDiscard::of(discard, written_by, place)?)
}

/// Under which id that is stored.
pub fn id(stored: &RawDocument) -> &str {
    stored.get_str("_id").unwrap_or_default()
}

impl Import {
    /// Into the database of the subscriber `name`, beside that of the order service, which is `database`. Nothing is
    /// asked or written yet.
    pub fn new(server: &Server, database: &str, name: &str) -> Self {
        let database = server.database(&super::subscriber_database(database, name));
        Self { server: server.clone(), database, name: name.to_owned() }
    }

    /// What the database is called.
    pub fn database(&self) -> &str {
        self.database.name()
    }

    /// Whether nothing is there.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        for collection in [SUBSCRIBER, INBOX, DOCUMENTS, EFFECTS, DISCARDS] {
            let collection = self.collection(collection);
            let any = collection.find_one(doc! {}).projection(doc! { "_id": 1 });
            if self.server.answer(any).await.map_err(Failed::into_error)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the database, and takes the lease for ever. False when somebody has begun a term there. It may be done
    /// again.
    ///
    /// # Errors
    /// When the server does not answer, or the database is another subscriber's.
    pub async fn hold(&self) -> Result<bool, StoreError> {
        schema::prepare(&self.server, &self.database, &self.name).await.map_err(store_error)?;
        self.set(doc! { "holder": HOLDER, "until": DateTime::MAX }).await
    }

    /// Removes all state that was brought.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn clear(&self) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            self.server.answer(self.collection(kind.collection()).drop()).await.map_err(Failed::into_error)?;
        }
        Ok(())
    }

    /// Writes these. When nobody knows whether it was done, it can be done again.
    ///
    /// # Errors
    /// When the server does not answer, or refuses some for another reason than that they are there.
    pub async fn insert(&self, kind: Kind, page: &[RawDocumentBuf]) -> Result<Inserted, StoreError> {
        let collection = self.collection(kind.collection());
        let insert = collection.insert_many(page).ordered(false);
        let there = self.server.answer(async {
            match insert.await {
                Ok(_) => Ok(false),
                Err(error) if were_there(&error) => Ok(true),
                Err(error) => Err(error),
            }
        });
        if !there.await.map_err(Failed::into_error)? {
            return Ok(Inserted::All);
        }
        let ids: Vec<&str> = page.iter().map(|stored| id(stored)).collect();
        let found = self.find(kind, &ids).await?;
        let other = page.iter().find(|stored| found.get(id(stored)) != Some(*stored));
        Ok(other.map_or(Inserted::All, |stored| Inserted::Taken(id(stored).to_owned())))
    }

    /// What is stored under these ids, on the disks of a majority.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn find(&self, kind: Kind, ids: &[&str]) -> Result<HashMap<String, RawDocumentBuf>, StoreError> {
        let found = self.server.answer(async {
            let mut cursor = self.collection(kind.collection()).find(doc! { "_id": { "$in": ids } }).await?;
            let mut found = HashMap::with_capacity(ids.len());
            while cursor.advance().await? {
                let stored = cursor.current().to_owned();
                found.insert(id(&stored).to_owned(), stored);
            }
            Ok(found)
        });
        found.await.map_err(Failed::into_error)
    }

    /// How many are stored with an id behind that one, counted up to a limit, and the last id that was counted; `None`
    /// at the end.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn count_after(&self, kind: Kind, after: &str) -> Result<Option<(u64, String)>, StoreError> {
        let counting = [
            doc! { "$match": { "_id": { "$gt": after } } },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$limit": COUNTED_MAX },
            doc! { "$project": { "_id": 1 } },
            doc! { "$group": { "_id": null, "count": { "$sum": 1_i64 }, "last": { "$max": "$_id" } } },
        ];
        let counted = self.server.answer(async {
            let mut cursor = self.collection(kind.collection()).aggregate(counting).await?;
            if cursor.advance().await? { cursor.deserialize_current().map(Some) } else { Ok(None) }
        });
        let counted: Option<Document> = counted.await.map_err(Failed::into_error)?;
        Ok(counted.and_then(|counted| {
            let count = counted.get_i64("count").or_else(|_| counted.get_i32("count").map(i64::from)).ok()?;
            Some((u64::try_from(count).ok()?, counted.get_str("last").ok()?.to_owned()))
        }))
    }

    /// From now on whoever wants the lease can have it, in a first term, without a position; when the last term
    /// elsewhere was `unclean`, they learn of that. False when somebody has begun a term before. It may be done again.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn hand_over(&self, generation: Generation, paused: bool, unclean: bool) -> Result<bool, StoreError> {
        let standing = doc! {
            "generation": i64::from(generation.0),
            "paused": paused,
            // As one who had it and did not give it up.
            "holder": unclean.then_some(HOLDER),
            "until": DateTime::from_millis(0),
        };
        self.set(standing).await
    }

    /// Unless a term was begun.
    async fn set(&self, fields: Document) -> Result<bool, StoreError> {
        let subscribers = self.database.collection::<Document>(SUBSCRIBER);
        let set = subscribers.update_one(doc! { "_id": ONLY, "term": 0_i64 }, doc! { "$set": fields });
        Ok(self.server.answer(set).await.map_err(Failed::into_error)?.matched_count == 1)
    }

    fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }
}

fn store_error(error: InboxError) -> StoreError {
    match error {
        InboxError::Full(why) => StoreError::Full(why),
        InboxError::Damaged(why) => StoreError::Damaged(why),
        InboxError::Held { .. } | InboxError::Away(_) | InboxError::Unknown(_) => StoreError::Away(error.to_string()),
    }
}
