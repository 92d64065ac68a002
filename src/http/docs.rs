//! `/openapi.json` and `/docs`: the description of this API, and pages to read and try it, without the internet.
//! `/asyncapi.json`: the description of the events.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Bytes, Data, Path};
use utoipa_swagger_ui::Config;

use super::html::harden;
use super::problem::Problem;

/// Scripts and styles come from here alone; the pages set some styles and show some images from within.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The descriptions, made once.
pub(crate) struct Description {
    json: Bytes,
    asyncapi: Bytes,
    pages: Arc<Config<'static>>,
}

impl Description {
    /// Makes them, of a docket with or without keys.
    pub(crate) fn new(keys: bool) -> Self {
        let json = serde_json::to_vec(&super::openapi::document(keys)).unwrap_or_default();
        let asyncapi = super::asyncapi::document().and_then(|document| serde_json::to_vec(&document));
        let pages = Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true);
        Self { json: Bytes::from(json), asyncapi: asyncapi.unwrap_or_default().into(), pages: Arc::new(pages) }
    }
}

/// The document.
pub(super) async fn openapi(description: Data<Description>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(description.json.clone())
}

/// The document of the events.
pub(super) async fn asyncapi(description: Data<Description>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(description.asyncapi.clone())
}

/// The pages are below: their links are relative.
pub(super) async fn entry() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, HeaderValue::from_static("/docs/"))).finish()
}

/// A file of the pages.
pub(super) async fn file(path: Path<String>, description: Data<Description>) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&description.pages)).map_err(|error| {
        tracing::warn!("cannot serve the documentation: {error}");
        Problem::internal()
    })?;
    let file = file.ok_or_else(|| Problem::not_found("There is no such page."))?;
    let mut response = HttpResponse::Ok();
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    let mut response = response.content_type(file.content_type).body(file.bytes.into_owned());
    harden(response.headers_mut(), POLICY);
    Ok(response)
}
