//! Which requests come from ourselves: a page of somebody else must not use a person's browser to change something here,
//! neither by a plain cross-site request (`Origin`) nor by pointing its own name at this address (`Host`).

use std::net::{IpAddr, SocketAddr};

use actix_web::dev::ServiceRequest;
use actix_web::http::header;
use actix_web::http::uri::Authority;

use super::problem::{self, Problem};

/// The names under which an address is ours.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    bind: SocketAddr,
    hosts: Vec<String>,
}

impl Names {
    /// Those of an address that we listen on: loopback, the address itself, and the configured `hosts`. An address on all
    /// interfaces is ours under any IP address, because only names can be pointed at somebody else.
    pub(crate) fn new(bind: SocketAddr, hosts: &[String]) -> Self {
        Self { bind, hosts: hosts.iter().map(|host| host.to_lowercase()).collect() }
    }

    /// Refuses a request that changes something and names a foreign `Host` or `Origin`. Reading is free here: a page gets
    /// nothing to see of another origin, and for one that pretends to be this origin there is
    /// [`check_host`](Self::check_host).
    ///
    /// # Errors
    /// 403 `foreign-origin`.
    pub(crate) fn check(&self, request: &ServiceRequest) -> Result<(), Problem> {
        if request.method().is_safe() {
            return Ok(());
        }
        self.check_host(request)?;
        let host = host(request);
        let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().ok().and_then(authority_of_origin);
        if origin.is_some_and(|origin| self.is_same(&origin, host.as_ref())) {
            return Ok(());
        }
        Err(Problem::new(problem::FOREIGN_ORIGIN, "The header Origin is not this server's."))
    }

    /// Refuses a request that was meant for a foreign `Host`: a name that somebody else has pointed at this address.
    ///
    /// # Errors
    /// 403 `foreign-origin`.
    pub(crate) fn check_host(&self, request: &ServiceRequest) -> Result<(), Problem> {
        if host(request).is_some_and(|host| !self.is_ours(&host)) {
            return Err(Problem::new(problem::FOREIGN_ORIGIN, "The header Host is not a name of this server."));
        }
        Ok(())
    }

    /// A page of this very address, under any of its names.
    fn is_same(&self, origin: &Authority, host: Option<&Authority>) -> bool {
        if host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(origin.as_str())) {
            return true;
        }
        let listed = self.hosts.iter().any(|host| host.eq_ignore_ascii_case(origin.as_str()));
        listed || (self.is_ours(origin) && origin.port_u16() == Some(self.bind.port()))
    }

    fn is_ours(&self, authority: &Authority) -> bool {
        let name = authority.host();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return ip.is_loopback() || ip == self.bind.ip() || self.bind.ip().is_unspecified();
        }
        name.eq_ignore_ascii_case("localhost")
            || self
                .hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(name) || host.eq_ignore_ascii_case(authority.as_str()))
    }
}

/// Whom the request was meant for: an absolute target before the header, as RFC 9112 has it. One that cannot be read
/// names nobody, so it is foreign.
fn host(request: &ServiceRequest) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let value = request.headers().get(header::HOST)?;
    let authority = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(authority.unwrap_or(Authority::from_static("unreadable.invalid")))
}

fn authority_of_origin(origin: &str) -> Option<Authority> {
    let (scheme, authority) = origin.split_once("://")?;
    matches!(scheme, "http" | "https").then(|| authority.parse().ok()).flatten()
}
