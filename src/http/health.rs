//! `/healthz`: the process answers. `/readyz`: it can do its work, part by part.

use std::borrow::Cow;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;

/// Says which parts of a docket can do their work now. Asked often, so it must answer from memory.
pub trait Readiness: Send + Sync {
    /// Each part with its state.
    fn parts(&self) -> Vec<Part>;
}

/// A part of a docket.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Part {
    /// `store`, `orders`, `notification`, …
    pub name: Cow<'static, str>,
    /// Whether it can do its work now.
    pub ready: bool,
    /// Why not, in words that may leave the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<Cow<'static, str>>,
}

/// The process answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// Whether the process can do its work.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessView {
    ready: bool,
    parts: Vec<Part>,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "operations",
    responses((status = 200, description = "It does.", body = Health)))]
pub(super) async fn healthz() -> HttpResponse {
    uncached(HttpResponse::Ok().json(Health { status: "ok" }))
}

/// Whether the process can do its work, part by part.
#[utoipa::path(get, path = "/readyz", operation_id = "readiness", tag = "operations",
    responses((status = 200, description = "Every part can.", body = ReadinessView),
        (status = 503, description = "Some part cannot.", body = ReadinessView)))]
pub(super) async fn readyz(service: Data<Service>) -> HttpResponse {
    let parts = service.readiness.parts();
    let ready = parts.iter().all(|part| part.ready);
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    uncached(response.json(ReadinessView { ready, parts }))
}

fn uncached(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
