//! `/problems/`: a page for each kind of problem, because its `type` points here.

use std::fmt::Write;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Path;

use super::html::{escaped, page};
use super::problem::{KINDS, Kind, Problem};

/// All of them.
pub(super) async fn index() -> HttpResponse {
    let mut rows = String::new();
    for Kind { name, title, status, .. } in KINDS {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<tr><td>{status}</td><td><a href=\"/problems/{name}\">{name}</a></td>");
        let _ = write!(rows, "<td>{}</td></tr>", escaped(title));
    }
    let table = format!("<table><tr><th>Status</th><th>Type</th><th>Title</th></tr>{rows}</table>");
    page(StatusCode::OK, "Problems", &table)
}

/// One of them.
pub(super) async fn one(name: Path<String>) -> Result<HttpResponse, Problem> {
    let kind = Kind::named(&name).ok_or_else(|| Problem::not_found("There is no such kind of problem."))?;
    let body = format!(
        "<p>Status <code>{}</code>, type <code>/problems/{}</code></p><p>{}</p><h2>What to do</h2><p>{}</p>\
         <p><a href=\"/problems\">All problems</a></p>",
        kind.status,
        kind.name,
        escaped(kind.meaning),
        escaped(kind.remedy)
    );
    Ok(page(StatusCode::OK, kind.title, &body))
}
