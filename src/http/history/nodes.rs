//! `/history/nodes`: processes that have not the order service's database say here that they are there.
//!
//! Whoever may read the history may say so: nothing rests on it.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actors::nodes::Process;

use super::super::body;
use super::{Problem, Service, in_time, parameters};
use crate::history::wire::{Node, NodeList};

/// Longest text of what a process says of itself.
const TEXT_MAX: usize = 256;
/// Most parts that it names.
const ROLES_MAX: usize = 256;

/// A process is there.
pub(in super::super) async fn beat(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let [] = parameters(request.query_string(), [])?;
    let history = service.history()?;
    let process: Process = body::json(&request, payload, service.limits.body_timeout).await?;
    check(&process)?;
    in_time(&service, history.nodes.beat(&process)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Which processes there are.
pub(in super::super) async fn list(service: Data<Service>) -> Result<HttpResponse, Problem> {
    let seen = in_time(&service, service.history()?.nodes.list()).await?;
    Ok(HttpResponse::Ok().json(NodeList { nodes: seen.into_iter().map(Node::from).collect() }))
}

/// A process ends.
pub(in super::super) async fn leave(service: Data<Service>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let [instance] = parameters(request.query_string(), ["instance"])?;
    let instance = instance.ok_or_else(|| Problem::malformed("instance must say which process leaves."))?;
    in_time(&service, service.history()?.nodes.leave(&instance)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What is shown to everybody must be short.
fn check(process: &Process) -> Result<(), Problem> {
    let Process { instance, name, http, ops, version, roles, active, started_at: _, heartbeat_ms: _ } = process;
    let texts = [instance, name, http, ops, version];
    let mut texts = texts.into_iter().chain(roles).chain(active);
    if instance.is_empty() || roles.len().max(active.len()) > ROLES_MAX || texts.any(|text| text.len() > TEXT_MAX) {
        return Err(Problem::malformed(format!(
            "A process has an instance, texts of at most {TEXT_MAX} bytes, and at most {ROLES_MAX} parts."
        )));
    }
    Ok(())
}
