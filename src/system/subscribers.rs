//! The subscriber part: the subscribers of this process, each with a store of its own. On a shared store they run in every
//! process; a lease in a subscriber's store decides where it is active.

use std::sync::Arc;

use actors::clock::SystemClock;
use actors::subscriber::actor::{self, Ports, SubscriberHandle};
use actors::subscriber::registry::Registered;
use actors::subscriber::settings::{Backoff, Settings};
use actors::supervisor::{Child, Strategy, Supervisor};

use super::source::Source;
use super::storage::Storage;
use super::threads::Threads;
use super::{StartError, policy};
use crate::config::{self, Config, millis};

/// The subscriber part of a process.
pub(super) struct SubscriberPart {
    /// Their supervisor.
    pub(super) child: Child,
    /// Each as others see it.
    pub(super) handles: Vec<SubscriberHandle>,
    /// All of them share one.
    pub(super) threads: Threads,
}

/// What brings events to subscribers.
#[derive(Clone, Copy)]
pub(super) enum Brings {
    /// They follow the log.
    Log,
    /// A broker; the log says what it did not bring.
    Broker,
}

impl SubscriberPart {
    /// Opens their stores. `source` says what happened.
    pub(super) async fn open(
        config: &Config,
        registered: Vec<Registered>,
        storage: &dyn Storage,
        source: &Source,
        brings: Brings,
    ) -> Result<Self, StartError> {
        let mut threads = Threads::default();
        let thread = threads.start();
        let mut supervisor = Supervisor::new(Strategy::OneForOne, policy(config));
        let mut handles = Vec::new();
        for one in registered {
            let limits = config.subscriber(one.name());
            let inbox = storage.inbox(one.name(), millis(limits.lease_ms)).await?;
            let from = match brings {
                Brings::Log => actor::Source::Log(Arc::clone(&source.log)),
                Brings::Broker => actor::Source::Broker,
            };
            let history = Arc::clone(&source.history);
            let ports = Ports { inbox, source: from, history, clock: Arc::new(SystemClock) };
            let (child, handle) = actor::child(one, ports, settings(limits));
            supervisor = supervisor.child(child.on(thread.clone()));
            handles.push(handle);
        }
        Ok(Self { child: Child::supervisor("subscribers", supervisor), handles, threads })
    }

    /// Says which of them are at work here.
    pub(super) fn active(&self) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
        let handles = self.handles.clone();
        move || {
            let at_work = handles.iter().map(SubscriberHandle::status).filter(|status| status.state.is_at_work());
            at_work.map(|status| status.name.to_owned()).collect()
        }
    }
}

fn settings(limits: &config::Subscriber) -> Settings {
    Settings {
        batch_events_max: limits.batch_events_max as usize,
        batch_documents_max: limits.batch_documents_max as usize,
        batch_bytes_max: usize::try_from(limits.batch_bytes_max).unwrap_or(usize::MAX),
        queue_events_max: limits.queue_events_max as usize,
        rows_cached_max: limits.rows_cached_max as usize,
        lanes_at_once_max: limits.lanes_at_once_max as usize,
        history_commits_max: limits.history_commits_max as usize,
        effects_loaded_max: limits.effects_loaded_max as usize,
        effects_at_once_max: limits.effects_at_once_max as usize,
        effects_max: limits.effects_max,
        attempts_max: limits.attempts_max,
        failing_orders_max: limits.failing_orders_max as usize,
        handler_patience: millis(limits.handler_patience_ms),
        handler_timeout: millis(limits.handler_timeout_ms),
        effect_timeout: millis(limits.effect_timeout_ms),
        backoff: Backoff {
            first: millis(limits.backoff_first_ms),
            factor: limits.backoff_factor,
            max: millis(limits.backoff_max_ms),
        },
        mutant: None,
    }
}
