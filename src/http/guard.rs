//! Who is let in: stands before every route, after the path is known and before anything of the body is read.
//!
//! With keys every route that is not open needs one, also from this machine: behind a proxy everybody comes from there.
//! Without keys only this machine reaches docket; then a page in a browser here that points its own name at this address
//! must not read what is in the orders.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{Error, HttpMessage, HttpRequest};
use futures_util::future::Either;

use super::origin::Names;
use super::problem::{self, Problem};
use super::routes::Access;
use crate::auth::{Key, KeyName, Keys, Scope};
use crate::config::Auth;

/// The name of the key that a request showed.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) KeyName);

impl Caller {
    /// Who asked, when that was asked for and known.
    pub(super) fn of(extensions: &Extensions) -> Option<&KeyName> {
        extensions.get::<Self>().map(|Self(name)| name)
    }
}

/// What the key that a request showed allows. Absent where there are no keys: then everything is allowed.
#[derive(Clone, Debug)]
struct Allowed(BTreeSet<Scope>);

/// For a route that needs more when its body asks for more than to look.
///
/// # Errors
/// 403 `forbidden`.
pub(super) fn require(request: &HttpRequest, scope: Scope) -> Result<(), Problem> {
    let extensions = request.extensions();
    match (extensions.get::<Allowed>(), Caller::of(&extensions)) {
        (Some(Allowed(scopes)), Some(name)) if !scopes.contains(&scope) => Err(forbidden(name, scope)),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Who is let in at an address.
#[derive(Debug)]
pub(super) struct Guard {
    keys: Keys,
    open: bool,
    names: Names,
}

impl Guard {
    /// As the configuration has it, at an address with these names.
    pub(super) fn new(auth: &Auth, names: Names) -> Self {
        Self { keys: auth.keys.clone(), open: auth.open, names }
    }

    /// Lets a request in that may do what its route needs.
    ///
    /// # Errors
    /// 401 `unauthorized`, 403 `forbidden` or `foreign-origin`.
    fn admit(&self, request: &ServiceRequest, access: Access) -> Result<(), Problem> {
        let Access::Needs(scope) = access else { return Ok(()) };
        if self.keys.is_empty() {
            return if self.open { Ok(()) } else { self.names.check_host(request) };
        }
        let key = self.shown(request.headers())?;
        request.extensions_mut().insert(Caller(key.name.clone()));
        request.extensions_mut().insert(Allowed(key.scopes.clone()));
        if key.scopes.contains(&scope) { Ok(()) } else { Err(forbidden(&key.name, scope)) }
    }

    fn shown(&self, headers: &HeaderMap) -> Result<&Key, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION);
        let Some(value) = values.next() else {
            let detail = "This needs a key: send it in the header Authorization: Bearer KEY.";
            return Err(unauthorized(detail, "Bearer"));
        };
        let one = values.next().is_none().then(|| value.to_str().ok()).flatten();
        let key = one.and_then(bearer).and_then(|key| self.keys.find(key));
        let detail = "The header Authorization has no key that is known here: it must be Bearer and one key.";
        key.ok_or_else(|| unauthorized(detail, "Bearer error=\"invalid_token\""))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| key.trim())
}

fn unauthorized(detail: &'static str, challenge: &'static str) -> Problem {
    let challenge = HeaderValue::from_static(challenge);
    Problem::new(problem::UNAUTHORIZED, detail).header(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden(name: &KeyName, scope: Scope) -> Problem {
    let challenge = format_args!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(problem::FORBIDDEN, format!("The key {name} has not the scope {scope}, which this needs."))
        .header(header::WWW_AUTHENTICATE, super::headers::written(challenge))
}

/// A route behind the guard.
pub(super) struct Guarded {
    guard: Arc<Guard>,
    access: Access,
}

impl Guarded {
    /// One that needs that.
    pub(super) fn new(guard: Arc<Guard>, access: Access) -> Self {
        Self { guard, access }
    }
}

impl<S> Transform<S, ServiceRequest> for Guarded
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = GuardedService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(GuardedService { inner, guard: Arc::clone(&self.guard), access: self.access }))
    }
}

/// What answers, behind the guard.
pub(super) struct GuardedService<S> {
    inner: S,
    guard: Arc<Guard>,
    access: Access,
}

impl<S> Service<ServiceRequest> for GuardedService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Either<Ready<Result<Self::Response, Error>>, S::Future>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        match self.guard.admit(&request, self.access) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(problem) => Either::Left(ready(Ok(request.error_response(problem)))),
        }
    }
}
