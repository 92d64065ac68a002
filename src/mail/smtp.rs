//! Mails by SMTP: each given to the mail server at `notification.smtp_url`, which brings it further or keeps it.
//!
//! At least once: when a connection breaks after the mail's last byte, nobody knows whether it was taken, and it is sent
//! again, as the same bytes with the same `Message-ID`. No password, and no reader's address, is in any error.

mod connection;
mod verdict;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actors::mailer::{Mail, MailError, Mailer, Sent};
use async_trait::async_trait;
use lettre::Address;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use self::connection::{Budget, Connection, Envelope, Failed, Server, Trouble};
use self::verdict::{is_of_the_connection, verdict};
use super::message::Letterhead;
use super::{OpenError, SmtpUrl};

/// A connection that nobody used for so long may be closed already, or forgotten by whatever is between.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A mail server, with connections that are used again.
///
/// A connection belongs to the runtime on which it was made: an adapter is used on one only.
#[derive(Debug)]
pub struct SmtpMailer {
    server: Server,
    letterhead: Letterhead,
    deadlines: Deadlines,
    /// One for each connection that there may be.
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

/// How long a mail server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For all of its answers until a mail is given to it, together: connecting, logging in, sender and reader.
    pub asked: Duration,
    /// For its word that it has taken the mail. A server that looks into mails takes long for that, and nobody who
    /// leaves earlier knows whether it took this one. RFC 5321 asks for ten minutes.
    pub accepted: Duration,
}

/// A connection between two mails.
struct Idle {
    connection: Connection,
    since: Instant,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish_non_exhaustive()
    }
}

/// What a mail server answered without being given a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whether what is said to it is encrypted.
    pub encrypted: bool,
}

impl SmtpMailer {
    /// The server at `url`, for mails from `from`, over at most so many connections at once. A mail is given up within
    /// twice the deadlines together: it may have waited for a connection as long as another one took. Nothing is asked
    /// of the server yet.
    ///
    /// # Errors
    /// When `url` or `from` is none, or TLS cannot be used on this machine.
    pub fn open(url: &SmtpUrl, from: &str, connections_max: u32, deadlines: Deadlines) -> Result<Self, OpenError> {
        Ok(Self {
            server: Server::new(url)?,
            letterhead: Letterhead::of(from)?,
            deadlines,
            slots: Semaphore::new(connections_max as usize),
            idle: Mutex::default(),
        })
    }

    /// Connects, encrypts, logs in, and asks whether the sender would be taken; gives no mail.
    ///
    /// # Errors
    /// Where it came to an end and why, as [`Mailer::send`] would say it.
    pub async fn reach(&self) -> Result<Reached, MailError> {
        let mut budget = Budget::of(self.deadlines.asked);
        let mut connection = self.connect(&mut budget).await?;
        let encrypted = connection.is_encrypted();
        let begun = connection.begin(self.letterhead.sender(), vec![], &mut budget).await;
        begun.map_err(|failed| verdict(&self.server, failed, ""))?;
        connection.reset(&mut budget).await;
        connection.quit(&mut budget).await;
        Ok(Reached { encrypted })
    }

    async fn give(&self, envelope: &Envelope<'_>) -> Result<(), MailError> {
        let _slot = self.slot().await?;
        let (mut budget, accepted) = (Budget::of(self.deadlines.asked), self.deadlines.accepted);
        if let Some(mut connection) = self.used_before() {
            let given = connection.give(envelope, &mut budget, accepted).await;
            if !given.as_ref().is_err_and(is_of_the_connection) {
                return self.given(connection, envelope.to, given, &mut budget).await;
            }
            self.forget();
        }
        let mut connection = self.connect(&mut budget).await?;
        let given = connection.give(envelope, &mut budget, accepted).await;
        self.given(connection, envelope.to, given, &mut budget).await
    }

    /// Keeps the connection when the next mail can begin on it at once. A future that is dropped keeps none.
    async fn given(
        &self,
        mut connection: Connection,
        to: &Address,
        given: Result<(), Failed>,
        budget: &mut Budget,
    ) -> Result<(), MailError> {
        let as_new = match &given {
            Ok(()) => true,
            // Nothing of it was said yet.
            Err(Failed { trouble: Trouble::Unable(_), .. }) => true,
            Err(Failed { trouble: Trouble::Refused { .. }, .. }) => connection.reset(budget).await,
            Err(Failed { trouble: Trouble::Silence(_) | Trouble::Broken(_), .. }) => false,
        };
        if as_new {
            let idle = Idle { connection, since: Instant::now() };
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        } else {
            self.forget();
        }
        given.map_err(|failed| verdict(&self.server, failed, to.as_ref()))
    }

    async fn connect(&self, budget: &mut Budget) -> Result<Connection, MailError> {
        self.server.connect(budget).await.map_err(|failed| verdict(&self.server, failed, ""))
    }

    /// All are busy for so long only with a server that has no answer: no mail would fare better.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, MailError> {
        let busy = || MailError::DependencyDown(format!("{}: every connection waits for an answer", self.server));
        match tokio::time::timeout(self.deadlines.asked + self.deadlines.accepted, self.slots.acquire()).await {
            Ok(slot) => slot.map_err(|_| busy()),
            Err(_) => Err(busy()),
        }
    }

    /// The one that was used last: the others grow old when few are needed.
    fn used_before(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        idle.pop().map(|idle| idle.connection)
    }

    /// What ended one connection has most likely ended the others as well.
    fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        let to = mail.to.parse().map_err(|error| MailError::Undeliverable(format!("not a mail address: {error}")))?;
        let message = self.letterhead.write(mail)?.formatted();
        self.give(&Envelope { from: self.letterhead.sender(), to: &to, message: &message }).await?;
        Ok(Sent { message_id: self.letterhead.message_id(mail) })
    }
}
