//! The suite against the store in memory, and its part about leases against the inbox in memory.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Adapter, Late, Store, append};
use crate::commit::Commit;
use crate::testing::memory::Memory;

struct MemoryAdapter {
    memory: Mutex<Memory>,
    copy: Mutex<Option<Memory>>,
}

#[async_trait]
impl Adapter for MemoryAdapter {
    async fn new() -> Self {
        Self { memory: Mutex::new(Memory::new()), copy: Mutex::new(None) }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn close(&self, _store: Arc<dyn Store>) {}

    async fn back_up(&self) {
        let copy = self.memory.lock().unwrap_or_else(PoisonError::into_inner).copied();
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
    }

    async fn restore(&self) {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = copy.expect("a copy");
    }

    async fn begin_late(&self, store: &Arc<dyn Store>, commit: Arc<Commit>) -> Option<Box<dyn Late>> {
        Some(Box::new(LateInMemory { store: Arc::clone(store), commit }))
    }
}

struct LateInMemory {
    store: Arc<dyn Store>,
    commit: Arc<Commit>,
}

#[async_trait]
impl Late for LateInMemory {
    async fn land(self: Box<Self>) {
        append(&*self.store, &self.commit).await;
    }
}

crate::conformance!(MemoryAdapter);

/// On virtual time: they wait for leases to end.
macro_rules! leases {
    ($($test:ident),+ $(,)?) => {
        mod leases {
            use std::sync::Arc;
            use std::time::Duration;

            use crate::testing::conformance::inbox::{self as suite, Another};
            use crate::testing::inbox::MemoryInbox;

            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                let (inbox, lease) = (MemoryInbox::default(), Duration::from_secs(5));
                let another = Another { inbox: Arc::new(inbox.of_process("another", lease)), lease };
                suite::$test(&inbox.of_process("one", lease), Some(another)).await;
            })+
        }
    };
}

crate::inbox_leases!(leases);
