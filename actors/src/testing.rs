//! For tests of whatever stands on the ports: adapters in memory, faults on purpose, and the conformance suite that
//! every adapter passes. The process itself uses none of it.

pub mod broker;
pub mod checkpoints;
pub mod commits;
pub mod conformance;
pub mod faulty;
pub mod inbox;
pub mod mailer;
pub mod memory;
pub mod replica_set;
