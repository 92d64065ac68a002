//! `/history/…`: what a subscriber in another process, or a program outside docket, may ask of the log. Commits travel as
//! they are stored. Every answer is bounded, and a stream holds no more than one line that nobody has taken yet.
//!
//! The other end is `src/history.rs`; what both say is in `history/wire.rs`.

mod follow;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use actors::commit::{Commit, CommitKey};
use actors::event_store::StoreError;
use actors::log::LogError;
use actors::order::{OrderId, Version};

use super::parameters::{self, parameters, whole};
use super::problem::Problem;
use super::{Service, error};
use crate::history::wire::{self, About, FORMAT, PAGE_BYTES_MAX, PAGE_COMMITS_MAX, Page};

pub(super) use follow::follow;
pub(super) use nodes::{beat, leave, list};

const LIMIT_DEFAULT: usize = 100;

/// What answers here.
pub(super) async fn about(service: Data<Service>) -> Result<HttpResponse, Problem> {
    service.history()?;
    Ok(HttpResponse::Ok().json(About { version: env!("CARGO_PKG_VERSION").to_owned(), format: FORMAT }))
}

/// The commits of an order, from the one that holds a version on. None when the order has none.
pub(super) async fn order(
    service: Data<Service>,
    request: HttpRequest,
    order: Path<String>,
) -> Result<HttpResponse, Problem> {
    let [from, limit] = parameters(request.query_string(), ["from", "limit"])?;
    let limit = parameters::limit(limit.as_deref(), LIMIT_DEFAULT, PAGE_COMMITS_MAX)?;
    let from = match from.as_deref().map(whole) {
        None => Version::FIRST,
        Some(Some(from)) => Version(from),
        Some(None) => return Err(Problem::malformed("from must be a version, a whole number from 0 to 4294967295.")),
    };
    let order: OrderId = order.parse().map_err(|_| error::no_such_order())?;
    let log = &service.history()?.log;
    page(&in_time(&service, log.read(order, from, limit)).await?)
}

/// The commits of all orders, order by order, behind a key. None at the end.
pub(super) async fn commits(service: Data<Service>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let [after, limit] = parameters(request.query_string(), ["after", "limit"])?;
    let limit = parameters::limit(limit.as_deref(), LIMIT_DEFAULT, PAGE_COMMITS_MAX)?;
    let after: Option<CommitKey> = after.map(|key| key.parse()).transpose().map_err(|_| {
        Problem::malformed("after must be the key of a commit, ORDER:VERSION, the version in ten digits.")
    })?;
    let log = &service.history()?.log;
    page(&in_time(&service, log.scan(after, limit)).await?)
}

/// Fewer than there are when they are large: only none is the end.
fn page(commits: &[Arc<Commit>]) -> Result<HttpResponse, Problem> {
    let mut bytes = 0;
    let fits = |commit: &&Arc<Commit>| {
        let first = bytes == 0;
        bytes += commit.encoded().len();
        first || bytes <= PAGE_BYTES_MAX
    };
    let commits: Result<Vec<_>, _> = commits.iter().take_while(fits).map(|commit| wire::raw(commit)).collect();
    let commits = commits.map_err(|error| failed(StoreError::Damaged(error.to_string())))?;
    Ok(HttpResponse::Ok().json(Page { commits }))
}

/// Waits for the log as long as for any answer.
async fn in_time<T, E: Into<LogError>>(
    service: &Service,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, Problem> {
    let within: Duration = service.limits.answer_timeout;
    match tokio::time::timeout(within, asked).await {
        Ok(answer) => answer.map_err(|error| failed(error)),
        Err(_) => Err(failed(StoreError::Away(format!("no answer within {} ms", within.as_millis())))),
    }
}

/// Whoever asked learns what it means for him, and the log why.
fn failed(error: impl Into<LogError>) -> Problem {
    let error = error.into();
    tracing::warn!(%error, "the history cannot be given");
    error.into()
}
