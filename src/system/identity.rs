//! What a process is called: by people, and in leases.

use std::net::SocketAddr;

use actors::clock::Timestamp;
use actors::nodes::Process;
use actors::subscriber::registry::Registered;
use uuid::Uuid;

use super::only::ORDERS;
use crate::config::{Config, Node};

/// The names of one process.
pub(super) struct Identity {
    name: String,
    /// The name, and what tells this run of the process from every other one.
    pub(super) instance: String,
}

impl Identity {
    /// As configured, or else host and process id.
    pub(super) fn of(node: &Node) -> Self {
        let name = if node.name.is_empty() { host_and_pid() } else { node.name.clone() };
        let run = Uuid::now_v7().simple().to_string();
        // The last digits of such an id are its random ones.
        let instance = format!("{name}/{}", &run[run.len() - 8..]);
        Self { name, instance }
    }

    /// What it tells others of itself.
    pub(super) fn process(
        self,
        config: &Config,
        (http, ops): (SocketAddr, SocketAddr),
        orders: bool,
        registered: &[Registered],
        started_at: Timestamp,
    ) -> Process {
        let subscribers = registered.iter().map(|one| one.name().to_owned());
        Process {
            instance: self.instance,
            name: self.name,
            http: http.to_string(),
            ops: ops.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: orders.then(|| ORDERS.to_owned()).into_iter().chain(subscribers).collect(),
            active: Vec::new(),
            started_at,
            heartbeat_ms: config.node.heartbeat_ms,
        }
    }
}

fn host_and_pid() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "docket" } else { host }, std::process::id())
}
