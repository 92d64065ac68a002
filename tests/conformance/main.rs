//! The conformance suites against the adapters that the process runs on, and what only a process of its own or a real
//! disk can show.

mod again;
mod checkpoint;
mod copy;
mod inbox;
mod mail;
mod mongo;
mod rabbit;
mod remote;
mod sqlite;
