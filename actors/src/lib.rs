//! What docket does: orders that decide, a journal that makes them durable, a log that never skips an event,
//! subscribers that apply each one once, and supervisors that restart whatever fails.
//!
//! Nothing in here knows HTTP, SQLite, MongoDB or RabbitMQ. What the outside must provide is a port, a trait that says
//! what is true after a crash; the root package holds the adapters and wires them.
//!
//! The modules stand in the order in which an order travels.

pub mod clock;
pub mod money;
#[doc(hidden)]
pub mod mutant;
pub mod randomness;

pub mod order;

pub mod event;

pub mod commit;

pub mod event_store;
pub mod journal;

pub mod snapshots;

pub mod history;
pub mod log;

pub mod bridge;
pub mod broker;
pub mod checkpoint;

pub mod nodes;

pub mod inbox;
pub mod mailer;
pub mod subscriber;

pub mod supervisor;

pub mod testing;
