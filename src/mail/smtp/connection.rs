//! One connection to a mail server: opened, encrypted, logged in, and then one mail after another.
//!
//! Whatever goes wrong is told with the step at which it did: what it means depends on that. A connection on which
//! anything but an answer came is never used again.

use std::fmt;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use tokio::time::Instant;

use super::super::OpenError;
use super::super::url::{Encryption, SmtpUrl};

/// A mail server, and how it is spoken to.
pub(super) struct Server {
    url: SmtpUrl,
    host: String,
    port: u16,
    encryption: Encryption,
    tls: TlsParameters,
    hello: ClientId,
    login: Option<Login>,
}

struct Login {
    credentials: Credentials,
    /// Only to leave it out of what the server says.
    password: String,
}

/// An open connection.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
}

/// Time to wait for a server, however many answers it is spent on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    whole: Duration,
    left: Duration,
}

/// A mail, for the server.
pub(super) struct Envelope<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a Address,
    pub(super) message: &'a [u8],
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Finding the server, connecting, TLS, its greeting, `EHLO`.
    Connecting,
    /// `STARTTLS` and what follows it.
    Encrypting,
    /// `AUTH`.
    LoggingIn,
    /// `MAIL FROM`: the first word about a mail, and only its sender's.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the first byte of the mail.
    Beginning,
    /// The mail itself, and the answer to it: without one, the mail may have been taken.
    Message,
}

/// What happened instead of the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server said no.
    Refused { code: u16, text: String },
    /// Its answers did not come in that time.
    Silence(Duration),
    /// The connection broke, was never made, or brought what is no answer.
    Broken(String),
    /// The server cannot do what is asked of it.
    Unable(String),
}

/// Which step failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) at: Step,
    pub(super) trouble: Trouble,
}

impl Server {
    /// The server at that address. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When the address is none, or TLS cannot be used on this machine.
    pub(super) fn new(url: &SmtpUrl) -> Result<Self, OpenError> {
        let parts = url.parts().map_err(OpenError::Url)?;
        // With the authorities that this machine trusts.
        let tls = TlsParameters::new(parts.host.clone()).map_err(|error| OpenError::Tls(error.to_string()))?;
        let login = parts
            .login
            .map(|(user, password)| Login { credentials: Credentials::new(user, password.clone()), password });
        Ok(Self {
            url: url.clone(),
            host: parts.host,
            port: parts.port,
            encryption: parts.encryption,
            tls,
            hello: parts.hello.map_or_else(ClientId::default, ClientId::Domain),
            login,
        })
    }

    /// A connection that is ready for a mail.
    pub(super) async fn connect(&self, budget: &mut Budget) -> Result<Connection, Failed> {
        let tls = (self.encryption == Encryption::Always).then(|| self.tls.clone());
        // A name may have several addresses: half of the time for each, so that a second one gets a chance.
        let address = (self.host.as_str(), self.port);
        let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(budget.left / 2), &self.hello, tls, None);
        let smtp = budget.answered(Step::Connecting, connecting).await?;
        let mut connection = Connection { smtp };
        self.encrypt(&mut connection, budget).await?;
        self.log_in(&mut connection, budget).await?;
        Ok(connection)
    }

    async fn encrypt(&self, Connection { smtp }: &mut Connection, budget: &mut Budget) -> Result<(), Failed> {
        let wanted = match self.encryption {
            Encryption::Always | Encryption::Never => false,
            Encryption::Required => true,
            Encryption::Offered => smtp.can_starttls(),
        };
        if !wanted {
            return Ok(());
        }
        if !smtp.can_starttls() {
            return Err(unable(Step::Encrypting, "it offers no STARTTLS, which tls=required asks for"));
        }
        budget.answered(Step::Encrypting, smtp.starttls(self.tls.clone(), &self.hello)).await
    }

    async fn log_in(&self, Connection { smtp }: &mut Connection, budget: &mut Budget) -> Result<(), Failed> {
        let Some(login) = &self.login else { return Ok(()) };
        if !smtp.is_encrypted() && self.encryption != Encryption::Never {
            let why =
                "it offers no encryption, and without it the password is not sent (tls=none sends it all the same)";
            return Err(unable(Step::LoggingIn, why));
        }
        if smtp.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
            let why = "it offers neither AUTH PLAIN nor AUTH LOGIN: perhaps only encrypted, perhaps on another port";
            return Err(unable(Step::LoggingIn, why));
        }
        let asked = budget.answered(Step::LoggingIn, smtp.auth(DEFAULT_MECHANISMS, &login.credentials)).await;
        asked.map(drop).map_err(|failed| failed.without(&login.password))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Connection {
    /// Gives the server a mail. Once it answers without error, the server has taken it. The last answer has its own
    /// time, `accepted`: a server that looks into mails takes long, and takes those that nobody waits for any more.
    pub(super) async fn give(
        &mut self,
        mail: &Envelope<'_>,
        budget: &mut Budget,
        accepted: Duration,
    ) -> Result<(), Failed> {
        self.begin(mail.from, self.options(mail)?, budget).await?;
        budget.answered(Step::Recipient, self.smtp.command(Rcpt::new(mail.to.clone(), vec![]))).await?;
        budget.answered(Step::Beginning, self.smtp.command(Data)).await?;
        Budget::of(accepted).answered(Step::Message, self.smtp.message(mail.message)).await.map(drop)
    }

    /// Says whose mail comes next.
    pub(super) async fn begin(
        &mut self,
        from: &Address,
        options: Vec<MailParameter>,
        budget: &mut Budget,
    ) -> Result<(), Failed> {
        budget.answered(Step::Sender, self.smtp.command(Mail::new(Some(from.clone()), options))).await.map(drop)
    }

    /// Takes back what was begun. Whether the connection is as new.
    pub(super) async fn reset(&mut self, budget: &mut Budget) -> bool {
        budget.answered(Step::Sender, self.smtp.command(Rset)).await.is_ok()
    }

    /// Says goodbye.
    pub(super) async fn quit(mut self, budget: &mut Budget) {
        // Whoever does not answer is left as well.
        drop(budget.answered(Step::Sender, self.smtp.command(Quit)).await);
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.smtp.is_encrypted()
    }

    fn options(&self, mail: &Envelope<'_>) -> Result<Vec<MailParameter>, Failed> {
        let server = self.smtp.server_info();
        let mut options = Vec::new();
        let ascii = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
        if !(ascii(mail.from) && ascii(mail.to)) {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                let step = if ascii(mail.to) { Step::Sender } else { Step::Recipient };
                return Err(unable(step, "it takes no address with letters beyond ASCII (SMTPUTF8)"));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        if !mail.message.is_ascii() && server.supports_feature(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(options)
    }
}

impl Failed {
    /// The same, and nothing in it shows that text, in capitals or not.
    pub(super) fn without(mut self, secret: &str) -> Self {
        match &mut self.trouble {
            Trouble::Refused { text, .. } | Trouble::Broken(text) if !secret.is_empty() => {
                *text = hidden(text, secret);
            }
            Trouble::Refused { .. } | Trouble::Broken(_) | Trouble::Silence(_) | Trouble::Unable(_) => {}
        }
        self
    }
}

fn hidden(text: &str, secret: &str) -> String {
    let (lower, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (mut shown, mut from) = (String::with_capacity(text.len()), 0);
    for (at, _) in lower.match_indices(&secret) {
        shown.push_str(&text[from..at]);
        shown.push_str("***");
        from = at + secret.len();
    }
    shown + &text[from..]
}

impl Budget {
    /// That much.
    pub(super) fn of(whole: Duration) -> Self {
        Self { whole, left: whole }
    }

    /// Waits for an answer, as long as something is left.
    async fn answered<T>(&mut self, at: Step, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(self.left, asked).await;
        self.left = self.left.saturating_sub(asked_at.elapsed());
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failed { at, trouble: Trouble::of(&error) }),
            Err(_) => Err(Failed { at, trouble: Trouble::Silence(self.whole) }),
        }
    }
}

fn unable(at: Step, why: &str) -> Failed {
    Failed { at, trouble: Trouble::Unable(why.to_owned()) }
}

impl Trouble {
    fn of(error: &Error) -> Self {
        let source = std::error::Error::source(error).map(|source| one_line(&source.to_string()));
        match error.status() {
            Some(code) => Self::Refused { code: code.into(), text: source.unwrap_or_default() },
            None => Self::Broken(source.unwrap_or_else(|| one_line(&error.to_string()))),
        }
    }
}

/// Most characters of what a server says that are kept.
const SAID_MAX: usize = 300;

/// What a stranger says, fit for a log line.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(SAID_MAX).collect()
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.trouble)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Encrypting => "STARTTLS",
            Self::LoggingIn => "logging in",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Beginning => "DATA",
            Self::Message => "the message",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } => write!(f, "{code} {text}"),
            Self::Silence(after) => write!(f, "no answer in time, within {} ms", after.as_millis()),
            Self::Broken(why) | Self::Unable(why) => f.write_str(why),
        }
    }
}
