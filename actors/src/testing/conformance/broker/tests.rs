//! The suite against the broker in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::Adapter;
use crate::broker::Broker;
use crate::testing::broker::MemoryBroker;

struct MemoryAdapter(MemoryBroker);

#[async_trait]
impl Adapter for MemoryAdapter {
    async fn new() -> Self {
        Self(MemoryBroker::new(1))
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    async fn purge(&self, subscriber: &'static str) {
        self.0.purge(subscriber);
    }

    async fn delete(&self, subscriber: &'static str) {
        self.0.delete(subscriber);
    }

    async fn put(&self, subscriber: &'static str, body: &[u8]) {
        self.0.put(subscriber, body);
    }
}

crate::broker_conformance!(MemoryAdapter);
