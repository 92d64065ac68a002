//! The beat of one process: says again and again that it is there, and keeps the list of all for those who look.
//!
//! A store that is away costs the beats and is said once. Nothing waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Nodes, Process, Seen};
use crate::event_store::StoreError;

/// A process that has been silent for so long is taken out of the list.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// How many beats there are between two looks for those who are to be forgotten.
const BEATS_BETWEEN: u32 = 30;

/// The last list that this process has read. Cheap to clone, and answers from memory.
#[derive(Clone, Debug)]
pub struct Roll {
    me: Arc<str>,
    read: Arc<Mutex<Read>>,
}

#[derive(Debug)]
struct Read {
    seen: Vec<Seen>,
    at: Instant,
}

impl Roll {
    /// With this process alone in it, until the first list is read.
    pub fn new(me: Process) -> Self {
        let name = me.instance.as_str().into();
        let seen = vec![Seen { process: me, silent_for: Duration::ZERO }];
        Self { me: name, read: Arc::new(Mutex::new(Read { seen, at: Instant::now() })) }
    }

    /// The instance that keeps it.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// All processes, as silent as they are now if none has spoken since the list was read.
    pub fn list(&self) -> Vec<Seen> {
        let read = self.lock();
        let since = read.at.elapsed();
        let aged = |seen: &Seen| Seen { silent_for: seen.silent_for + since, ..seen.clone() };
        read.seen.iter().map(aged).collect()
    }

    fn take(&self, seen: Vec<Seen>) {
        *self.lock() = Read { seen, at: Instant::now() };
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What beats.
#[derive(Clone)]
pub struct Heartbeat {
    nodes: Arc<dyn Nodes>,
    me: Process,
    active: Active,
    roll: Roll,
}

/// Says which subscribers are at work in this process now.
type Active = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

impl Heartbeat {
    /// Of that process, as often as it says itself, with the list for `roll`. `active` says which subscribers are at work
    /// in it when it is asked.
    pub fn new(
        nodes: Arc<dyn Nodes>,
        me: Process,
        active: impl Fn() -> Vec<String> + Send + Sync + 'static,
        roll: Roll,
    ) -> Self {
        Self { nodes, me, active: Arc::new(active), roll }
    }

    /// Beats for ever: a job for a task child.
    pub async fn beat(&self) {
        let every = Duration::from_millis(self.me.heartbeat_ms);
        let mut failing = false;
        for beat in 0_u32.. {
            let said = self.once(beat.is_multiple_of(BEATS_BETWEEN)).await;
            match &said {
                Ok(()) if failing => tracing::info!("the node registry answers again"),
                Ok(()) => {}
                Err(error) if failing => tracing::debug!(%error, "the node registry does not answer"),
                Err(error) => {
                    tracing::warn!(%error, "the node registry does not answer; others see this node as silent")
                }
            }
            failing = said.is_err();
            tokio::time::sleep(every).await;
        }
    }

    /// Takes this process out of the list: at its end. One that cannot is seen as silent, and forgotten later.
    pub async fn leave(&self) {
        if let Err(error) = self.nodes.leave(&self.me.instance).await {
            tracing::debug!(%error, "this node could not take itself out of the registry");
        }
    }

    async fn once(&self, forget: bool) -> Result<(), StoreError> {
        self.nodes.beat(&Process { active: (self.active)(), ..self.me.clone() }).await?;
        if forget {
            self.nodes.forget(FORGOTTEN_AFTER).await?;
        }
        self.roll.take(self.nodes.list().await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::clock::Timestamp;

    fn process(instance: &str) -> Process {
        Process {
            instance: instance.to_owned(),
            name: instance.to_owned(),
            http: "127.0.0.1:8080".to_owned(),
            ops: "127.0.0.1:8081".to_owned(),
            version: "1.0.0".to_owned(),
            roles: vec!["orders".to_owned()],
            active: Vec::new(),
            started_at: Timestamp::EPOCH,
            heartbeat_ms: 2_000,
        }
    }

    /// A registry with another node in it, that can be away.
    #[derive(Default)]
    struct Registry {
        away: AtomicBool,
        beats: AtomicU32,
        left: AtomicBool,
    }

    impl Registry {
        fn here(&self) -> Result<(), StoreError> {
            if self.away.load(Ordering::Relaxed) { Err(StoreError::Away("switched off".to_owned())) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Nodes for Registry {
        async fn beat(&self, me: &Process) -> Result<(), StoreError> {
            self.here()?;
            assert_eq!(me.active, ["notification"]);
            self.beats.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        async fn list(&self) -> Result<Vec<Seen>, StoreError> {
            self.here()?;
            let seen = |name, millis| Seen { process: process(name), silent_for: Duration::from_millis(millis) };
            Ok(vec![seen("a", 0), seen("b", 5_000)])
        }

        async fn leave(&self, instance: &str) -> Result<(), StoreError> {
            assert_eq!(instance, "a");
            self.left.store(true, Ordering::Relaxed);
            Ok(())
        }

        async fn forget(&self, silent_for: Duration) -> Result<(), StoreError> {
            assert_eq!(silent_for, FORGOTTEN_AFTER);
            self.here()
        }
    }

    fn alive(roll: &Roll) -> Vec<(String, bool)> {
        roll.list().into_iter().map(|seen| (seen.process.name.clone(), seen.is_alive())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_while_the_store_is_away_and_the_list_grows_older() {
        let registry = Arc::new(Registry::default());
        let roll = Roll::new(process("a"));
        let heartbeat =
            Heartbeat::new(registry.clone(), process("a"), || vec!["notification".to_owned()], roll.clone());
        let pass = |millis| tokio::time::timeout(Duration::from_millis(millis), heartbeat.beat());
        assert_eq!(alive(&roll), [("a".to_owned(), true)]);

        assert!(pass(3_000).await.is_err(), "it ends");
        assert_eq!(registry.beats.load(Ordering::Relaxed), 2);
        assert_eq!(alive(&roll), [("a".to_owned(), true), ("b".to_owned(), true)]);

        registry.away.store(true, Ordering::Relaxed);
        assert!(pass(2_000).await.is_err(), "it ends");
        assert_eq!(alive(&roll), [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert!(pass(4_000).await.is_err(), "it ends");
        assert_eq!(alive(&roll), [("a".to_owned(), false), ("b".to_owned(), false)]);

        registry.away.store(false, Ordering::Relaxed);
        assert!(pass(1_000).await.is_err(), "it ends");
        assert_eq!(alive(&roll), [("a".to_owned(), true), ("b".to_owned(), true)]);
        heartbeat.leave().await;
        assert!(registry.left.load(Ordering::Relaxed));
    }
}
