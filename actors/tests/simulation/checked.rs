//! The innermost ports, where what is durable changes: what must hold at every moment is looked at here, at that moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::broker::{Broker, BrokerError, Consume, Delivery, Publish, Subscription, Tag};
use actors::clock::Timestamp;
use actors::event::Envelope;
use actors::inbox::{
    Begun, Body, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Present, RecordedEffect,
    Renewed, Row, Term, Totals, Transaction, Which, Work,
};
use actors::mutant::Mutant;
use actors::order::{OrderId, Version};
use actors::testing::broker::MemoryBroker;
use actors::testing::inbox::MemoryInbox;
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::stage::{Stage, Sums, Tally};

/// The inbox as one process has it.
pub(crate) struct CheckedInbox {
    inner: MemoryInbox,
    stage: Arc<Stage>,
    mutant: Option<Mutant>,
}

impl CheckedInbox {
    pub(crate) fn new(inner: MemoryInbox, stage: Arc<Stage>, mutant: Option<Mutant>) -> Self {
        Self { inner, stage, mutant }
    }

    /// The transaction as it comes to the store: another one when a bug was put in here.
    fn as_sent(&self, transaction: &Arc<Transaction>) -> Arc<Transaction> {
        let mut sent = Arc::clone(transaction);
        match self.mutant {
            Some(Mutant::WritesUnfenced) => {
                for write in &mut Arc::make_mut(&mut sent).rows {
                    write.was_written_by = self.stored(write.row.order).written_by;
                }
            }
            Some(Mutant::RaisesSeenFromCache) => {
                for write in &mut Arc::make_mut(&mut sent).rows {
                    let stored = self.stored(write.row.order);
                    if write.row.seen > stored.seen && write.row.applied == stored.applied {
                        write.was_written_by = stored.written_by;
                        write.row = Row { seen: write.row.seen, ..stored };
                    }
                }
            }
            Some(_) | None => {}
        }
        sent
    }

    fn records_twice(&self, transaction: &Transaction) -> bool {
        transaction.effects.iter().any(|new| {
            let recorded = self.inner.effects_now(&[new.order], Which::All, usize::MAX);
            recorded.iter().any(|recorded| recorded.effect.id == new.id)
        })
    }

    fn stored(&self, order: OrderId) -> Row {
        self.inner.rows_now(&[order]).pop().unwrap_or_else(|| Row::new(order))
    }

    fn check(&self, transaction: &Transaction, before: &[Row]) {
        for write in &transaction.rows {
            let order = write.row.order;
            let new = Row::new(order);
            let before = before.iter().find(|row| row.order == order).unwrap_or(&new);
            self.check_row(before, &write.row);
        }
        self.check_documents();
    }

    fn check_row(&self, before: &Row, after: &Row) {
        let (order, book) = (after.order, &self.stage.book);
        for (what, before, after) in [
            ("seen", before.seen, after.seen),
            ("applied", before.applied, after.applied),
            ("performed", before.performed, after.performed),
        ] {
            book.demand(before <= after, || format!("{order}: {what} goes back from {before} to {after}"));
        }
        let commits = self.stage.memory.commits();
        let last = commits.iter().filter(|commit| commit.order() == order).map(|commit| commit.last()).max();
        let last = last.unwrap_or(Version::NONE);
        book.demand(after.applied <= after.seen, || format!("{order}: applied beyond what is seen"));
        book.demand(after.seen <= last, || format!("{order}: seen {} and the log ends at {last}", after.seen));
        book.demand(!after.applying.is_ready() || after.applied == after.seen, || {
            format!("{order}: ready at {} although {} is seen", after.applied, after.seen)
        });
        let effects = self.inner.effects_now(&[order], Which::Waiting, usize::MAX);
        let waiting = u32::try_from(effects.len()).unwrap_or(u32::MAX);
        book.demand_same(|| format!("{order}: effects waiting"), &after.effects_waiting, &waiting);
        let first = effects.first().map_or(after.applied.next(), |effect| effect.effect.version);
        book.demand(after.performed < first, || format!("{order}: performed up to {}", after.performed));
    }

    /// Documents hold what the rows say, all of it and nothing else.
    fn check_documents(&self) {
        let book = &self.stage.book;
        let mut applied = 0;
        for row in self.inner.all_rows() {
            let versions: Vec<u32> = self.document(&Tally::own(row.order));
            let all = self.stage.kept(row.order, row.applied);
            book.demand_same(|| format!("{}: versions in its document", row.order), &versions, &all);
            applied += all.len() as u64;
        }
        let sums: Sums = self.document(&Tally::shared());
        book.demand_same(|| "events in the shared document".to_owned(), &sums.events, &applied);
    }

    fn document<T: serde::de::DeserializeOwned + Default>(&self, key: &DocumentKey) -> T {
        let body = self.inner.documents_now(std::slice::from_ref(key)).pop().flatten();
        body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
    }
}

#[async_trait]
impl Inbox for CheckedInbox {
    async fn begin(&self) -> Result<Begun, InboxError> {
        self.inner.begin().await
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        self.inner.renew(term).await
    }

    async fn release(&self, term: Term) -> Result<(), InboxError> {
        self.inner.release(term).await
    }

    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        self.inner.rows(generation, orders).await
    }

    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        self.inner.due(generation, work, until, limit).await
    }

    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError> {
        self.inner.next_due(generation, work, after).await
    }

    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        self.inner.documents(generation, keys).await
    }

    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        // Each transaction writes the lease, so of two attempts at one the later lands behind the earlier or finds it there.
        if transaction.rows.is_empty() && self.stage.is_stored(transaction.id) {
            return Ok(Committed::Written);
        }
        let transaction = self.as_sent(&transaction);
        let orders: Vec<_> = transaction.rows.iter().map(|write| write.row.order).collect();
        let before = self.inner.rows_now(&orders);
        let book = &self.stage.book;
        if self.mutant == Some(Mutant::WritesUnfenced) && self.records_twice(&transaction) {
            book.wrong(|| format!("{:?} records an effect that is recorded", transaction.id));
            return Ok(Committed::Fenced(orders));
        }
        let committed = self.inner.commit_now(&transaction)?;
        if committed == Committed::Written {
            book.note(|| format!("inbox: {:?} is stored", transaction.id));
            let twice = !self.stage.store(transaction.id);
            book.demand(!twice, || format!("{:?} is stored twice", transaction.id));
            for discard in &transaction.discards {
                self.stage.discard((discard.order, discard.version, discard.effect));
            }
            self.check(&transaction, &before);
        }
        Ok(committed)
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        self.inner.waiting(after, limit).await
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        self.inner.effects(orders, which, limit).await
    }

    async fn present(&self) -> Result<Present, InboxError> {
        self.inner.present().await
    }

    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError> {
        self.inner.totals(generation).await
    }

    async fn held(
        &self,
        generation: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        self.inner.held(generation, work, states, after, limit).await
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        self.inner.discards(order).await
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.inner.set_paused(paused).await
    }
}

/// The broker, which looks whether what is acknowledged may be forgotten.
pub(crate) struct CheckedBroker {
    pub(crate) inner: MemoryBroker,
    pub(crate) stage: Arc<Stage>,
}

#[async_trait]
impl Broker for CheckedBroker {
    async fn publisher(&self) -> Result<Box<dyn Publish>, BrokerError> {
        self.inner.publisher().await
    }

    async fn consume(&self, subscription: &Subscription) -> Result<Box<dyn Consume>, BrokerError> {
        let inner = self.inner.consume(subscription).await?;
        Ok(Box::new(CheckedConsumer { inner, stage: Arc::clone(&self.stage), in_hand: BTreeMap::new() }))
    }
}

struct CheckedConsumer {
    inner: Box<dyn Consume>,
    stage: Arc<Stage>,
    in_hand: BTreeMap<Tag, (OrderId, Version)>,
}

#[async_trait]
impl Consume for CheckedConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let deliveries = self.inner.next(max).await?;
        for delivery in &deliveries {
            if let Ok(event) = serde_json::from_slice::<Envelope>(&delivery.body) {
                self.in_hand.insert(delivery.tag, (event.order, event.version));
            }
        }
        Ok(deliveries)
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), BrokerError> {
        let left = self.in_hand.split_off(&Tag(up_to.0 + 1));
        for (order, version) in std::mem::replace(&mut self.in_hand, left).into_values() {
            let seen = self.stage.inbox.rows_now(&[order]).first().map_or(Version::NONE, |row| row.seen);
            self.stage.book.demand(version <= seen, || {
                format!("{order}: {version} is acknowledged, and nothing durable says that it is seen (only {seen})")
            });
        }
        self.inner.acknowledge(up_to).await
    }

    async fn waiting(&mut self) -> Result<u64, BrokerError> {
        self.inner.waiting().await
    }

    fn set_aside(&self, delivery: &Delivery, reason: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.set_aside(delivery, reason)
    }

    async fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, BrokerError> {
        self.inner.put_back(readable).await
    }
}
