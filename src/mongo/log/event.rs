//! What the change stream tells, and how an event is read.

use actors::event_store::StoreError;
use mongodb::bson::{Document, RawDocument, doc};
use uuid::Uuid;

use super::super::commits::stored;
use super::super::store::COMMITS;
use super::place::{Entry, Inserted, Token};
use super::source::{Broken, OPENINGS};

/// The condition that an event must meet: a commit or an opening was inserted, or the commits are not the same
/// collection any more.
pub(super) fn told() -> Document {
    let any = [
        doc! { "operationType": "insert", "ns.coll": { "$in": [COMMITS, OPENINGS] } },
        doc! { "operationType": { "$in": ["drop", "rename"] }, "ns.coll": COMMITS },
        doc! { "operationType": "rename", "to.coll": COMMITS },
        doc! { "operationType": { "$in": ["dropDatabase", "invalidate"] } },
    ];
    doc! { "$or": any.to_vec() }
}

/// An event of the stream.
pub(super) fn entry(event: &RawDocument) -> Result<Entry, Broken> {
    let damaged =
        |what: &str| Broken::Store(StoreError::Damaged(format!("an event of the change stream has no {what}")));
    let operation = event.get_str("operationType").map_err(|_| damaged("operationType"))?;
    if operation != "insert" {
        return Err(Broken::Replaced(format!("the collection of commits is not the same any more ({operation})")));
    }
    let token = event.get_document("_id").ok().and_then(Token::of_event).ok_or_else(|| damaged("resume token"))?;
    let time = event.get_timestamp("clusterTime").map_err(|_| damaged("time"))?.into();
    let collection = event.get_document("ns").and_then(|ns| ns.get_str("coll")).map_err(|_| damaged("collection"))?;
    let document = event.get_document("fullDocument").map_err(|_| damaged("document"))?;
    let inserted = if collection == COMMITS {
        Inserted::Commit(stored(document)?)
    } else {
        let id = document.get_str("_id").ok().and_then(|id| Uuid::parse_str(id).ok());
        Inserted::Opening(id.ok_or_else(|| damaged("readable opening"))?)
    };
    Ok(Entry { token, time, inserted })
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
