//! Pages for people: escaped, self-contained, and with headers that let nothing foreign in.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;\
color:#1b1b1b;background:#fff}code{background:#f0f0f0;padding:.1em .3em}td,th{text-align:left;padding:.2em 1em .2em 0;\
vertical-align:top}@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#181818}code{background:#2a2a2a}\
a{color:#8ab4f8}}";

/// A page. `body` is markup; texts in it have gone through [`escaped`].
pub(crate) fn page(status: StatusCode, title: &str, body: &str) -> HttpResponse {
    let title = escaped(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><h1>{title}</h1>{body}</body></html>"
    );
    let mut response = HttpResponse::build(status).content_type("text/html; charset=utf-8").body(html);
    harden(response.headers_mut(), "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    response
}

/// The headers of everything that a browser shows.
pub(crate) fn harden(headers: &mut HeaderMap, content_security_policy: &'static str) {
    let all: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, content_security_policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Text as markup.
pub(crate) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}
