//! The conformance suite.

use std::sync::{Arc, Mutex};

use actors::commit::Commit;
use actors::testing::conformance::{Adapter, Late, Store};
use async_trait::async_trait;
use mongodb::bson::{Binary, RawDocumentBuf, doc, rawdoc, spec::BinarySubtype};
use mongodb::{ClientSession, Collection};

use super::Database;

struct Mongo {
    database: Database,
    copy: Mutex<Vec<(String, Vec<RawDocumentBuf>)>>,
}

#[async_trait]
impl Adapter for Mongo {
    async fn new() -> Self {
        Self { database: Database::new(), copy: Mutex::default() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.database.open().await)
    }

    async fn close(&self, store: Arc<dyn Store>) {
        drop(store);
    }

    async fn back_up(&self) {
        let database = self.database.past().await;
        let mut copy = Vec::new();
        for name in database.list_collection_names().await.expect("collections") {
            copy.push((name.clone(), documents(&database.collection(&name)).await));
        }
        *self.copy.lock().expect("no panic") = copy;
    }

    /// As `mongorestore --drop` does it.
    async fn restore(&self) {
        let database = self.database.past().await;
        let copy = std::mem::take(&mut *self.copy.lock().expect("no panic"));
        for (name, documents) in copy {
            let collection = database.collection::<RawDocumentBuf>(&name);
            collection.drop().await.expect("dropped");
            database.create_collection(&name).await.expect("created");
            if !documents.is_empty() {
                collection.insert_many(documents).await.expect("inserted");
            }
        }
    }

    async fn begin_late(&self, _store: &Arc<dyn Store>, commit: Arc<Commit>) -> Option<Box<dyn Late>> {
        let database = self.database.past().await;
        let mut session = database.client().start_session().await.expect("a session");
        session.start_transaction().await.expect("a transaction");
        let commits = database.collection::<RawDocumentBuf>("commits");
        commits.insert_one(document(&commit)).session(&mut session).await.expect("inserted");
        Some(Box::new(InTransaction(session)))
    }
}

/// A commit in a transaction that is open.
struct InTransaction(ClientSession);

#[async_trait]
impl Late for InTransaction {
    async fn land(mut self: Box<Self>) {
        self.0.commit_transaction().await.expect("committed");
    }
}

actors::conformance!(Mongo);

/// A commit as it is stored.
fn document(commit: &Commit) -> RawDocumentBuf {
    let id = Binary { subtype: BinarySubtype::Uuid, bytes: commit.id().0.as_bytes().to_vec() };
    rawdoc! { "_id": commit.key().to_string(), "id": id, "body": commit.encoded() }
}

async fn documents(collection: &Collection<RawDocumentBuf>) -> Vec<RawDocumentBuf> {
    let mut cursor = collection.find(doc! {}).await.expect("documents");
    let mut documents = Vec::new();
    while cursor.advance().await.expect("a document") {
        documents.push(cursor.current().to_owned());
    }
    documents
}
