//! How a MongoDB server for tests is started: a replica set of one node, on loopback, with all that it acknowledges on
//! disk. The program is `mongod`, or `secantusd-rs`, which speaks the same protocol.
//!
//! This file is also a module of `xtask`, which starts the server that tests share and is compiled before any driver is:
//! it uses nothing but the standard library.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest wait for an answer about the server's state.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What differs from the server that tests share.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// No replica set: without transactions and change streams.
    pub(crate) standalone: bool,
    /// Forgets soon what was written (a `mongod`: after a megabyte).
    pub(crate) oplog_entries_max: Option<u32>,
    /// Takes commands that only tests give: it fails on purpose.
    pub(crate) test_commands: bool,
}

/// The server as a command. `data` is a folder that is there.
pub(crate) fn command(program: &Path, port: u16, data: &Path, options: Options) -> Command {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string()]);
    if program.file_name().is_some_and(|name| name == "mongod") {
        command.args(["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.5", "--dbpath"]).arg(data);
        if !options.standalone {
            command.args(["--replSet", "docket"]);
        }
        if options.oplog_entries_max.is_some() {
            command.args(["--oplogSize", "1"]);
        }
        if options.test_commands {
            command.args(["--setParameter", "enableTestCommands=1"]);
        }
    } else {
        // Without the first flag it loses what it acknowledged when it is killed; by default it forgets after an hour.
        command.args(["--sync-on-commit", "--oplog-retention-seconds", "604800"]);
        command.args(["--oplog-max-entries", &options.oplog_entries_max.unwrap_or(50_000_000).to_string()]);
        command.args(["--cache-size", "512M", "--log-file-max", "16MB", "--storage-path"]).arg(data);
        if options.standalone {
            command.arg("--standalone");
        }
        if options.test_commands {
            command.arg("--enable-test-commands");
        }
    }
    command
}

/// Whether the server can be written to. A replica set that is not initiated is.
pub(crate) fn is_ready(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    server.set_read_timeout(Some(ANSWER_MAX))?;
    server.set_write_timeout(Some(ANSWER_MAX))?;
    let state = ask(&mut server, &[number("hello", 1)])?;
    if is_true(&state, "isWritablePrimary") {
        return Ok(true);
    }
    if is_true(&state, "isreplicaset") {
        let member = document(&[number("_id", 0), text("host", &address.to_string())]);
        let members = document(&[element(DOCUMENT, "0", &member)]);
        let set = document(&[text("_id", "docket"), element(ARRAY, "members", &members)]);
        ask(&mut server, &[element(DOCUMENT, "replSetInitiate", &set)])?;
    }
    Ok(false)
}

const TEXT: u8 = 2;
const DOCUMENT: u8 = 3;
const ARRAY: u8 = 4;
const BOOLEAN: u8 = 8;
const NUMBER: u8 = 16;
/// The only kind of message since MongoDB 3.6.
const OP_MSG: i32 = 2013;
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends a command to the database `admin`; the document that it answers with, as it came.
fn ask(server: &mut TcpStream, command: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let body = document(&[command, &[text("$db", "admin")]].concat());
    let header = [16 + 5 + length(body.len()), 1, 0, OP_MSG].map(i32::to_le_bytes).concat();
    // No flags, one section, of the kind that is one document.
    server.write_all(&[&header, &[0; 5][..], &body].concat())?;
    let mut size = [0; 4];
    server.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_le_bytes(size)).ok().and_then(|size| size.checked_sub(4));
    let size = size.filter(|size| *size < ANSWER_BYTES_MAX).ok_or(io::ErrorKind::InvalidData)?;
    let mut answer = vec![0; size];
    server.read_exact(&mut answer)?;
    Ok(answer)
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let elements = elements.concat();
    [&(length(elements.len()) + 5).to_le_bytes(), &elements[..], &[0]].concat()
}

fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn number(name: &str, value: i32) -> Vec<u8> {
    element(NUMBER, name, &value.to_le_bytes())
}

fn text(name: &str, value: &str) -> Vec<u8> {
    element(TEXT, name, &[&(length(value.len()) + 1).to_le_bytes(), value.as_bytes(), &[0]].concat())
}

/// What is sent in here is short.
fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// Whether a document has that field, and it is true.
fn is_true(document: &[u8], name: &str) -> bool {
    let field = element(BOOLEAN, name, &[1]);
    document.windows(field.len()).any(|bytes| bytes == field)
}
