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

use self::connection::{Connection, Envelope, Failed, Server, Trouble};
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
    within: Duration,
    /// One for each connection that there may be.
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
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
    /// The server at `url`, for mails from `from`, over at most so many connections at once. A wait for it that lasts
    /// longer than `within` is given up. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When `url` or `from` is none, or TLS cannot be used on this machine.
    pub fn open(url: &SmtpUrl, from: &str, connections_max: u32, within: Duration) -> Result<Self, OpenError> {
        Ok(Self {
            server: Server::new(url, within)?,
            letterhead: Letterhead::of(from)?,
            within,
            slots: Semaphore::new(connections_max as usize),
            idle: Mutex::default(),
        })
    }

    /// Connects, encrypts, logs in, and asks whether the sender would be taken; gives no mail.
    ///
    /// # Errors
    /// Where it came to an end and why, as [`Mailer::send`] would say it.
    pub async fn reach(&self) -> Result<Reached, MailError> {
        let mut connection = self.connect().await?;
        let encrypted = connection.is_encrypted();
        let begun = connection.begin(self.letterhead.sender(), vec![]).await;
        begun.map_err(|failed| verdict(&self.server, failed, ""))?;
        connection.reset().await;
        connection.quit().await;
        Ok(Reached { encrypted })
    }

    async fn give(&self, envelope: &Envelope<'_>) -> Result<(), MailError> {
        let _slot = self.slot().await?;
        if let Some(mut connection) = self.used_before() {
            let given = connection.give(envelope).await;
            if !given.as_ref().is_err_and(is_of_the_connection) {
                return self.given(connection, envelope.to, given).await;
            }
            self.forget();
        }
        let mut connection = self.connect().await?;
        let given = connection.give(envelope).await;
        self.given(connection, envelope.to, given).await
    }

    /// Keeps the connection when the next mail can begin on it at once. A future that is dropped keeps none.
    async fn given(
        &self,
        mut connection: Connection,
        to: &Address,
        given: Result<(), Failed>,
    ) -> Result<(), MailError> {
        let as_new = match &given {
            Ok(()) => true,
            // Nothing of it was said yet.
            Err(Failed { trouble: Trouble::Unable(_), .. }) => true,
            Err(Failed { trouble: Trouble::Refused { .. }, .. }) => connection.reset().await,
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

    async fn connect(&self) -> Result<Connection, MailError> {
        self.server.connect().await.map_err(|failed| verdict(&self.server, failed, ""))
    }

    /// All are busy for so long only with a server that has no answer: no mail would fare better.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, MailError> {
        let busy = || MailError::DependencyDown(format!("{}: every connection waits for an answer", self.server));
        match tokio::time::timeout(self.within, self.slots.acquire()).await {
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
