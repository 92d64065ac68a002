//! The documents as the handlers of a batch see them: what is stored, what the events before have changed, and what
//! this event changes, which is thrown away when its handler fails.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::inbox::{BODY_BYTES_MAX, Body, DocumentKey, DocumentWrite, Failure, Generation, Inbox};

/// The documents of a whole batch.
pub(crate) struct Overlay {
    inbox: Arc<dyn Inbox>,
    generation: Generation,
    read: HashMap<DocumentKey, Option<Body>>,
    changed: BTreeMap<DocumentKey, Option<Body>>,
    changed_bytes: usize,
}

impl Overlay {
    /// Nothing read and nothing changed yet.
    pub(crate) fn new(inbox: Arc<dyn Inbox>, generation: Generation) -> Self {
        Self { inbox, generation, read: HashMap::new(), changed: BTreeMap::new(), changed_bytes: 0 }
    }

    /// As if an event before had written these.
    pub(crate) fn seed(&mut self, writes: Vec<DocumentWrite>) {
        self.keep(Changes(writes.into_iter().map(|write| (write.key, write.body)).collect()));
    }

    /// Every document that was read or changed.
    pub(crate) fn keys(&self) -> Vec<DocumentKey> {
        let only_changed = self.changed.keys().filter(|key| !self.read.contains_key(key));
        self.read.keys().chain(only_changed).cloned().collect()
    }

    /// Fetches these documents at once.
    pub(crate) async fn fetch(&mut self, mut keys: Vec<DocumentKey>) -> Result<(), Failure> {
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !self.read.contains_key(key) && !self.changed.contains_key(key));
        if keys.is_empty() {
            return Ok(());
        }
        let bodies = self.inbox.documents(self.generation, keys.clone()).await;
        let bodies = bodies.map_err(|error| Failure::dependency_down(error.to_string()))?;
        self.read.extend(keys.into_iter().zip(bodies));
        Ok(())
    }

    /// A layer for one event.
    pub(crate) fn layer(&mut self) -> Documents<'_> {
        Documents { overlay: self, changed: BTreeMap::new() }
    }

    /// Takes over what an event changed.
    pub(crate) fn keep(&mut self, changes: Changes) {
        for (key, body) in changes.0 {
            self.changed_bytes += body.as_ref().map_or(0, |body| body.len());
            let replaced = self.changed.insert(key, body).flatten();
            self.changed_bytes -= replaced.map_or(0, |body| body.len());
        }
    }

    /// How many documents are changed.
    pub(crate) fn changed_documents(&self) -> usize {
        self.changed.len()
    }

    /// How many bytes the changed documents have.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Everything that was kept.
    pub(crate) fn into_writes(self) -> Vec<DocumentWrite> {
        self.changed.into_iter().map(|(key, body)| DocumentWrite { key, body }).collect()
    }

    async fn read(&mut self, key: DocumentKey) -> Result<Option<Body>, Failure> {
        if let Some(body) = self.changed.get(&key).or_else(|| self.read.get(&key)) {
            return Ok(body.clone());
        }
        self.fetch(vec![key.clone()]).await?;
        Ok(self.read.get(&key).cloned().flatten())
    }
}

/// What one event changed.
pub(crate) struct Changes(BTreeMap<DocumentKey, Option<Body>>);

/// A subscriber's documents as one handler sees and changes them. It reads its own changes; they are stored together
/// with the fact that the event was handled, or not at all.
pub struct Documents<'a> {
    overlay: &'a mut Overlay,
    changed: BTreeMap<DocumentKey, Option<Body>>,
}

impl Documents<'_> {
    /// The document, when there is one.
    ///
    /// # Errors
    /// When the store is away, or the document is not a `T`.
    pub async fn get<T: DeserializeOwned>(
        &mut self,
        collection: &'static str,
        id: impl ToString,
    ) -> Result<Option<T>, Failure> {
        let key = key(collection, id);
        let body = match self.changed.get(&key) {
            Some(body) => body.clone(),
            None => self.overlay.read(key.clone()).await?,
        };
        body.map(|body| serde_json::from_str(&body))
            .transpose()
            .map_err(|error| Failure::permanent(format!("document {}/{}: {error}", key.collection, key.id)))
    }

    /// Stores a document in the place of an older one.
    ///
    /// # Errors
    /// When it cannot be written as JSON, or that has more than [`BODY_BYTES_MAX`] bytes: what a store refuses would keep
    /// everything else of the transaction out as well.
    #[track_caller]
    pub fn put<T: Serialize>(
        &mut self,
        collection: &'static str,
        id: impl ToString,
        document: &T,
    ) -> Result<(), Failure> {
        let key = key(collection, id);
        let body = serde_json::to_string(document)
            .map_err(|error| Failure::permanent(format!("document {}/{}: {error}", key.collection, key.id)))?;
        if body.len() > BODY_BYTES_MAX {
            let (DocumentKey { collection, id }, bytes) = (key, body.len());
            return Err(Failure::permanent(format!(
                "document {collection}/{id}: it has {bytes} bytes, more than the {BODY_BYTES_MAX} that are stored"
            )));
        }
        self.changed.insert(key, Some(body.into()));
        Ok(())
    }

    /// Deletes a document, if there is one.
    pub fn delete(&mut self, collection: &'static str, id: impl ToString) {
        self.changed.insert(key(collection, id), None);
    }

    /// What was changed, without the layer.
    pub(crate) fn into_changes(self) -> Changes {
        Changes(self.changed)
    }
}

fn key(collection: &'static str, id: impl ToString) -> DocumentKey {
    DocumentKey { collection: Cow::Borrowed(collection), id: id.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::FailureKind;
    use crate::testing::inbox::MemoryInbox;

    /// A document that has that many bytes as JSON.
    fn of_bytes(bytes: usize) -> String {
        "x".repeat(bytes - 2)
    }

    #[test]
    fn a_document_of_the_largest_size_is_kept_and_one_byte_more_is_refused() {
        let mut overlay = Overlay::new(Arc::new(MemoryInbox::default()), Generation::default());
        let mut documents = overlay.layer();
        documents.put("orders", 1, &of_bytes(BODY_BYTES_MAX)).expect("it is small enough");
        let failure = documents.put("orders", 2, &of_bytes(BODY_BYTES_MAX + 1)).expect_err("it is too large");
        let line = line!() - 1;
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert_eq!(failure.text, "document orders/2: it has 8388609 bytes, more than the 8388608 that are stored");
        assert_eq!(failure.place.as_deref(), Some(&*format!("{}:{line}", file!())), "where the handler put it");
        let changes = documents.into_changes();
        overlay.keep(changes);
        assert_eq!((overlay.changed_documents(), overlay.changed_bytes()), (1, BODY_BYTES_MAX));
    }

    #[test]
    fn what_is_refused_leaves_what_was_there() {
        let mut overlay = Overlay::new(Arc::new(MemoryInbox::default()), Generation::default());
        let mut documents = overlay.layer();
        documents.put("orders", 1, &"before").expect("it is small enough");
        documents.put("orders", 1, &of_bytes(BODY_BYTES_MAX + 1)).expect_err("it is too large");
        let changes = documents.into_changes();
        overlay.keep(changes);
        let writes = overlay.into_writes();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].body.as_deref(), Some("\"before\""));
    }
}
