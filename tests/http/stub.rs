//! Orders in memory behind the door that HTTP asks, deciding and evolving as the real ones do; and an error, a delay or a
//! panic on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actors::clock::{Clock, SystemClock, Timestamp};
use actors::commit::{Fingerprint, Origin};
use actors::event::{Envelope, EventId};
use actors::order::aggregate::{decide, evolve};
use actors::order::directory::{Answer, Request, Trail};
use actors::order::error::{At, CommandError, ReadError};
use actors::order::{Order, OrderId, Version};
use async_trait::async_trait;
use docket::http::OrderDoor;
use tokio::sync::Notify;

/// What the next request meets instead of an order.
#[derive(Clone, Debug)]
pub(crate) enum Mishap {
    Command(CommandError),
    Read(ReadError),
    Panic,
    NoAnswer,
    Wait(Arc<Notify>),
}

#[derive(Default)]
pub(crate) struct Stub {
    orders: Mutex<HashMap<OrderId, Stream>>,
    mishap: Mutex<Option<Mishap>>,
    origins: Mutex<Vec<Origin>>,
}

#[derive(Default)]
struct Stream {
    states: Vec<Arc<Order>>,
    events: Vec<Envelope>,
    keys: HashMap<String, (Fingerprint, Version)>,
}

impl Stub {
    /// Lets the next request meet that.
    pub(crate) fn meets(&self, mishap: Mishap) {
        *lock(&self.mishap) = Some(mishap);
    }

    /// Whether no request has met it yet.
    pub(crate) fn is_expecting(&self) -> bool {
        lock(&self.mishap).is_some()
    }

    /// Who sent the last command.
    pub(crate) fn last_origin(&self) -> Origin {
        lock(&self.origins).last().cloned().expect("a command")
    }

    async fn mishap(&self) -> Option<Mishap> {
        let mishap = lock(&self.mishap).take();
        match mishap {
            Some(Mishap::Panic) => panic!("a secret of the inside"),
            Some(Mishap::NoAnswer) => std::future::pending().await,
            Some(Mishap::Wait(go_on)) => {
                go_on.notified().await;
                None
            }
            other => other,
        }
    }
}

#[async_trait(?Send)]
impl OrderDoor for Stub {
    async fn command(&self, request: Request) -> Result<Answer, CommandError> {
        if let Some(Mishap::Command(error)) = self.mishap().await {
            return Err(error);
        }
        lock(&self.origins).push(request.origin.clone());
        lock(&self.orders).entry(request.order).or_default().take(&request, SystemClock.now())
    }

    async fn get(&self, order: OrderId, at: At) -> Result<Arc<Order>, ReadError> {
        if let Some(Mishap::Read(error)) = self.mishap().await {
            return Err(error);
        }
        let orders = lock(&self.orders);
        let states = &orders.get(&order).ok_or(ReadError::NotFound)?.states;
        let state = match at {
            At::Now => states.last(),
            At::Version(version) => states.iter().find(|state| state.version == version),
            At::Time(at) => states.iter().rfind(|state| state.updated_at <= at),
        };
        state.cloned().ok_or(ReadError::NotFound)
    }

    async fn trail(&self, order: OrderId, after: Version, limit: usize) -> Result<Trail, ReadError> {
        if let Some(Mishap::Read(error)) = self.mishap().await {
            return Err(error);
        }
        let orders = lock(&self.orders);
        let stream = orders.get(&order).filter(|stream| !stream.events.is_empty()).ok_or(ReadError::NotFound)?;
        let later = stream.events.iter().filter(|event| event.version > after);
        let events: Vec<_> = later.take(limit).cloned().collect();
        let last = events.last().map(|event| event.version);
        let next_after = last.filter(|last| (last.0 as usize) < stream.events.len());
        Ok(Trail { events, next_after })
    }
}

impl Stream {
    fn take(&mut self, request: &Request, now: Timestamp) -> Result<Answer, CommandError> {
        let fingerprint = Fingerprint::of(&request.command);
        if let Some((first, version)) = request.key.as_ref().and_then(|key| self.keys.get(key)) {
            if *first != fingerprint {
                return Err(CommandError::KeyReused);
            }
            let order = self.states.iter().find(|state| state.version == *version).expect("that state");
            return Ok(Answer { order: Arc::clone(order), replayed: true });
        }
        let present = self.states.last().map(Arc::as_ref);
        let current = present.map_or(Version::NONE, |order| order.version);
        if let (Some(versions), Some(_)) = (&request.if_match, present)
            && !versions.is_empty()
            && !versions.contains(&current)
        {
            return Err(CommandError::VersionMismatch { current });
        }
        let events = decide(present, &request.command)?;
        let mut order = present.cloned();
        for (event, version) in events.iter().zip(current.0 + 1..) {
            let next = evolve(order, request.order, event, now).expect("what was decided can happen");
            self.events.push(Envelope {
                id: EventId::generate(),
                order: request.order,
                version: Version(version),
                event_type: event.event_type().to_owned(),
                schema_version: event.kind().newest_schema(),
                recorded_at: now,
                origin: request.origin.clone(),
                data: event.encode().expect("JSON"),
            });
            self.states.push(Arc::new(next.clone()));
            order = Some(next);
        }
        let order = Arc::clone(self.states.last().expect("a state"));
        if let Some(key) = &request.key {
            self.keys.insert(key.clone(), (fingerprint, order.version));
        }
        Ok(Answer { order, replayed: false })
    }
}

/// For an error that says when to try again.
pub(crate) const SOON: Duration = Duration::from_millis(1_200);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
