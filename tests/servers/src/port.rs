//! Ports for servers of tests.
//!
//! This file is also a module of `xtask`: it uses nothing but the standard library.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix;

/// Where ports are taken from: below those that the system gives to connections. A client above would, while its server
/// is away, now and then connect to itself.
const PORTS: std::ops::Range<u16> = 21_000..27_000;

/// A port that no other test takes while this lives, also while the server on it is down.
pub(crate) struct Port {
    pub(crate) number: u16,
    /// A name on this machine that only one process can have. It is no file: nothing is left over.
    _held: unix::net::UnixListener,
}

impl Port {
    pub(crate) fn take() -> io::Result<Self> {
        for number in PORTS {
            let name = unix::net::SocketAddr::from_abstract_name(format!("docket-test-port-{number}"))?;
            let Ok(held) = unix::net::UnixListener::bind_addr(&name) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _held: held });
            }
        }
        Err(io::Error::other(format!("no port is free from {} to {}", PORTS.start, PORTS.end - 1)))
    }
}
