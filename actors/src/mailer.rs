//! The mailer port: hands a mail to whatever brings it to its reader.

use async_trait::async_trait;

use crate::clock::Timestamp;

/// Sends mails. Adapters: `src/mail/files.rs`, `src/mail/smtp.rs`.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Sends a mail. Once it answers, whoever takes mails has taken this one and keeps it over a crash. Sent again, the
    /// same mail has the same [`Mail::message_id`], by which a receiver recognises it.
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError>;
}

/// A mail, ready to be sent. No field can hold a header of its own: adapters encode each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Which mail, for ever, without the brackets and the domain: `event id.recipient's hash`.
    pub message_id: String,
    /// The reader's address.
    pub to: String,
    /// The subject line.
    pub subject: String,
    /// When that happened of which the mail tells: the `Date` header.
    pub date: Timestamp,
    /// The body as plain text.
    pub text: String,
    /// The body as HTML.
    pub html: String,
    /// The header `X-Correlation-Id`: the same for everything that one request set off.
    pub correlation_id: String,
    /// The header `traceparent`, when the request had one.
    pub traceparent: Option<String>,
}

/// A mail was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its `Message-ID`, whole.
    pub message_id: String,
}

/// Why a mail was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Not this time.
    #[error("not this time: {0}")]
    Transient(String),
    /// Never: the address is refused or is none. A final answer.
    #[error("undeliverable: {0}")]
    Undeliverable(String),
    /// No mail can be sent now.
    #[error("no mail can be sent now: {0}")]
    DependencyDown(String),
}
