//! Commits as documents, and pages of them. `_id` is the commit's key as text, so that the order of the documents is the
//! order of the stream and the primary index is the only one. `id` says whose commit it is: a UUID and no text, since it
//! is read alone after a refusal and compared as bytes. `body` is the encoded text, unchanged: as a document its fields
//! and numbers would come back another way.

use std::sync::Arc;

use actors::commit::{Commit, CommitId, CommitKey};
use actors::event_store::StoreError;
use actors::order::{OrderId, Version};
use mongodb::bson::raw::{RawBinaryRef, RawBsonRef};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, cstr, doc};
use uuid::Uuid;

use super::server::Failed;
use super::store::Store;

/// Most commits of a page. The server itself ends one at 16 MiB.
const PAGE_MAX: usize = 1_000;
/// Most bytes of a commit: what a document may have, less what is around the text.
const BYTES_MAX: usize = (16 << 20) - 1024;

/// As it is stored.
pub(super) fn document(commit: &Commit) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), commit.key().to_string().as_str());
    document.append(cstr!("id"), uuid(&commit.id().0));
    document.append(cstr!("body"), commit.encoded());
    document
}

/// Whether a document has room for it.
pub(super) fn fits(commit: &Commit) -> bool {
    commit.encoded().len() <= BYTES_MAX
}

/// The commit of a document, which must be the one that the document says it is.
///
/// # Errors
/// When it is not.
pub(super) fn stored(document: &RawDocument) -> Result<Arc<Commit>, StoreError> {
    let name = document.get_str("_id").unwrap_or("?");
    let damaged = |why: &dyn std::fmt::Display| StoreError::Damaged(format!("commit {name}: {why}"));
    let body = document.get_str("body").map_err(|error| damaged(&error))?;
    let commit = Commit::decode(body).map_err(|error| damaged(&error))?;
    if commit.key().to_string() != name {
        return Err(damaged(&"it holds a commit of another key"));
    }
    if id(document) != Some(commit.id()) {
        return Err(damaged(&"it holds a commit of another id"));
    }
    Ok(Arc::new(commit))
}

/// Under which key and whose, also of a document without its body.
///
/// # Errors
/// When the document does not say.
pub(super) fn name(document: &RawDocument) -> Result<(CommitKey, CommitId), StoreError> {
    let key = document.get_str("_id").ok().and_then(|key| key.parse().ok());
    key.zip(id(document)).ok_or_else(|| StoreError::Damaged(format!("not a commit: {document:?}")))
}

fn id(document: &RawDocument) -> Option<CommitId> {
    let id = document.get_binary("id").ok()?;
    Uuid::from_slice(id.bytes).ok().map(CommitId)
}

fn uuid(id: &Uuid) -> RawBsonRef<'_> {
    RawBsonRef::Binary(RawBinaryRef { subtype: BinarySubtype::Uuid, bytes: id.as_bytes() })
}

/// The keys that the commits of an order can have, from that version to that one.
pub(super) fn keys(order: OrderId, from: Version, to: Version) -> Document {
    let key = |first| CommitKey { order, first }.to_string();
    doc! { "_id": { "$gte": key(from), "$lte": key(to) } }
}

impl Store {
    /// Commits in the order of their keys, at most `limit`; fewer when they are many or large, but not none. Only what a
    /// majority has is seen.
    pub(super) async fn page(&self, which: Document, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let rows = u32::try_from(limit.min(PAGE_MAX)).unwrap_or(0);
        // To MongoDB no limit would be all of them.
        if rows == 0 {
            return Ok(Vec::new());
        }
        // A negative limit is one answer: no cursor stays open for what did not fit into it.
        let find = self.shared.commits.find(which).sort(doc! { "_id": 1 }).batch_size(rows).limit(-i64::from(rows));
        let page = async {
            let mut cursor = find.await?;
            let mut page = Vec::new();
            while cursor.advance().await? {
                page.push(stored(cursor.current()));
            }
            Ok(page)
        };
        self.shared.server.answer_in_turn(page).await.map_err(Failed::into_error)?.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use actors::testing::commits::first;

    use super::*;

    #[test]
    fn a_document_gives_the_commit_back_or_says_that_it_is_damaged() {
        let commit = first(3);
        let whole = document(&commit);
        assert_eq!(stored(&whole).expect("a commit").encoded(), commit.encoded());
        assert_eq!(name(&whole).expect("a commit"), (commit.key(), commit.id()));
        let other = first(1);
        let mut wrong = RawDocumentBuf::new();
        wrong.append(cstr!("_id"), other.key().to_string().as_str());
        wrong.append(cstr!("id"), uuid(&commit.id().0));
        wrong.append(cstr!("body"), commit.encoded());
        let error = stored(&wrong).expect_err("another key");
        assert!(matches!(&error, StoreError::Damaged(why) if why.contains("another key")), "{error}");
        stored(&RawDocumentBuf::new()).expect_err("nothing");
    }
}
