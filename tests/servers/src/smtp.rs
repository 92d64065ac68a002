//! A mail server of a test's own: Debian's `aiosmtpd` with a handler of ours, which behaves as it is told and keeps what
//! it was given.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::port::Port;
use crate::process::{Process, said};

/// Debian's packages are for this one.
const PYTHON: &str = "/usr/bin/python3";
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/smtp/server.py");
/// Longest wait for a greeting.
const GREETING_MAX: Duration = Duration::from_secs(1);

/// How a mail server behaves. It can be changed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Takes every mail.
    Accept,
    /// Refuses every recipient whose address contains this text, with that code: 550 for good, 451 for now.
    RefuseRecipients(String, u16),
    /// Refuses every mail when it has all of it, with that code.
    RefuseMessages(u16),
    /// Says 421 to whoever begins a mail, and closes the connection.
    Closing,
    /// Takes every mail, and says so so much later. Of those who give up before that it keeps nothing.
    Slow(Duration),
    /// Keeps every mail, and breaks the connection instead of saying so.
    DropAfterData,
}

/// Who may give it mails, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmtpOptions {
    /// User and password, when it wants them.
    pub login: Option<(String, String)>,
    /// Whether connections are encrypted.
    pub tls: Tls,
}

/// Whether connections are encrypted. The certificate is for `localhost`, signed by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    #[default]
    None,
    /// It takes mails only after STARTTLS.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// A mail that it has kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mail {
    /// Of `MAIL FROM`.
    pub from: String,
    /// Of `RCPT TO`.
    pub recipients: Vec<String>,
    /// Headers and body, lines ending with a newline only.
    pub text: String,
    /// Who gave it, when it wants to know.
    pub user: Option<String>,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
}

impl Mail {
    /// A header's value, unfolded, when it has that header.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\n\n").next().unwrap_or_default().replace("\n ", " ").replace("\n\t", " ");
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    /// Its `Message-ID`.
    ///
    /// # Panics
    /// When it has none.
    pub fn message_id(&self) -> String {
        self.header("Message-ID").unwrap_or_else(|| panic!("no Message-ID: {}", self.text))
    }

    /// What follows its headers, as it came.
    pub fn body(&self) -> &str {
        self.text.split_once("\n\n").map_or("", |(_, body)| body)
    }
}

/// A mail server on a port that stays the same until it is dropped.
pub struct SmtpServer {
    options: SmtpOptions,
    port: Port,
    folder: TempDir,
    process: Process,
}

impl SmtpServer {
    /// One that takes mails from anybody, unencrypted.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn start() -> Self {
        Self::start_with(SmtpOptions::default()).await
    }

    /// As [`start`](Self::start), and waits for it on a thread of its own.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn start_now() -> Self {
        let starting = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(Self::start())
        });
        starting.join().expect("a mail server")
    }

    /// One that wants this.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn start_with(options: SmtpOptions) -> Self {
        let (port, folder) = (Port::take().expect("a port"), tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.path().join("mails")).expect("a folder for mails");
        if options.tls != Tls::None {
            make_certificate(folder.path());
        }
        let encrypted = options.tls != Tls::None;
        let told = json!({
            "port": port.number,
            "login": options.login,
            "tls": match options.tls { Tls::None => "none", Tls::StartTls => "starttls", Tls::Implicit => "implicit" },
            "certificate": encrypted.then(|| certificate(folder.path())),
            "key": encrypted.then(|| key(folder.path())),
        });
        write(folder.path(), "options", &told);
        write(folder.path(), "behaviour", &behaviour(&Behaviour::Accept));
        let process = start(&port, &folder).await;
        Self { options, port, folder, process }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number))
    }

    /// `smtp://localhost:PORT` or `smtps://…`, with user and password when it wants them.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The same at a proxy before it.
    pub fn url_at(&self, proxy: SocketAddr) -> String {
        let scheme = if self.options.tls == Tls::Implicit { "smtps" } else { "smtp" };
        let login = self.options.login.as_ref().map(|(user, password)| format!("{user}:{password}@"));
        format!("{scheme}://{}localhost:{}", login.unwrap_or_default(), proxy.port())
    }

    /// A file with its certificate, to be trusted (`SSL_CERT_FILE`).
    pub fn certificate(&self) -> PathBuf {
        certificate(self.folder.path())
    }

    /// From now on it behaves like this, whatever has begun.
    pub fn behave(&self, as_this: &Behaviour) {
        write(self.folder.path(), "behaviour", &behaviour(as_this));
    }

    /// What it has kept, in the order in which it came.
    pub fn mails(&self) -> Vec<Mail> {
        let entries = std::fs::read_dir(self.folder.path().join("mails")).expect("its mails");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_none());
        paths.sort();
        let mails = paths.iter().map(|path| std::fs::read_to_string(path).expect("a mail"));
        mails.map(|mail| serde_json::from_str(&mail).expect("a mail")).collect()
    }

    /// How often somebody began to give it a mail.
    pub fn attempts(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("attempts")).map_or(0, |attempts| attempts.len())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was, with what it has kept.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = start(&self.port, &self.folder).await;
    }

    /// Its process stands still (SIGSTOP): connections are made, answers do not come.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Its process goes on (SIGCONT).
    pub fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        said(&self.folder)
    }
}

async fn start(port: &Port, folder: &TempDir) -> Process {
    let mut process = Process::spawn(Command::new(PYTHON).arg(SERVER).arg(folder.path()), folder);
    process.until("the mail server (Debian's python3-aiosmtpd)", folder, async || serves(port.number).await).await;
    process
}

/// Whether it greets, or at least takes connections when it expects to be greeted.
async fn serves(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return false };
    let mut greeting = [0; 4];
    match timeout(GREETING_MAX, connection.read_exact(&mut greeting)).await {
        Ok(read) => read.is_ok() && &greeting == b"220 ",
        Err(_) => true,
    }
}

fn behaviour(behaviour: &Behaviour) -> Value {
    match behaviour {
        Behaviour::Accept => json!({"name": "accept"}),
        Behaviour::RefuseRecipients(text, code) => {
            json!({"name": "refuse_recipients", "recipient": text, "code": code})
        }
        Behaviour::RefuseMessages(code) => json!({"name": "refuse_messages", "code": code}),
        Behaviour::Closing => json!({"name": "closing"}),
        Behaviour::Slow(by) => json!({"name": "slow", "seconds": by.as_secs_f64()}),
        Behaviour::DropAfterData => json!({"name": "drop_after_data"}),
    }
}

/// Whole, or as it was.
fn write(folder: &Path, name: &str, value: &Value) {
    let part = folder.join(format!("{name}.part"));
    std::fs::write(&part, value.to_string()).expect("a file");
    std::fs::rename(&part, folder.join(name)).expect("a file");
}

fn certificate(folder: &Path) -> PathBuf {
    folder.join("certificate.pem")
}

fn key(folder: &Path) -> PathBuf {
    folder.join("key.pem")
}

/// No authority's: whoever trusts it trusts this server only.
fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key(folder))
        .arg("-out")
        .arg(certificate(folder))
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
