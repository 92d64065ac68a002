//! The mail server: whether it is there, lets docket in, and would take mails from its sender. It is given none.

use actors::mailer::MailError;

use super::{Finding, bad, good, warning};
use crate::config::Config;
use crate::mail::{OpenError, Reached};
use crate::system::by_smtp;

const URL: &str = "notification.smtp_url";

pub(super) async fn look(config: &Config) -> Finding {
    let mailer = match by_smtp(config) {
        Ok(mailer) => mailer,
        Err(error @ OpenError::From { .. }) => return bad("notification.from", error.to_string()),
        Err(error @ (OpenError::Url(_) | OpenError::Tls(_) | OpenError::Folder { .. })) => {
            return bad(URL, error.to_string());
        }
    };
    let (url, from) = (&config.notification.smtp_url, &config.notification.from);
    match mailer.reach().await {
        Ok(Reached { encrypted: true }) => good(URL, format!("{url} takes mails from {from}, encrypted")),
        Ok(Reached { encrypted: false }) => warning(URL, format!("{url} takes mails from {from}, not encrypted")),
        Err(MailError::DependencyDown(why) | MailError::Transient(why) | MailError::Undeliverable(why)) => {
            bad(URL, why)
        }
    }
}
