//! The operators' address: what the supervisors did, how orders stand, and the import. The page comes later.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use actors::bridge::relay::RelayStatus;
use actors::clock::{Clock, SystemClock, Timestamp};
use actors::nodes::{Process, Seen};
use actors::subscriber::status::{SubscriberState, SubscriberStatus};
use actors::supervisor::ledger::{Count, ENTRIES_MAX, Entry};
use actors::supervisor::tree::NodeView;
use serde::Serialize;

use super::Service;
use super::html::page;

/// What is here.
pub(super) async fn index() -> HttpResponse {
    page(
        StatusCode::OK,
        "docket",
        "<ul><li><a href=\"/healthz\">/healthz</a>: does it answer?</li>\
         <li><a href=\"/readyz\">/readyz</a>: can it do its work, part by part?</li>\
         <li><a href=\"/api/tree\">/api/tree</a>: who supervises whom (<code>docket tree</code>)</li>\
         <li><a href=\"/api/restarts\">/api/restarts</a>: what was restarted, and why (<code>docket restarts</code>)</li>\
         <li><a href=\"/api/relay\">/api/relay</a>: how far events were sent to the broker</li>\
         <li><a href=\"/api/subscribers\">/api/subscribers</a>: how far each subscriber is \
         (<code>docket subscribers</code>)</li>\
         <li><code>POST /api/subscribers/{name}/pause</code> and <code>…/resume</code>: let one rest and go on \
         (<code>docket subscribers pause NAME</code>)</li>\
         <li><code>/api/subscribers/{name}/effects/{order}</code>: what became of an order's mails</li>\
         <li><code>POST /api/subscribers/{name}/try/{order}</code>: what its handler would make of an event \
         (<code>docket try NAME --order ID</code>)</li>\
         <li><code>/api/orders/{id}</code>: an order, now or earlier (<code>docket order ID</code>)</li>\
         <li><code>/api/orders/{id}/subscribers</code>: how far each subscriber is with it</li>\
         <li><a href=\"/api/dead-letters\">/api/dead-letters</a>: what subscribers cannot handle \
         (<code>docket dead-letters list</code>)</li>\
         <li><code>POST /api/import</code>: orders of the older shape (<code>docket import FILE</code>)</li></ul>",
    )
}

/// The restarts and quarantines that are remembered, of all processes that share the store.
#[derive(Serialize)]
struct Restarts {
    /// The latest first.
    restarts: Vec<Arc<Entry>>,
    /// How often, since this process began.
    counts: Vec<Count>,
    /// Entries of this process that the store did not take.
    lost: u64,
}

/// Who supervises whom in this process, and which processes there are.
#[derive(Serialize)]
struct Tree {
    #[serde(flatten)]
    root: NodeView,
    /// All that share the store, or this one alone.
    nodes: Vec<NodeEntry>,
}

/// A process that shares the store.
#[derive(Serialize)]
struct NodeEntry {
    name: String,
    /// The name in which it holds leases: another one after each start.
    instance: String,
    http: String,
    ops: String,
    version: String,
    roles: Vec<String>,
    /// The subscribers that are known to be at work there.
    active: Vec<String>,
    started_at: Timestamp,
    /// Whether it was heard of lately.
    alive: bool,
    /// Since it was last heard of, by the store's clock.
    silent_for_ms: u64,
}

impl NodeEntry {
    /// `active`: each subscriber of this process with the instance in which it is active.
    fn new(seen: Seen, active: &[(&'static str, String)]) -> Self {
        let (alive, silent_for) = (seen.is_alive(), seen.silent_for);
        let Process { instance, name, http, ops, version, roles, active: said, started_at, heartbeat_ms: _ } =
            seen.process;
        let known = |name: &str| active.iter().find(|(known, _)| *known == name).map(|(_, active_in)| active_in);
        // What it said of itself may be older than what is known here.
        let mut here: Vec<String> = said.into_iter().filter(|name| known(name).is_none()).collect();
        let there = active.iter().filter(|(_, active_in)| *active_in == instance);
        here.extend(there.map(|(name, _)| (*name).to_owned()));
        here.sort_unstable();
        let silent_for_ms = u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX);
        Self { name, instance, http, ops, version, roles, active: here, started_at, alive, silent_for_ms }
    }
}

/// Who supervises whom, and how each is; and which processes there are.
pub(super) async fn tree(service: Data<Service>) -> HttpResponse {
    let active: Vec<_> = service.subscribers.iter().filter_map(|one| active_in(&service, &one.status())).collect();
    let nodes = service.nodes.list().into_iter().map(|seen| NodeEntry::new(seen, &active)).collect();
    HttpResponse::Ok().json(Tree { root: service.tree.view(), nodes })
}

/// In which instance a subscriber is active, as far as it is known here.
fn active_in(service: &Service, status: &SubscriberStatus) -> Option<(&'static str, String)> {
    if status.state == SubscriberState::Standby {
        return Some((status.name, status.active_in.clone()?));
    }
    status.state.is_at_work().then(|| (status.name, service.nodes.me().to_owned()))
}

/// How far the log was published, as far as it is known in this process.
#[derive(Serialize)]
struct Relay {
    #[serde(flatten)]
    status: RelayStatus,
    /// The age of the oldest event that was read and that the broker has not taken yet.
    lag_ms: u64,
}

/// How far events were sent to the broker: `null` in a process that sends none.
pub(super) async fn relay(service: Data<Service>) -> HttpResponse {
    let relay = service.relay.as_ref().map(|relay| {
        let status = relay.status();
        let lag_ms = u64::try_from(status.lag(SystemClock.now()).as_millis()).unwrap_or(u64::MAX);
        Relay { status, lag_ms }
    });
    HttpResponse::Ok().json(RelayView { relay })
}

/// The relay of this process.
#[derive(Serialize)]
struct RelayView {
    relay: Option<Relay>,
}

/// What was restarted or quarantined, and why.
pub(super) async fn restarts(service: Data<Service>) -> HttpResponse {
    let ledger = service.tree.ledger();
    let last = ledger.last_of_all(ENTRIES_MAX).await;
    let restarts = Restarts { restarts: last, counts: ledger.counts(), lost: ledger.lost() };
    HttpResponse::Ok().json(restarts)
}
