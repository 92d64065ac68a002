//! The table of routes: every path of both addresses, its methods, and what each of them needs.
//!
//! A route comes into being only here and only with its access: one that nobody classified cannot be written.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpResponse, Responder, Route};

use super::guard::{Guard, Guarded};
use super::headers::written;
use super::problem::{self, Problem};
use super::{dead_letters, docs, health, history, import, ops, orders, problems, subscribers};
use crate::auth::Scope;

/// What a request must have to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes and documentation.
    Open,
    /// A key with that scope, where there are keys.
    Needs(Scope),
}

/// Which of the two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http.bind`.
    Callers,
    /// `ops.bind`.
    Operators,
}

/// A route as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where.
    pub address: Address,
    /// With which method.
    pub method: Method,
    /// The path, its variable parts in braces.
    pub path: &'static str,
    /// What it needs.
    pub access: Access,
}

/// Every route of both addresses.
pub fn routes() -> Vec<RouteEntry> {
    let addresses = [(Address::Callers, callers()), (Address::Operators, operators())];
    let places = addresses.into_iter().flat_map(|(address, places)| places.into_iter().map(move |it| (address, it)));
    let entries = places.flat_map(|(address, Place { path, methods })| {
        methods.into_iter().map(move |(method, access, _)| RouteEntry { address, method, path, access })
    });
    entries.collect()
}

const OPEN: Access = Access::Open;
const ORDERS_READ: Access = Access::Needs(Scope::OrdersRead);
const ORDERS_WRITE: Access = Access::Needs(Scope::OrdersWrite);
const OPS_READ: Access = Access::Needs(Scope::OpsRead);
const OPS_WRITE: Access = Access::Needs(Scope::OpsWrite);

/// What `http.bind` has.
pub(super) fn callers() -> Vec<Place> {
    let mut places = vec![
        at("/orders").post(ORDERS_WRITE, orders::create),
        at("/orders/{id}").read(ORDERS_READ, orders::read),
        at("/orders/{id}/events").read(ORDERS_READ, orders::events),
        at("/orders/{id}/items").post(ORDERS_WRITE, orders::add_item),
        at("/orders/{id}/items/{sku}").delete(ORDERS_WRITE, orders::remove_item),
        at("/orders/{id}/pay").post(ORDERS_WRITE, orders::pay),
        at("/orders/{id}/ship").post(ORDERS_WRITE, orders::ship),
        at("/orders/{id}/deliver").post(ORDERS_WRITE, orders::deliver),
        at("/orders/{id}/cancel").post(ORDERS_WRITE, orders::cancel),
        at("/orders/{id}/refund").post(ORDERS_WRITE, orders::refund),
        at("/openapi.json").read(OPEN, docs::openapi),
        at("/asyncapi.json").read(OPEN, docs::asyncapi),
        at("/docs").read(OPEN, docs::entry),
        at("/docs/{file:.*}").read(OPEN, docs::file),
        at("/problems").read(OPEN, problems::index),
        at("/problems/").read(OPEN, problems::index),
        at("/problems/{name}").read(OPEN, problems::one),
    ];
    places.extend(probes());
    places
}

/// What `ops.bind` has.
pub(super) fn operators() -> Vec<Place> {
    let mut places = vec![
        at("/").read(OPS_READ, ops::index),
        at("/api/tree").read(OPS_READ, ops::tree),
        at("/api/restarts").read(OPS_READ, ops::restarts),
        at("/api/relay").read(OPS_READ, ops::relay),
        at("/api/orders/{id}").read(OPS_READ, orders::read),
        at("/api/orders/{id}/subscribers").read(OPS_READ, subscribers::of_order),
        at("/api/subscribers").read(OPS_READ, subscribers::all),
        at("/api/subscribers/{name}/pause").post(OPS_WRITE, subscribers::pause),
        at("/api/subscribers/{name}/resume").post(OPS_WRITE, subscribers::resume),
        // It only looks.
        at("/api/subscribers/{name}/try/{order}").post(OPS_READ, dead_letters::trial),
        at("/api/subscribers/{name}/effects/{order}").read(OPS_READ, subscribers::effects),
        at("/api/dead-letters").read(OPS_READ, dead_letters::list),
        // A dry run only looks; for anything else both ask for ops:write once they have read what is asked for.
        at("/api/dead-letters/retry").post(OPS_READ, dead_letters::retry_many),
        at("/api/dead-letters/{subscriber}/{id}").read(OPS_READ, dead_letters::show),
        at("/api/dead-letters/{subscriber}/{id}/retry").post(OPS_READ, dead_letters::retry),
        at("/api/dead-letters/{subscriber}/{id}/discard").post(OPS_WRITE, dead_letters::discard),
        at("/api/import").post(ORDERS_WRITE, import::import),
        at("/history").read(OPS_READ, history::about),
        at("/history/orders/{id}").read(OPS_READ, history::order),
        at("/history/commits").read(OPS_READ, history::commits),
        at("/history/follow").get(OPS_READ, history::follow),
        // What a process says of itself informs, and nothing rests on it: whoever may read may say it.
        at("/history/nodes")
            .read(OPS_READ, history::list)
            .post(OPS_READ, history::beat)
            .delete(OPS_READ, history::leave),
    ];
    places.extend(probes());
    places
}

/// Open: what asks them, a scheduler or a load balancer, has no key, and they tell nothing about orders.
fn probes() -> [Place; 2] {
    [at("/healthz").read(OPEN, health::healthz), at("/readyz").read(OPEN, health::readyz)]
}

/// A path with its methods.
pub(super) struct Place {
    path: &'static str,
    methods: Vec<(Method, Access, Route)>,
}

/// A path without a method yet.
fn at(path: &'static str) -> Place {
    Place { path, methods: Vec::new() }
}

impl Place {
    /// With GET and HEAD.
    fn read<H, A>(self, access: Access, handler: H) -> Self
    where
        H: Handler<A>,
        A: FromRequest + 'static,
        H::Output: Responder + 'static,
    {
        self.on(Method::GET, access, web::get().to(handler.clone())).on(Method::HEAD, access, web::head().to(handler))
    }

    /// With GET alone: an answer that has no end is nothing without its body.
    fn get<H, A>(self, access: Access, handler: H) -> Self
    where
        H: Handler<A>,
        A: FromRequest + 'static,
        H::Output: Responder + 'static,
    {
        self.on(Method::GET, access, web::get().to(handler))
    }

    /// With POST.
    fn post<H, A>(self, access: Access, handler: H) -> Self
    where
        H: Handler<A>,
        A: FromRequest + 'static,
        H::Output: Responder + 'static,
    {
        self.on(Method::POST, access, web::post().to(handler))
    }

    /// With DELETE.
    fn delete<H, A>(self, access: Access, handler: H) -> Self
    where
        H: Handler<A>,
        A: FromRequest + 'static,
        H::Output: Responder + 'static,
    {
        self.on(Method::DELETE, access, web::delete().to(handler))
    }

    fn on(mut self, method: Method, access: Access, route: Route) -> Self {
        self.methods.push((method, access, route));
        self
    }

    /// Serves it behind the guard, with 405 to every other method.
    pub(super) fn serve(self, guard: &Arc<Guard>, config: &mut ServiceConfig) {
        let allow: Vec<_> = self.methods.iter().map(|(method, ..)| method.as_str()).collect();
        let allow = allow.join(", ");
        let mut resource = web::resource(self.path);
        for (_, access, route) in self.methods {
            resource = resource.route(route.wrap(Guarded::new(Arc::clone(guard), access)));
        }
        config.service(resource.default_service(web::to(move || {
            let no_such_method = no_such_method(&allow);
            async move { Err::<HttpResponse, _>(no_such_method) }
        })));
    }
}

fn no_such_method(allow: &str) -> Problem {
    Problem::new(problem::METHOD_NOT_ALLOWED, format!("This path has only {allow}."))
        .header(header::ALLOW, written(allow))
}
