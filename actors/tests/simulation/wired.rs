//! The ports as one process has them: everything goes over its [`Line`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use actors::broker::{Broker, BrokerError, Consume, Delivery, Message, Publish, Published, Subscription, Tag};
use actors::checkpoint::{self, Checkpoint, CheckpointError, Checkpoints};
use actors::clock::Timestamp;
use actors::commit::{Commit, CommitKey, StreamEnd};
use actors::event_store::{Appended, EventStore, Group, StoreError};
use actors::inbox::{
    Begun, Body, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Present, RecordedEffect,
    Renewed, Row, Term, Totals, Transaction, Which, Work,
};
use actors::log::{Follow, From, Log, LogError, Position};
use actors::mutant::Mutant;
use actors::order::{OrderId, Version};
use actors::snapshots::{Snapshot, Snapshots};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::line::Line;

/// A port over a line.
pub(crate) struct Wired<P: ?Sized> {
    inner: Arc<P>,
    line: Arc<Line>,
    /// Whether nobody else writes orders.
    sole_writer: bool,
    /// For [`Mutant::ReadsStaleDocuments`]: what was read of an inbox or written to it, as far as was heard.
    cache: Option<Mutex<BTreeMap<DocumentKey, Option<Body>>>>,
}

impl<P: ?Sized> Wired<P> {
    pub(crate) fn new(inner: Arc<P>, line: &Arc<Line>, sole_writer: bool) -> Arc<Self> {
        Arc::new(Self { inner, line: Arc::clone(line), sole_writer, cache: None })
    }

    /// An inbox, perhaps with a bug.
    pub(crate) fn inbox(inner: Arc<P>, line: &Arc<Line>, mutant: Option<Mutant>) -> Arc<Self> {
        let cache = (mutant == Some(Mutant::ReadsStaleDocuments)).then(Mutex::default);
        Arc::new(Self { inner, line: Arc::clone(line), sole_writer: true, cache })
    }

    fn cached(&self, keys: &[DocumentKey]) -> Option<Vec<Option<Body>>> {
        let cache = self.cache.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| cache.get(key).cloned()).collect()
    }

    fn cache(&self, documents: impl IntoIterator<Item = (DocumentKey, Option<Body>)>) {
        if let Some(cache) = &self.cache {
            cache.lock().unwrap_or_else(PoisonError::into_inner).extend(documents);
        }
    }
}

fn all(commits: &[Arc<Commit>]) -> String {
    let short = |commit: &Arc<Commit>| format!("{}..{}", commit.key(), commit.last());
    commits.iter().map(short).collect::<Vec<_>>().join(" ")
}

/// An answer of commits, said by their keys.
struct Keys<E>(Result<Vec<Arc<Commit>>, E>);

impl<E: std::fmt::Debug> std::fmt::Debug for Keys<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(commits) => f.write_str(&all(commits)),
            Err(error) => error.fmt(f),
        }
    }
}

#[async_trait]
impl<P: EventStore + ?Sized + 'static> EventStore for Wired<P> {
    async fn append(&self, group: Group) -> Vec<Appended> {
        let commits = group.commits().to_vec();
        self.line.call(|| format!("append {}", all(&commits)), self.inner.append(group)).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let read = async { Keys(self.inner.read(order, from, limit).await) };
        self.line.call(|| format!("read {order} from {from}"), read).await.0
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        let what = || format!("newest? {} {}", end.order(), end.version());
        self.line.call(what, self.inner.is_newest(end)).await
    }

    fn sole_writer(&self) -> bool {
        self.sole_writer
    }
}

#[async_trait]
impl<P: Log + ?Sized + 'static> Log for Wired<P> {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        let what = format!("follow {from:?}");
        let follow = async { self.inner.follow(from).await.map_err(|error| (error.to_string(), error)) };
        let follow = async { Opened(follow.await) };
        let Opened(follow) = self.line.call(|| what.clone(), follow).await;
        let inner = follow.map_err(|(_, error)| error)?;
        Ok(Box::new(Follower { inner, line: Arc::clone(&self.line) }))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let scan = async { Keys(self.inner.scan(after, limit).await) };
        self.line.call(|| format!("scan after {after:?}"), scan).await.0
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let read = async { Keys(self.inner.read(order, from, limit).await) };
        self.line.call(|| format!("history {order} from {from}"), read).await.0
    }
}

struct Opened<T>(Result<T, (String, LogError)>);

impl<T> std::fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(_) => f.write_str("open"),
            Err((why, _)) => f.write_str(why),
        }
    }
}

struct Follower {
    inner: Box<dyn Follow>,
    line: Arc<Line>,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        let next = async { Keys(self.inner.next(max).await) };
        self.line.wait(|| "log".to_owned(), next).await.0
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}

#[async_trait]
impl<P: Snapshots + ?Sized + 'static> Snapshots for Wired<P> {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        let load = async { Loaded(self.inner.load(order).await) };
        self.line.call(|| format!("snapshot of {order}"), load).await.0
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let end = snapshot.end;
        self.line.call(|| format!("save snapshot {} {}", end.order(), end.version()), self.inner.save(snapshot)).await
    }
}

/// A snapshot, said by its end: the order of what is in it means nothing.
struct Loaded(Result<Option<Snapshot>, StoreError>);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(snapshot) => snapshot.as_ref().map(|snapshot| snapshot.end.version()).fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}

#[async_trait]
impl<P: Checkpoints + ?Sized + 'static> Checkpoints for Wired<P> {
    async fn begin(&self) -> Result<checkpoint::Begun, CheckpointError> {
        self.line.call(|| "relay begin".to_owned(), self.inner.begin()).await
    }

    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        let what = format!("relay save {term:?} {checkpoint:?}");
        self.line.call(|| what.clone(), self.inner.save(term, checkpoint)).await
    }

    async fn release(&self, term: Term) -> Result<(), CheckpointError> {
        self.line.call(|| format!("relay release {term:?}"), self.inner.release(term)).await
    }
}

#[async_trait]
impl<P: Inbox + ?Sized + 'static> Inbox for Wired<P> {
    async fn begin(&self) -> Result<Begun, InboxError> {
        self.line.call(|| "begin".to_owned(), self.inner.begin()).await
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        self.line.call(|| format!("renew {term:?}"), self.inner.renew(term)).await
    }

    async fn release(&self, term: Term) -> Result<(), InboxError> {
        self.line.call(|| format!("release {term:?}"), self.inner.release(term)).await
    }

    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        self.line.call(|| "rows".to_owned(), self.inner.rows(generation, orders)).await
    }

    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        self.line.call(|| format!("due {work:?}"), self.inner.due(generation, work, until, limit)).await
    }

    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError> {
        self.line.call(|| format!("next due {work:?}"), self.inner.next_due(generation, work, after)).await
    }

    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        if let Some(cached) = self.cached(&keys) {
            return Ok(cached);
        }
        let read = self.inner.documents(generation, keys.clone());
        let bodies = self.line.call(|| "documents".to_owned(), read).await?;
        self.cache(keys.into_iter().zip(bodies.clone()));
        Ok(bodies)
    }

    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        let shown = Arc::clone(&transaction);
        let committed = self.line.call(|| format!("commit {shown:?}"), self.inner.commit(transaction)).await?;
        if committed == Committed::Written {
            self.cache(shown.documents.iter().map(|write| (write.key.clone(), write.body.clone())));
        }
        Ok(committed)
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        self.line.call(|| format!("waiting after {after:?}"), self.inner.waiting(after, limit)).await
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        self.line.call(|| "effects".to_owned(), self.inner.effects(orders, which, limit)).await
    }

    async fn present(&self) -> Result<Present, InboxError> {
        self.line.call(|| "present?".to_owned(), self.inner.present()).await
    }

    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError> {
        self.line.call(|| "totals".to_owned(), self.inner.totals(generation)).await
    }

    async fn held(
        &self,
        generation: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        self.line.call(|| format!("held {work:?}"), self.inner.held(generation, work, states, after, limit)).await
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        self.line.call(|| format!("discards of {order}"), self.inner.discards(order)).await
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.line.call(|| format!("set paused {paused}"), self.inner.set_paused(paused)).await
    }
}

#[async_trait]
impl<P: Broker + ?Sized + 'static> Broker for Wired<P> {
    async fn publisher(&self) -> Result<Box<dyn Publish>, BrokerError> {
        let connect = async { Connected(self.inner.publisher().await) };
        let inner = self.line.call(|| "connect publisher".to_owned(), connect).await.0?;
        Ok(Box::new(Publisher { inner, line: Arc::clone(&self.line) }))
    }

    async fn consume(&self, subscription: &Subscription) -> Result<Box<dyn Consume>, BrokerError> {
        let connect = async { Connected(self.inner.consume(subscription).await) };
        let inner = self.line.call(|| "connect consumer".to_owned(), connect).await.0?;
        Ok(Box::new(Consumer { inner, line: Arc::clone(&self.line) }))
    }
}

struct Connected<T>(Result<T, BrokerError>);

impl<T> std::fmt::Debug for Connected<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(_) => f.write_str("connected"),
            Err(error) => write!(f, "{error}"),
        }
    }
}

struct Publisher {
    inner: Box<dyn Publish>,
    line: Arc<Line>,
}

#[async_trait]
impl Publish for Publisher {
    async fn publish(&mut self, messages: &[Message]) -> Result<Published, BrokerError> {
        self.line.call(|| format!("publish {}", messages.len()), self.inner.publish(messages)).await
    }

    fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.inner.blocked()
    }
}

struct Consumer {
    inner: Box<dyn Consume>,
    line: Arc<Line>,
}

#[async_trait]
impl Consume for Consumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let next = async { Delivered(self.inner.next(max).await) };
        self.line.wait(|| "queue".to_owned(), next).await.0
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), BrokerError> {
        self.line.call(|| format!("acknowledge {up_to:?}"), self.inner.acknowledge(up_to)).await
    }

    async fn waiting(&mut self) -> Result<u64, BrokerError> {
        self.line.call(|| "how many wait?".to_owned(), self.inner.waiting()).await
    }

    fn set_aside(&self, delivery: &Delivery, reason: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (line, set_aside, tag) = (Arc::clone(&self.line), self.inner.set_aside(delivery, reason), delivery.tag);
        Box::pin(async move { line.call(|| format!("set aside {tag:?}"), set_aside).await })
    }

    async fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, BrokerError> {
        self.line.call(|| "put back".to_owned(), self.inner.put_back(readable)).await
    }
}

/// Deliveries, said by their tags.
struct Delivered(Result<Vec<Delivery>, BrokerError>);

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(deliveries) => f.debug_list().entries(deliveries.iter().map(|delivery| delivery.tag.0)).finish(),
            Err(error) => write!(f, "{error}"),
        }
    }
}
