//! Problems (RFC 9457): every way in which an answer can be no, as one table, and the answer itself.
//!
//! The pages under `/problems/`, the OpenAPI document and the tests are made from the table. Nothing here knows why a
//! command failed; `error.rs` does.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use actors::order::error::FieldError;
use serde::Serialize;
use serde_json::Value;

use super::headers::CORRELATION_ID;

/// The media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of problem: what a program branches on, and what a person reads about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of its `type`.
    pub name: &'static str,
    /// The same for every problem of this kind.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What it means.
    pub meaning: &'static str,
    /// What whoever meets it can do.
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($constant:ident: $status:literal $name:literal, $title:literal, $meaning:literal, $remedy:literal;)+) => {
        $(
            #[doc = $title]
            pub(crate) const $constant: &Kind =
                &Kind { name: $name, title: $title, status: $status, meaning: $meaning, remedy: $remedy };
        )+

        /// Every kind, by status.
        pub const KINDS: &[&Kind] = &[$($constant),+];
    };
}

kinds! {
    MALFORMED: 400 "malformed", "The request cannot be read",
        "The body is not JSON, or a field is missing, unknown, there twice or of another JSON type; or a header, query \
         parameter or cursor is not what it must be. The detail says where.",
        "Change the request. Sent again as it is, it fails again.";
    UNAUTHORIZED: 401 "unauthorized", "The request shows no key that is known",
        "This server has keys, and this path is only for who shows one of them. Nothing was done, and nothing of the body \
         was read.",
        "Send the header Authorization: Bearer KEY. The people who run the server make keys: docket key new.";
    FORBIDDEN: 403 "forbidden", "The key does not allow this",
        "The key that was shown is known, but has not the scope that this path needs: orders:read, orders:write, ops:read \
         or ops:write. Nothing was done.",
        "Use a key with the scope that the detail names, or let the people who run the server give it to this one.";
    FOREIGN_ORIGIN: 403 "foreign-origin", "The request comes from a foreign page",
        "A request that changes something named an Origin or a Host that is not this server's, or one that reads named \
         such a Host where there are no keys: a page of somebody else may be using your browser.",
        "Use the server's own address. If it is reached under another name, the operator adds that name to http.hosts or \
         ops.hosts.";
    NOT_FOUND: 404 "not-found", "There is no such thing",
        "There is no such path, order, line, version or moment.",
        "Check the address. An order's id is in the Location of the answer that created it.";
    METHOD_NOT_ALLOWED: 405 "method-not-allowed", "The path has no such method",
        "The path exists, but not with this method.",
        "Use one of the methods of the header Allow.";
    BODY_TIMEOUT: 408 "body-timeout", "The body did not arrive in time",
        "The connection was open, but the request's body did not arrive in time. Nothing was done.",
        "Send the request again.";
    NOT_ALLOWED: 409 "not-allowed", "The order does not allow this now",
        "The order's status, or what is left of it, does not allow this command. Nothing was done.",
        "Read the order. The member allowed lists the commands that it takes now.";
    KEY_IN_PROGRESS: 409 "key-in-progress", "The first command with this key is still under way",
        "A command with the same Idempotency-Key is still under way and this one could not wait for it.",
        "Send the request again after a moment, with the same key: it then answers as the first one did.";
    ORDER_FULL: 409 "order-full", "The order has taken as many commands as it can",
        "An order takes 10,000 commands; the last 100 are kept for pay, ship, deliver, cancel and refund.",
        "Finish the order, and place another one for what is missing.";
    PRICE_DIFFERS: 409 "price-differs", "The order has this sku at another price",
        "A line has one price. The member expected is the price that the line has.",
        "Remove the line first, or add the item at the price it has.";
    LETTER_CHANGED: 409 "letter-changed", "That is not held any more",
        "The dead letter is not what holds its order any more: it was handled, or somebody has discarded it, and perhaps \
         another one is held now, which the member expected names. Nothing was done.",
        "List the dead letters again, and decide about what is there now.";
    LETTER_BUSY: 409 "letter-busy", "It is being handled now",
        "An attempt at this event is under way, and nobody knows yet how it ends. Nothing was done.",
        "Look at it again in a moment.";
    NOT_RETRYABLE: 409 "not-retryable", "Nobody can read this message",
        "It is a message at the broker that is no event, or one that no docket here can read: there is nothing to be \
         retried or discarded, and no order waits for it, because the log has every event. Nothing was done.",
        "Nothing has to be done. A docket that can read it puts it back by itself; what is nobody's is deleted at the \
         broker, in the queue orders.NAME.dead.";
    COUNT_DIFFERS: 409 "count-differs", "There are not as many as was said",
        "What was said is not how many dead letters there are now: some came, or went, since they were listed. The member \
         expected is how many there are. Nothing was retried.",
        "List them again, see whether they are what is meant, and send the present count.";
    NO_POSITION: 410 "no-position", "The log has not this place",
        "The position is of another log, or of a place that the log does not have any more: it was restored from a copy, \
         or has forgotten what is so long ago.",
        "Open the log with from=now, then read everything with /history/commits, and tell by order and version what you \
         have already. Nothing is lost.";
    VERSION_MISMATCH: 412 "version-mismatch", "The order is at another version",
        "If-Match names another version than the order's: somebody was faster. Nothing was done.",
        "Read the order, decide again, and send the version you saw. The member expected is the present one.";
    BODY_TOO_LARGE: 413 "body-too-large", "The body is too large",
        "A body has at most 64 KiB.",
        "Send less: an order takes further items one by one.";
    UNSUPPORTED_MEDIA_TYPE: 415 "unsupported-media-type", "The body is not sent as JSON",
        "A body must have the Content-Type application/json, in UTF-8 and uncompressed.",
        "Set the header Content-Type: application/json.";
    INVALID: 422 "invalid", "Some fields cannot be right",
        "The request can be read, but fields have values that no order can take. The member errors lists each with its \
         reason; for a payment the member expected is the total. Nothing was done.",
        "Change those fields. Sent again as it is, it fails again.";
    KEY_REUSED: 422 "key-reused", "The key was used for another command",
        "This order has taken another command with the same Idempotency-Key. This one was not done.",
        "Use a new key for a new command, and the same key only to repeat the same one.";
    INTERNAL: 500 "internal", "The server failed on this request",
        "The server failed, and failed again when it tried once more. The people who run it can see why in its log, by \
         the correlation id.",
        "Tell them the correlation id. Other orders and other commands are not affected.";
    OVERLOADED: 503 "overloaded", "Too much is waiting",
        "More requests wait than the server admits. This one was certainly not done.",
        "Send it again after the seconds of the header Retry-After.";
    STORE_AWAY: 503 "store-away", "The store cannot be reached",
        "The store cannot be written or read now. The command was certainly not done.",
        "Send it again after the seconds of the header Retry-After.";
    CONTENDED: 503 "contended", "Too many writers at once",
        "Other writers were faster several times in a row. The command was certainly not done.",
        "Send it again after the seconds of the header Retry-After.";
    ORDER_QUARANTINED: 503 "order-quarantined", "The order is left alone for a while",
        "This order failed again and again and is left alone for a while. Its events can be read, other orders go on. The \
         command was certainly not done.",
        "Send it again after the seconds of the header Retry-After, or ask the people who run the server: docket restarts \
         shows why.";
    SCHEMA_AHEAD: 503 "schema-ahead", "The order holds an event of a newer version",
        "A newer version of the server wrote an event that this one cannot read yet. The command was certainly not done.",
        "Send it again after the seconds of the header Retry-After: another server may answer.";
    NOT_DONE: 503 "not-done", "It waited in vain",
        "The command waited behind another one of the same order whose outcome is not known yet. It was certainly not done.",
        "Send it again after the seconds of the header Retry-After.";
    NOT_HERE: 503 "not-here", "Another process serves this",
        "This process runs without the part that answers this request.",
        "Ask another process of the deployment.";
    TOO_MANY_HELD: 503 "too-many-held", "So much is held that it was not looked through in time",
        "Subscribers hold so much of what was asked for that it could not be looked through in the time for one request. A \
         part of it would be taken for all of it. Nothing was done.",
        "Ask for less: of one subscriber, or in fewer states. docket subscribers counts what is held in each.";
    OUTCOME_UNKNOWN: 504 "outcome-unknown", "It is not known whether this happened",
        "No definite answer came in time: the command may have happened, or may still happen.",
        "Send it again with the same Idempotency-Key: it then happens once, and you learn its outcome. Without a key, read \
         the order first.";
}

impl Kind {
    /// The kind of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name).copied()
    }

    /// What the web server's own refusals are, by their status.
    fn of_status(status: StatusCode) -> &'static Self {
        let exact = KINDS.iter().find(|kind| kind.status == status.as_u16()).copied();
        exact.unwrap_or(if status.is_client_error() { MALFORMED } else { INTERNAL })
    }
}

/// An answer that is no.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: &'static Kind,
    detail: Cow<'static, str>,
    help: Box<Help>,
}

/// What a problem says besides, boxed so that a result with a problem stays small.
#[derive(Clone, Debug, Default)]
struct Help {
    allowed: Option<Vec<&'static str>>,
    expected: Option<Value>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    correlation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'a Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Field<'a>>,
}

#[derive(Serialize)]
struct Field<'a> {
    field: &'a str,
    reason: &'a str,
}

impl Problem {
    /// A problem of that kind; `detail` is one or two sentences for whoever asked.
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), help: Box::default() }
    }

    /// The request cannot be read.
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(MALFORMED, detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(NOT_FOUND, detail)
    }

    /// The server failed. What exactly is for the log only.
    pub(crate) fn internal() -> Self {
        Self::new(INTERNAL, "The server failed on this request. Its log says why, under the correlation id.")
    }

    /// With the commands that are allowed; none is an answer too.
    #[must_use]
    pub(crate) fn allowed(mut self, commands: Vec<&'static str>) -> Self {
        self.help.allowed = Some(commands);
        self
    }

    /// With what would have been right.
    #[must_use]
    pub(crate) fn expected(mut self, value: impl Into<Value>) -> Self {
        self.help.expected = Some(value.into());
        self
    }

    /// With the fields that are wrong.
    #[must_use]
    pub(crate) fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.help.errors = errors;
        self
    }

    /// With a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.help.headers.push((name, value));
        self
    }

    /// With `Retry-After`, in whole seconds, at least one.
    #[must_use]
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The problem that an error of the web server or of a handler is.
    pub(crate) fn of(error: &actix_web::Error) -> Cow<'_, Self> {
        match error.as_error::<Self>() {
            Some(problem) => Cow::Borrowed(problem),
            None => {
                let kind = Kind::of_status(error.as_response_error().status_code());
                Cow::Owned(Self::new(kind, kind.meaning))
            }
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// In words, for whoever asked.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer, with the correlation id of the request.
    pub(crate) fn response(&self, correlation_id: &HeaderValue) -> HttpResponse {
        let errors = self.help.errors.iter().map(|e| Field { field: &e.field, reason: &e.reason }).collect();
        let body = Body {
            r#type: format!("/problems/{}", self.kind.name),
            title: self.kind.title,
            status: self.kind.status,
            detail: &self.detail,
            correlation_id: correlation_id.to_str().unwrap_or_default(),
            allowed: self.help.allowed.as_deref(),
            expected: self.help.expected.as_ref(),
            errors,
        };
        let mut response = HttpResponse::build(self.status_code());
        for (name, value) in &self.help.headers {
            response.append_header((name.clone(), value.clone()));
        }
        response
            .insert_header((CORRELATION_ID, correlation_id.clone()))
            .insert_header((header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)))
            .body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Empty: the edge writes the body, because only it knows the correlation id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}
