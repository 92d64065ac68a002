//! The OpenAPI document: the handlers' own descriptions, with what all of them share added by rule.

use actix_web::http::Method;
use actors::money::Currency;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, Required, Response, ResponseBuilder};

use super::problem::{self, KINDS, Kind};
use super::routes::{Access, Address, routes};
use super::{health, orders};
use crate::auth::Scope;

/// The document of the callers' address, where there are keys or where there are none.
pub fn document(keys: bool) -> Document {
    let mut document = Api::openapi();
    complete(&mut document, keys);
    document
}

/// How the document calls the way in which a key is shown.
const KEY: &str = "key";

#[derive(OpenApi)]
#[openapi(
    info(title = "docket", description = "An order service: every order is a stream of events that is never lost, reordered \
        or applied twice. Money is in minor units. Every error is a problem (RFC 9457) whose `type` is a page here; \
        only what cannot be read as HTTP at all is refused by the status alone (400, 408, 431)."),
    paths(
        orders::create, orders::read, orders::events, orders::add_item, orders::remove_item, orders::pay, orders::ship,
        orders::deliver, orders::cancel, orders::refund, health::healthz, health::readyz
    ),
    tags((name = "orders", description = "Place orders and move them on."),
        (name = "operations", description = "Is it well?"))
)]
struct Api;

/// What all operations share.
fn complete(document: &mut Document, keys: bool) {
    let components = document.components.get_or_insert_default();
    let schemas = &mut components.schemas;
    schemas.insert("Problem".to_owned(), problem_schema());
    name_currencies(schemas.get_mut("NewOrder"));
    if keys {
        components.security_schemes.insert(KEY.to_owned(), key_scheme().into());
    }
    for (path, item) in &mut document.paths.paths {
        let methods =
            [(Method::GET, &mut item.get), (Method::POST, &mut item.post), (Method::DELETE, &mut item.delete)];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                let changes = !method.is_safe();
                let scope = scope_of(path, &method).filter(|_| keys);
                complete_operation(Case { path, changes, keys }, operation);
                if let Some(scope) = scope {
                    operation.security = Some(vec![SecurityRequirement::new(KEY, [scope.name()])]);
                }
            }
        }
    }
}

/// What that operation needs, as the table of routes has it.
fn scope_of(path: &str, method: &Method) -> Option<Scope> {
    let of_callers = routes().into_iter().filter(|route| route.address == Address::Callers);
    let mut accesses = of_callers.filter(|route| route.path == path && route.method == *method).map(|it| it.access);
    match accesses.next() {
        Some(Access::Needs(scope)) => Some(scope),
        Some(Access::Open) | None => None,
    }
}

fn key_scheme() -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("docket_…");
    let about = "A key of this server (docket key new). Each operation names the scope that the key must have.";
    SecurityScheme::Http(scheme.description(Some(about)).build())
}

/// An operation, as far as what all share depends on it.
#[derive(Clone, Copy)]
struct Case<'a> {
    path: &'a str,
    changes: bool,
    keys: bool,
}

/// Every three letters that are a currency, so that programs made from the document offer the right ones.
fn name_currencies(new_order: Option<&mut RefOr<Schema>>) {
    let Some(RefOr::T(Schema::Object(new_order))) = new_order else { return };
    let Some(RefOr::T(Schema::Object(currency))) = new_order.properties.get_mut("currency") else { return };
    let letters = || 'A'..='Z';
    let texts = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{b}{c}"))));
    let codes = texts.filter(|text| Currency::try_from(text.as_str()).is_ok());
    currency.enum_values = Some(codes.map(Value::from).collect());
    currency.pattern = None;
}

fn complete_operation(case: Case<'_>, operation: &mut Operation) {
    let Case { path, changes, .. } = case;
    let of_an_order = path.starts_with("/orders");
    if of_an_order {
        let headers = request_headers(path, changes);
        operation.parameters.get_or_insert_default().extend(headers.into_iter().map(RefOr::T));
        for (status, kinds) in by_status(&problems_of(case)) {
            operation.responses.responses.insert(status.to_string(), RefOr::T(problem_response(&kinds)));
        }
    }
    if path.ends_with("/deliver")
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = Some(Required::False);
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            if status == "201" {
                add_links(response);
            }
            add_headers(path, changes, status, response);
        }
    }
}

/// Every problem that a request to this path can meet, apart from 405, which no documented method meets.
fn problems_of(Case { path, changes, keys }: Case<'_>) -> Vec<&'static Kind> {
    let place = path == "/orders";
    KINDS
        .iter()
        .copied()
        .filter(|kind| match kind.status {
            401 => keys,
            403 if *kind == problem::FORBIDDEN => keys,
            403 => changes || !keys,
            // Of the operators' address.
            405 | 410 => false,
            404 => !place,
            408 | 413 | 415 => changes && !path.ends_with("{sku}"),
            409 => {
                *kind == problem::KEY_IN_PROGRESS
                    || (*kind == problem::PRICE_DIFFERS && path.ends_with("/items"))
                    || (!place && *kind != problem::PRICE_DIFFERS)
            }
            412 | 422 | 504 => changes,
            _ => changes || !matches!(kind.name, "contended" | "not-done"),
        })
        .filter(|kind| changes || kind.status != 409)
        .collect()
}

fn by_status(kinds: &[&'static Kind]) -> Vec<(u16, Vec<&'static Kind>)> {
    let mut groups: Vec<(u16, Vec<&'static Kind>)> = Vec::new();
    for kind in kinds {
        match groups.iter_mut().find(|(status, _)| *status == kind.status) {
            Some((_, group)) => group.push(kind),
            None => groups.push((kind.status, vec![kind])),
        }
    }
    groups
}

fn problem_response(kinds: &[&'static Kind]) -> Response {
    let lines: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}", kind.name, kind.title)).collect();
    let examples = kinds.iter().map(|kind| {
        let example = utoipa::openapi::example::ExampleBuilder::new()
            .summary(kind.title)
            .value(Some(example_problem(kind)))
            .build();
        (kind.name, RefOr::T(example))
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    ResponseBuilder::new().description(lines.join("\n\n")).content(problem::MEDIA_TYPE, content).build()
}

/// From the new order to everything that can be done with it.
fn add_links(response: &mut Response) {
    let next =
        ["readOrder", "readTrail", "addItem", "payOrder", "shipOrder", "deliverOrder", "cancelOrder", "refundOrder"];
    for operation in next {
        let link = LinkBuilder::new().operation_id(operation).parameter("id", "$response.body#/id").build();
        response.links.insert(operation.to_owned(), link.into());
    }
    let link = LinkBuilder::new().operation_id("removeItem").parameter("id", "$response.body#/id");
    let link = link.parameter("sku", "$response.body#/items/0/sku").build();
    response.links.insert("removeItem".to_owned(), link.into());
}

fn add_headers(path: &str, changes: bool, status: &str, response: &mut Response) {
    let mut add = |name: &str, description: &str| {
        let header = HeaderBuilder::new().schema(Some(text())).description(Some(description)).build();
        response.headers.insert(name.to_owned(), header.into());
    };
    add("X-Correlation-Id", "The caller's, or a new one: the same for everything that the request set off.");
    let success = status.starts_with('2') || status == "304";
    if success && path.starts_with("/orders") && !path.ends_with("/events") {
        add("ETag", "The order's version in quotes.");
    }
    if success && changes {
        add("Idempotent-Replayed", "`true` on the answer of an earlier command with the same Idempotency-Key.");
    }
    if status == "401" {
        add("WWW-Authenticate", "`Bearer`, with what is wrong.");
    }
    if status == "201" {
        add("Location", "The path of the new order.");
    }
    if status == "503" && path.starts_with("/orders") {
        add("Retry-After", "Whole seconds until it is worth trying again.");
    }
}

fn request_headers(path: &str, changes: bool) -> Vec<Parameter> {
    let mut headers = Vec::new();
    if changes {
        headers.push(header(
            "Idempotency-Key",
            "Makes a repeated command take effect once: it answers as the first time.",
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255))
                .pattern(Some("^[!#-~][!-~]*$"))
                .examples([json!("web-77-pay")]),
        ));
        headers.push(header(
            "If-Match",
            "The command is done only if the order is at this version: its ETag, a list of them, or `*`.",
            any_or("^\"[1-9][0-9]{0,8}\"(, \"[1-9][0-9]{0,8}\"){0,9}$"),
        ));
    } else if path.ends_with("/events") {
        headers.push(header(
            "Last-Event-ID",
            "The version that the reader of a stream had last: it goes on behind it, whatever `after` says.",
            ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,9}$")),
        ));
    } else {
        headers.push(header(
            "If-None-Match",
            "The version that the caller has: 304 when it is still that one.",
            any_or("^(W/)?\"[0-9]{1,9}\"(, (W/)?\"[0-9]{1,9}\"){0,9}$"),
        ));
    }
    headers.push(header(
        "X-Correlation-Id",
        "Up to 128 visible ASCII characters, kept on everything that the request sets off. Anything else is replaced.",
        ObjectBuilder::new().schema_type(Type::String),
    ));
    headers.push(header(
        "traceparent",
        "W3C trace context. Anything else is ignored.",
        ObjectBuilder::new().schema_type(Type::String),
    ));
    headers
}

/// `*`, or a list of entity tags.
fn any_or(tags: &str) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let any = text().enum_values(Some(["*"]));
    let tags = text().pattern(Some(tags)).examples([json!("\"1\"")]);
    AnyOfBuilder::new().item(any).item(tags).build().into()
}

fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn text() -> Schema {
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).build())
}

fn problem_schema() -> RefOr<Schema> {
    let schema = json!({
        "type": "object",
        "description": "A problem (RFC 9457).",
        "required": ["type", "title", "status", "detail", "correlation_id"],
        "properties": {
            "type": {"type": "string", "enum": KINDS.iter().map(|k| format!("/problems/{}", k.name)).collect::<Vec<_>>()},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "correlation_id": {"type": "string"},
            "allowed": {"type": "array", "items": {"type": "string"}, "description": "The commands that the order takes now."},
            "expected": {"type": "integer", "description": "What would have been right: a price, a total, a version."},
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}}
            }}
        }
    });
    serde_json::from_value(schema).unwrap_or_else(|_| RefOr::T(text()))
}

fn example_problem(kind: &Kind) -> Value {
    json!({
        "type": format!("/problems/{}", kind.name),
        "title": kind.title,
        "status": kind.status,
        "detail": kind.meaning,
        "correlation_id": "01939c2e-7a11-7cc3-98c4-dc0c0c07398f"
    })
}

/// An order as the contract shows it.
pub(super) fn example_order() -> Value {
    json!({
        "id": "01939c2e-7a11-7cc3-98c4-dc0c0c07398f", "status": "placed", "version": 1, "customer_id": "c-1",
        "email": "ana@example.com", "reference": "web-77", "currency": "EUR",
        "items": [{"sku": "A-1", "quantity": 2, "unit_price": 4995}], "total": 9990,
        "placed_at": "2026-11-23T08:00:00.000Z", "updated_at": "2026-11-23T08:00:00.000Z"
    })
}

/// What places it.
pub(super) fn example_new_order() -> Value {
    json!({
        "customer_id": "c-1", "email": "ana@example.com", "reference": "web-77", "currency": "EUR",
        "items": [{"sku": "A-1", "quantity": 2, "unit_price": 4995}]
    })
}
