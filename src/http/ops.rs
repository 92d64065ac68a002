//! The operators' address: what the supervisors did, how orders stand, and the import. The page comes later.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use actors::supervisor::ledger::{Count, ENTRIES_MAX, Entry};
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
         <li><a href=\"/api/subscribers\">/api/subscribers</a>: how far each subscriber is \
         (<code>docket subscribers</code>)</li>\
         <li><code>/api/subscribers/{name}/effects/{order}</code>: what became of an order's mails</li>\
         <li><code>/api/orders/{id}</code>: an order, now or earlier (<code>docket order ID</code>)</li>\
         <li><code>POST /api/import</code>: orders of the older shape (<code>docket import FILE</code>)</li></ul>",
    )
}

/// The restarts and quarantines that are remembered.
#[derive(Serialize)]
struct Restarts {
    /// The latest first.
    restarts: Vec<Arc<Entry>>,
    /// How often, since the process began.
    counts: Vec<Count>,
    /// Entries that the store did not take.
    lost: u64,
}

/// Who supervises whom, and how each is.
pub(super) async fn tree(service: Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(service.tree.view())
}

/// What was restarted or quarantined, and why.
pub(super) async fn restarts(service: Data<Service>) -> HttpResponse {
    let ledger = service.tree.ledger();
    let restarts = Restarts { restarts: ledger.last(ENTRIES_MAX), counts: ledger.counts(), lost: ledger.lost() };
    HttpResponse::Ok().json(restarts)
}
