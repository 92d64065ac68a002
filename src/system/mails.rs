//! Where the mails of a process go: to a mail server, or into a folder beside the data.

use std::sync::Arc;

use actors::mailer::Mailer;

use super::StartError;
use crate::config::{Config, millis};
use crate::mail::{Deadlines, MailFolder, SmtpMailer};
use crate::sqlite::DataDirectory;

/// The mailer that is configured. With a mail server nothing is written to the data folder.
///
/// # Errors
/// When it could never send a mail.
pub(super) fn mailer(config: &Config, directory: Option<&DataDirectory>) -> Result<Arc<dyn Mailer>, StartError> {
    if !config.notification.smtp_url.is_empty() {
        return Ok(Arc::new(by_smtp(config)?));
    }
    let from = &config.notification.from;
    let folder = match directory {
        Some(directory) => MailFolder::open(directory, from)?,
        None => MailFolder::shared(&config.data.directory, from)?,
    };
    Ok(Arc::new(folder))
}

/// The mail server that is configured.
///
/// # Errors
/// When it could never be given a mail.
pub(crate) fn by_smtp(config: &Config) -> Result<SmtpMailer, crate::mail::OpenError> {
    let notification = &config.notification;
    let deadlines = Deadlines {
        asked: millis(notification.smtp_timeout_ms),
        accepted: millis(notification.smtp_accept_timeout_ms),
    };
    SmtpMailer::open(&notification.smtp_url, &notification.from, notification.smtp_connections_max, deadlines)
}

/// Where mails go, for people, without anything secret.
pub(super) fn said(config: &Config) -> String {
    let notification = &config.notification;
    if notification.smtp_url.is_empty() {
        format!("files in {}", config.data.directory.join("mail").display())
    } else {
        format!("by {}, from {}", notification.smtp_url, notification.from)
    }
}
