//! Faults around a subscriber's store.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Fate, Faulty, Write};
use crate::clock::Timestamp;
use crate::inbox::{
    Begun, Body, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Present, RecordedEffect,
    Renewed, Row, Term, Totals, Transaction, Which, Work,
};
use crate::order::OrderId;

fn away() -> InboxError {
    InboxError::Away("a fault on purpose".to_owned())
}

fn unknown() -> InboxError {
    InboxError::Unknown("a fault on purpose".to_owned())
}

async fn call(fate: &Fate) -> Result<(), InboxError> {
    fate.delay().await;
    if fate.error() { Err(away()) } else { Ok(()) }
}

#[async_trait]
impl<P: Inbox + ?Sized + 'static> Inbox for Faulty<P> {
    async fn begin(&self) -> Result<Begun, InboxError> {
        call(&self.fate).await?;
        self.inner.begin().await
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        call(&self.fate).await?;
        self.inner.renew(term).await
    }

    async fn release(&self, term: Term) -> Result<(), InboxError> {
        call(&self.fate).await?;
        self.inner.release(term).await
    }

    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        call(&self.fate).await?;
        self.inner.rows(generation, orders).await
    }

    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        call(&self.fate).await?;
        self.inner.due(generation, work, until, limit).await
    }

    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError> {
        call(&self.fate).await?;
        self.inner.next_due(generation, work, after).await
    }

    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        call(&self.fate).await?;
        self.inner.documents(generation, keys).await
    }

    /// A transaction whose outcome is unknown was done, is done later, or never: the same one again gives the answer.
    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        self.fate.delay().await;
        match self.fate.write() {
            Write::Done => self.inner.commit(transaction).await,
            Write::NotDone => Err(away()),
            Write::DoneUnheard => {
                self.inner.commit(transaction).await?;
                Err(unknown())
            }
            Write::DoneLater(after) => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    inner.commit(transaction).await
                });
                Err(unknown())
            }
            Write::Lost => Err(unknown()),
        }
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        call(&self.fate).await?;
        self.inner.waiting(after, limit).await
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        call(&self.fate).await?;
        self.inner.effects(orders, which, limit).await
    }

    async fn present(&self) -> Result<Present, InboxError> {
        call(&self.fate).await?;
        self.inner.present().await
    }

    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError> {
        call(&self.fate).await?;
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
        call(&self.fate).await?;
        self.inner.held(generation, work, states, after, limit).await
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        call(&self.fate).await?;
        self.inner.discards(order).await
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.fate.delay().await;
        match self.fate.write() {
            Write::Done => self.inner.set_paused(paused).await,
            Write::NotDone => Err(away()),
            Write::DoneUnheard => {
                self.inner.set_paused(paused).await?;
                Err(unknown())
            }
            Write::DoneLater(after) => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    inner.set_paused(paused).await
                });
                Err(unknown())
            }
            Write::Lost => Err(unknown()),
        }
    }
}
