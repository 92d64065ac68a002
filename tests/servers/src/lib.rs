//! Real servers for tests. Those that all tests share are started by `cargo xtask test` or `cargo xtask services`: a test
//! takes a database or a virtual host of its own there. Whoever kills, freezes or misuses a server starts one for itself.
//! In front of either stands a proxy, which does what networks do.
//!
//! Nothing in here knows what docket does. Everything panics where a test cannot go on, with a sentence that says what to do.

mod mongo;
mod mongod;
mod port;
mod process;
mod proxy;
mod rabbitmq;
mod rabbitmq_node;
mod smtp;
#[cfg(test)]
mod tests;

pub use mongo::{MongoDatabase, MongoServer};
pub use proxy::{Passed, Proxy, Request};
pub use rabbitmq::{RabbitServer, RabbitVhost};
pub use smtp::{Behaviour, Mail, SmtpOptions, SmtpServer, Tls};

/// A variable that names a server.
///
/// # Panics
/// When it is not set.
#[track_caller]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run `cargo xtask test`, or leave `cargo xtask services` running in another terminal and \
             set what it prints"
        )
    })
}
