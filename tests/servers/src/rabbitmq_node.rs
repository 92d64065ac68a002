//! How a RabbitMQ node for tests is started: alone, on loopback, with a home, a cookie and a place for its data of its own.
//! Beside it runs the port mapper that Erlang would else start by itself, and leave running.
//!
//! This file is also a module of `xtask`, which starts the node that tests share and is compiled before any driver is: it
//! uses nothing but the standard library.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::port::Port;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What any client of this version says first.
const PROTOCOL: &[u8] = b"AMQP\0\0\x09\x01";
/// What a server then sends first: a frame with a method, on the connection's channel.
const METHOD_FRAME: [u8; 3] = [1, 0, 0];
const PLUGINS: &str = "[rabbitmq_consistent_hash_exchange,rabbitmq_management].\n";

/// What a node listens on.
pub(crate) struct Ports {
    pub(crate) amqp: Port,
    pub(crate) management: Port,
    /// Of other Erlang programs, such as `rabbitmqctl`.
    distribution: Port,
    mapper: Port,
}

impl Ports {
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self { amqp: Port::take()?, management: Port::take()?, distribution: Port::take()?, mapper: Port::take()? })
    }

    /// The node's address for a driver. Its user may do everything, from this machine only.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.amqp.number)
    }

    /// Where it is asked about itself.
    pub(crate) fn api(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.management.number)
    }
}

/// The port mapper. `program` is the node's.
pub(crate) fn mapper(program: &Path, ports: &Ports) -> Command {
    let mut command = Command::new(erlang(program).join("bin/epmd"));
    command.args(["-address", "127.0.0.1", "-port", &ports.mapper.number.to_string()]);
    command
}

/// The node. `folder` is there, and has nothing in it but what a node left.
///
/// # Errors
/// When its configuration cannot be written.
pub(crate) fn node(program: &Path, ports: &Ports, folder: &Path) -> io::Result<Command> {
    let (configuration, plugins) = (folder.join("rabbitmq.conf"), folder.join("enabled_plugins"));
    std::fs::write(&configuration, configured(ports))?;
    std::fs::write(&plugins, PLUGINS)?;
    let mut command = Command::new(program);
    in_its_world(&mut command, program, ports, folder)?;
    command
        .env("RABBITMQ_CONFIG_FILE", configuration)
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
        .env("RABBITMQ_DIST_PORT", ports.distribution.number.to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder.join("logs"))
        .env("RABBITMQ_PID_FILE", folder.join("pid"))
        // One process, which is the node, instead of a shell that waits for it. It ends at once when it is interrupted.
        .env("RABBITMQ_ALLOW_INPUT", "1")
        .env("RABBITMQ_SERVER_START_ARGS", "-noinput +Bd");
    Ok(command)
}

/// What all of a node's programs must agree on, whatever the environment says.
///
/// # Errors
/// When its home cannot be made.
pub(crate) fn in_its_world(command: &mut Command, program: &Path, ports: &Ports, folder: &Path) -> io::Result<()> {
    let home = folder.join("home");
    std::fs::create_dir_all(&home)?;
    let mut path = OsString::from(erlang(program).join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command
        .env("PATH", path)
        .env("HOME", home)
        .env("ERL_EPMD_PORT", ports.mapper.number.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_NODENAME", format!("docket-{}@localhost", ports.amqp.number));
    Ok(())
}

fn configured(ports: &Ports) -> String {
    let (amqp, management) = (ports.amqp.number, ports.management.number);
    format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         log.console = true\n\
         log.console.level = info\n\
         log.file = false\n\
         disk_free_limit.absolute = 1MB\n"
    )
}

/// Erlang lies beside it: `lib/rabbitmq/bin/rabbitmq-server` and `lib/erlang`.
fn erlang(program: &Path) -> PathBuf {
    program.ancestors().nth(3).unwrap_or(Path::new("/usr/lib")).join("erlang")
}

/// Whether the node takes connections, and answers on them.
pub(crate) fn is_ready(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    server.set_read_timeout(Some(ANSWER_MAX))?;
    server.write_all(PROTOCOL)?;
    let mut answer = METHOD_FRAME.map(|_| 0);
    server.read_exact(&mut answer)?;
    Ok(answer == METHOD_FRAME)
}
