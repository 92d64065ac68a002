//! A subscriber's file in pages, for those who take what is in it elsewhere. Nothing is changed, no term begun: whoever
//! reads holds the folder, so there is nobody else to write.

use std::io;
use std::path::Path;

use actors::inbox::{Body, Discard, DocumentKey, Generation, InboxError, RecordedEffect, Row, Term, TransactionId};
use actors::order::{OrderId, Version};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{SqliteInbox, discards, rows};
use crate::sqlite::directory::DataDirectory;
use crate::sqlite::open_reader;

/// Most rows, documents or effects of a page.
const PAGE_MAX: usize = 1_000;
/// Most discards of a page: one may have ten texts of thousands of characters.
const DISCARDS_PAGE_MAX: usize = 100;
/// Most bytes of the bodies in a page; one alone may be larger.
const PAGE_BYTES_MAX: usize = 4 << 20;

pub(super) const SELECT_DOCUMENTS_PAGE: &str = "SELECT collection, id, body FROM documents
    WHERE generation = ?1 AND (collection, id) > (?2, ?3) ORDER BY collection, id LIMIT ?4";

/// What a file says about its subscriber as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last term that was begun. A docket begins one before it changes anything else in the file.
    pub term: Term,
    /// The present generation.
    pub generation: Generation,
    /// Whether the subscriber is to rest.
    pub paused: bool,
    /// Whether the last term did not end in order.
    pub unclean: bool,
}

/// Where an effect stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectPlace {
    /// Of which order.
    pub order: OrderId,
    /// The version of the event that asked for it.
    pub version: Version,
    /// Its place among the effects of that event.
    pub index: u32,
}

/// Where a discard stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardPlace {
    /// Of which order.
    pub order: OrderId,
    /// The transaction that stored it.
    pub written_by: TransactionId,
    /// Its place among the discards of that transaction.
    pub place: u32,
}

impl EffectPlace {
    /// Of that effect.
    pub fn of(effect: &RecordedEffect) -> Self {
        let effect = &effect.effect;
        Self { order: effect.order, version: effect.version, index: effect.id.index }
    }
}

/// The names of the subscribers that have a file in the folder, in their order, and the other `.db` files.
///
/// # Errors
/// When the folder or one of the files cannot be read.
pub fn subscribers(directory: &DataDirectory) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut subscribers, mut others) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory.path())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".db") else { continue };
        let belongs =
            is_subscribers(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        if belongs { subscribers.push(stem.to_owned()) } else { others.push(name.to_owned()) }
    }
    subscribers.sort();
    others.sort();
    Ok((subscribers, others))
}

fn is_subscribers(path: &Path) -> rusqlite::Result<bool> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'subscriber'";
    Ok(open_reader(path)?.query_row(table, [], |_| Ok(())).optional()?.is_some())
}

impl SqliteInbox {
    /// How the subscriber stands.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn standing(&self) -> Result<Standing, InboxError> {
        self.read(|connection| {
            connection.query_row("SELECT term, generation, paused, clean FROM subscriber", [], |row| {
                let (term, clean) = (Term(rows::counted(row, 0)?), row.get::<_, bool>(3)?);
                let unclean = super::is_unclean(term, clean);
                Ok(Standing { term, generation: Generation(row.get(1)?), paused: row.get(2)?, unclean })
            })
        })
        .await
    }

    /// A page of the rows behind that of `after`, in the order of their orders' ids; empty at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or one of them cannot.
    pub async fn rows_after(&self, generation: Generation, after: Option<OrderId>) -> Result<Vec<Row>, InboxError> {
        self.read(move |connection| rows::page(connection, generation, after, PAGE_MAX)).await
    }

    /// A page of the documents behind that one, by collection and id as bytes; empty at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn documents_after(
        &self,
        generation: Generation,
        after: Option<DocumentKey>,
    ) -> Result<Vec<(DocumentKey, Body)>, InboxError> {
        self.read(move |connection| documents_page(connection, generation, after.as_ref())).await
    }

    /// A page of the effects behind that place, in order for each order; empty at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or one of them cannot.
    pub async fn effects_after(&self, after: Option<EffectPlace>) -> Result<Vec<RecordedEffect>, InboxError> {
        self.read(move |connection| rows::effects_page(connection, after, PAGE_MAX, PAGE_BYTES_MAX)).await
    }

    /// A page of the discards behind that place, oldest first for each order; empty at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or one of them cannot.
    pub async fn discards_after(
        &self,
        after: Option<DiscardPlace>,
    ) -> Result<Vec<(DiscardPlace, Discard)>, InboxError> {
        self.read(move |connection| discards::page(connection, after, DISCARDS_PAGE_MAX)).await
    }

    /// How many rows, documents, effects and discards there are together.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn count(&self, generation: Generation) -> Result<u64, InboxError> {
        self.read(move |connection| {
            connection.query_row(
                "SELECT (SELECT COUNT(*) FROM inbox WHERE generation = ?1)
                 + (SELECT COUNT(*) FROM documents WHERE generation = ?1) + (SELECT COUNT(*) FROM effects)
                 + (SELECT COUNT(*) FROM discards)",
                [generation.0],
                |row| rows::counted(row, 0),
            )
        })
        .await
    }
}

fn documents_page(
    connection: &Connection,
    generation: Generation,
    after: Option<&DocumentKey>,
) -> rusqlite::Result<Vec<(DocumentKey, Body)>> {
    let mut select = connection.prepare_cached(SELECT_DOCUMENTS_PAGE)?;
    // No collection's name is shorter than this.
    let (collection, id) = after.map_or(("", ""), |after| (&*after.collection, &*after.id));
    let limit = i64::try_from(PAGE_MAX).unwrap_or(i64::MAX);
    let mut found = select.query(params![generation.0, collection, id, limit])?;
    let (mut documents, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = found.next()?
    {
        let key = DocumentKey { collection: row.get::<_, String>(0)?.into(), id: row.get(1)? };
        let body = Body::from(row.get_ref(2)?.as_str()?);
        bytes += body.len();
        documents.push((key, body));
    }
    Ok(documents)
}
