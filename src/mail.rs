//! Mails: the adapters of [`actors::mailer::Mailer`]. One hands them to a mail server, the other writes each as a file;
//! `notification.smtp_url` decides which. Both write a mail as the same bytes, with the same `Message-ID` at every
//! repetition.

pub mod files;
mod message;
pub mod smtp;
pub mod url;

use std::io;
use std::path::PathBuf;

pub use files::MailFolder;
pub use smtp::{Deadlines, Reached, SmtpMailer};
pub use url::SmtpUrl;

/// Why no mail can be sent, now or later.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `notification.from` is no address.
    #[error("notification.from = {from:?} is no mail address such as orders@example.com: {reason}")]
    From {
        /// The value.
        from: String,
        /// Why not.
        reason: String,
    },
    /// The folder for mails cannot be made.
    #[error("{} cannot be made: {source}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address of the mail server is none.
    #[error("notification.smtp_url: {0}")]
    Url(String),
    /// Connections cannot be encrypted.
    #[error("notification.smtp_url: TLS cannot be used on this machine: {0}")]
    Tls(String),
}
