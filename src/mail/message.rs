//! How a mail is written: as the same bytes whenever, and however, it is sent.

use std::time::{Duration, SystemTime};

use actors::clock::Timestamp;
use actors::mailer::{Mail, MailError};
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};
use lettre::{Address, Message};

use super::OpenError;

/// What all mails of docket have in common: their sender.
#[derive(Clone, Debug)]
pub(super) struct Letterhead {
    from: Mailbox,
}

impl Letterhead {
    /// With that sender (`notification.from`).
    ///
    /// # Errors
    /// When it is no address.
    pub(super) fn of(from: &str) -> Result<Self, OpenError> {
        match from.parse() {
            Ok(from) => Ok(Self { from }),
            Err(error) => Err(wrong_sender(from, &error)),
        }
    }

    /// The sender's address.
    pub(super) fn sender(&self) -> &Address {
        &self.from.email
    }

    /// The mail's `Message-ID`, whole. Its domain is the sender's: the same from whichever machine it is sent.
    pub(super) fn message_id(&self, mail: &Mail) -> String {
        format!("<{}@{}>", mail.message_id, self.from.email.domain())
    }

    /// The mail with its headers. lettre encodes each, so that none can break out of its line.
    ///
    /// # Errors
    /// [`MailError::Undeliverable`]: the reader's address is none.
    pub(super) fn write(&self, mail: &Mail) -> Result<Message, MailError> {
        let to = mail.to.parse().map_err(|error| MailError::Undeliverable(format!("not a mail address: {error}")))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&mail.subject)
            .date(system_time(mail.date))
            .message_id(Some(self.message_id(mail)))
            .header(CorrelationId(mail.correlation_id.clone()));
        let message = match &mail.traceparent {
            Some(traceparent) => message.header(TraceParent(traceparent.clone())),
            None => message,
        };
        // A boundary of its own would be random, and the same mail another one each time.
        let body = MultiPart::builder()
            .kind(MultiPartKind::Alternative)
            .boundary(format!("docket-{}", mail.message_id))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(mail.text.clone()))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(mail.html.clone()));
        message.multipart(body).map_err(|error| MailError::Undeliverable(error.to_string()))
    }
}

fn wrong_sender(from: &str, error: &lettre::address::AddressError) -> OpenError {
    OpenError::From { from: from.to_owned(), reason: error.to_string() }
}

fn system_time(moment: Timestamp) -> SystemTime {
    // The header has whole seconds from 1970 on.
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(moment.as_millis()).unwrap_or(0))
}

/// `X-Correlation-Id`.
#[derive(Clone)]
struct CorrelationId(String);

/// `traceparent`.
#[derive(Clone)]
struct TraceParent(String);

impl Header for CorrelationId {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("X-Correlation-Id")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

impl Header for TraceParent {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("traceparent")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}
