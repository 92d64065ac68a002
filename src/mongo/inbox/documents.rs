//! A subscriber's documents as BSON: their text under their key.

use std::borrow::Cow;

use actors::inbox::{DocumentKey, Generation, InboxError, Transaction};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use serde::{Deserialize, Serialize};

use super::statements::encode;

/// A document.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDocument {
    pub(super) _id: String,
    pub(super) body: String,
}

#[derive(Serialize)]
struct Put<'a> {
    q: Id,
    u: Text<'a>,
    upsert: bool,
}

#[derive(Serialize)]
struct Removal {
    q: Id,
    limit: i32,
}

#[derive(Serialize)]
struct Id {
    _id: String,
}

#[derive(Serialize)]
struct Text<'a> {
    body: &'a str,
}

/// The statements that write a transaction's documents: those that are stored, and those that are deleted.
pub(super) fn statements(transaction: &Transaction) -> Result<(Vec<RawDocumentBuf>, Vec<RawDocumentBuf>), InboxError> {
    let (mut stored, mut deleted) = (Vec::new(), Vec::new());
    for write in &transaction.documents {
        let q = Id { _id: id(transaction.generation, &write.key) };
        match &write.body {
            Some(body) => stored.push(encode(&Put { q, u: Text { body }, upsert: true })?),
            None => deleted.push(encode(&Removal { q, limit: 1 })?),
        }
    }
    Ok((stored, deleted))
}

/// The documents under these ids.
pub(super) fn with_ids(ids: &[String]) -> Document {
    doc! { "_id": { "$in": ids } }
}

/// Generation, collection and id in one text. Only what is behind the last `/` of the collection is the id, whatever is
/// in it: a `/` in a collection's name is written otherwise.
pub(super) fn id(generation: Generation, key: &DocumentKey) -> String {
    let collection = if key.collection.contains(['/', '%']) {
        Cow::Owned(key.collection.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(&*key.collection)
    };
    format!("{}/{collection}/{}", generation.0, key.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(collection: &'static str, id: &str) -> String {
        super::id(Generation(0), &DocumentKey { collection: collection.into(), id: id.to_owned() })
    }

    #[test]
    fn no_two_keys_are_stored_under_one_id() {
        assert_eq!(id_of("orders", "a/b"), "0/orders/a/b");
        let keys = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a", ""), ("", "a"), ("", "/a"), ("/", "a")];
        let ids: std::collections::BTreeSet<_> = keys.iter().map(|(collection, id)| id_of(collection, id)).collect();
        assert_eq!(ids.len(), keys.len(), "{ids:?}");
    }
}
