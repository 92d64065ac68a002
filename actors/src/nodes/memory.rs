//! The registry of a process that has the order service's store for itself. Others, which run subscribers without it, say
//! there that they are there. It ends with the process; whoever is there says so again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Nodes, Process, Seen};
use crate::event_store::StoreError;

/// Most processes in the list.
const NODES_MAX: usize = 1_000;

/// Which processes there are, by their instance.
#[derive(Debug, Default)]
pub struct NodesInMemory {
    nodes: Mutex<HashMap<String, (Process, Instant)>>,
}

impl NodesInMemory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Process, Instant)>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Nodes for NodesInMemory {
    async fn beat(&self, me: &Process) -> Result<(), StoreError> {
        let mut nodes = self.lock();
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&me.instance) {
            return Err(StoreError::Full(format!("it lists {NODES_MAX} processes already")));
        }
        nodes.insert(me.instance.clone(), (me.clone(), Instant::now()));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Seen>, StoreError> {
        let seen = |(process, at): &(Process, Instant)| Seen { process: process.clone(), silent_for: at.elapsed() };
        let mut seen: Vec<Seen> = self.lock().values().map(seen).collect();
        seen.sort_by(|a, b| {
            let key = |seen: &Seen| (seen.process.name.clone(), seen.process.started_at);
            key(a).cmp(&key(b))
        });
        Ok(seen)
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        self.lock().remove(instance);
        Ok(())
    }

    async fn forget(&self, silent_for: Duration) -> Result<(), StoreError> {
        self.lock().retain(|_, (_, at)| at.elapsed() < silent_for);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn process(name: &str) -> Process {
        Process {
            instance: format!("{name}/1"),
            name: name.to_owned(),
            http: "127.0.0.1:8080".to_owned(),
            ops: "127.0.0.1:8081".to_owned(),
            version: "1.0.0".to_owned(),
            roles: vec!["notification".to_owned()],
            active: Vec::new(),
            started_at: Timestamp::EPOCH,
            heartbeat_ms: 2_000,
        }
    }

    async fn listed(nodes: &NodesInMemory) -> Vec<(String, bool)> {
        let seen = nodes.list().await.expect("a list");
        seen.into_iter().map(|seen| (seen.process.name.clone(), seen.is_alive())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_seen_to_be_until_it_is_forgotten() {
        let nodes = NodesInMemory::default();
        for name in ["b", "a"] {
            nodes.beat(&process(name)).await.expect("taken");
        }
        assert_eq!(listed(&nodes).await, [("a".to_owned(), true), ("b".to_owned(), true)]);
        tokio::time::advance(Duration::from_secs(7)).await;
        nodes.beat(&Process { active: vec!["notification".to_owned()], ..process("b") }).await.expect("taken");
        assert_eq!(listed(&nodes).await, [("a".to_owned(), false), ("b".to_owned(), true)]);
        assert_eq!(nodes.list().await.expect("a list")[1].process.active, ["notification"]);
        nodes.forget(Duration::from_secs(7)).await.expect("forgotten");
        assert_eq!(listed(&nodes).await, [("b".to_owned(), true)]);
        nodes.leave("b/1").await.expect("left");
        nodes.leave("nobody/1").await.expect("was not there");
        assert_eq!(listed(&nodes).await, []);
    }

    #[tokio::test]
    async fn a_list_that_is_full_still_hears_those_who_are_in_it() {
        let nodes = NodesInMemory::default();
        for number in 0..NODES_MAX {
            nodes.beat(&process(&number.to_string())).await.expect("taken");
        }
        let refused = nodes.beat(&process("one more")).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        nodes.beat(&process("7")).await.expect("taken");
    }
}
