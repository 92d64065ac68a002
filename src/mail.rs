//! Mails as files: each a `.eml` file in `mail/` of the data folder, which any mail program opens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use actors::clock::Timestamp;
use actors::mailer::{Mail, MailError, Mailer, Sent};
use async_trait::async_trait;
use lettre::Message;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};

use crate::sqlite::DataDirectory;

/// The folder that mails are written to.
///
/// A mail is in it once it is on disk, whole. The file's name follows from the mail, and so does every byte in it: sent
/// again, it takes its own place.
#[derive(Debug)]
pub struct MailFolder {
    path: PathBuf,
    from: Mailbox,
}

/// Why mails cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MailFolderError {
    /// `notification.from` is no address.
    #[error("notification.from = {from:?} is no mail address such as orders@example.com: {reason}")]
    From {
        /// The value.
        from: String,
        /// Why not.
        reason: String,
    },
    /// The folder cannot be made.
    #[error("{} cannot be made: {source}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MailFolder {
    /// The folder in that data folder, made when it is absent; `from` is the sender of every mail.
    ///
    /// # Errors
    /// When `from` is no address, or the folder cannot be made.
    pub fn open(directory: &DataDirectory, from: &str) -> Result<Self, MailFolderError> {
        let mailbox = from.parse().map_err(|error: lettre::address::AddressError| MailFolderError::From {
            from: from.to_owned(),
            reason: error.to_string(),
        })?;
        let path = directory.file("mail");
        fs::create_dir_all(&path).map_err(|source| MailFolderError::Folder { path: path.clone(), source })?;
        Ok(Self { path, from: mailbox })
    }
}

#[async_trait]
impl Mailer for MailFolder {
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        let message_id = format!("<{}@{}>", mail.message_id, self.from.email.domain());
        let message = message(&self.from, &message_id, mail)?;
        let (folder, name) = (self.path.clone(), file_name(mail));
        let written = tokio::task::spawn_blocking(move || write(&folder, &name, &message.formatted())).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        // A full disk, a folder that is gone: no other mail would fare better.
        written.map_err(|error| MailError::DependencyDown(format!("{}: {error}", self.path.display())))?;
        Ok(Sent { message_id })
    }
}

/// The mail with its headers. lettre encodes each, so that none can break out of its line.
pub(crate) fn message(from: &Mailbox, message_id: &str, mail: &Mail) -> Result<Message, MailError> {
    let to = mail.to.parse().map_err(|error| MailError::Undeliverable(format!("not a mail address: {error}")))?;
    let message = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(&mail.subject)
        .date(system_time(mail.date))
        .message_id(Some(message_id.to_owned()))
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

/// Sorted by time when listed, and the same whenever the mail is sent.
fn file_name(mail: &Mail) -> String {
    let id = mail.message_id.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_");
    format!("{}-{id}.eml", mail.date.to_string().replace(':', "-"))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // Somebody may have tidied up.
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    // The name is on disk only with its folder.
    File::open(folder)?.sync_all()
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn mail() -> Mail {
        Mail {
            message_id: "01a208b6-8cf1-75a1-b290-22c358a649f8.0011223344556677".to_owned(),
            to: "ana@example.com".to_owned(),
            subject: "Your order".to_owned(),
            date: "2026-11-23T08:00:00.000Z".parse().unwrap(),
            text: "Thank you, Ána.\n".to_owned(),
            html: "<p>Thank you, Ána.</p>\n".to_owned(),
            correlation_id: "c-1".to_owned(),
            traceparent: None,
        }
    }

    fn folder() -> (tempfile::TempDir, MailFolder) {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::lock(directory.path()).unwrap();
        let folder = MailFolder::open(&data, "docket <orders@shop.example>").unwrap();
        (directory, folder)
    }

    fn files(folder: &MailFolder) -> Vec<PathBuf> {
        fs::read_dir(&folder.path).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn a_mail_sent_twice_is_one_file_with_the_same_bytes() {
        let (_directory, folder) = folder();
        let sent = folder.send(&mail()).await.unwrap();
        assert_eq!(sent.message_id, format!("<{}@shop.example>", mail().message_id));
        let first = fs::read(&files(&folder)[0]).unwrap();
        folder.send(&mail()).await.unwrap();
        assert_eq!(files(&folder).len(), 1);
        assert_eq!(fs::read(&files(&folder)[0]).unwrap(), first);
        let text = String::from_utf8(first).unwrap();
        for line in ["X-Correlation-Id: c-1", "Date: Mon, 23 Nov 2026 08:00:00 +0000", "To: ana@example.com"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test]
    async fn nothing_in_a_mail_can_add_a_header_or_leave_the_folder() {
        let (_directory, folder) = folder();
        let evil = Mail {
            subject: "hi\r\nBcc: all@example.com".to_owned(),
            correlation_id: "x\r\nBcc: all@example.com".to_owned(),
            message_id: "../../evil".to_owned(),
            ..mail()
        };
        folder.send(&evil).await.unwrap();
        let text = fs::read_to_string(&files(&folder)[0]).unwrap();
        assert!(!text.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{text}");
        let no_address = Mail { to: "nobody\r\nBcc: all@example.com".to_owned(), ..mail() };
        assert!(matches!(folder.send(&no_address).await, Err(MailError::Undeliverable(_))));
    }

    #[test]
    fn a_sender_that_is_no_address_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::lock(directory.path()).unwrap();
        assert!(matches!(MailFolder::open(&data, "nobody"), Err(MailFolderError::From { .. })));
    }
}
