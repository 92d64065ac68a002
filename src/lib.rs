//! What docket runs on: the adapters of the ports in `actors`, and the process around them.

mod address;
mod serve;

pub mod auth;
pub mod cli;
pub mod config;
pub mod copy;
pub mod history;
pub mod http;
pub mod mail;
pub mod mongo;
pub mod rabbit;
pub mod sqlite;
pub mod system;
pub mod telemetry;

pub use serve::run;
