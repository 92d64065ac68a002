//! A mailer in memory: it takes every mail and remembers it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::mailer::{Mail, MailError, Mailer, Sent};

/// The mails that were sent, in their order. Clones are the same mailer.
#[derive(Clone, Debug, Default)]
pub struct MemoryMailer(Arc<Mutex<Vec<Mail>>>);

impl MemoryMailer {
    /// Every mail so far, one that was sent twice twice.
    pub fn sent(&self) -> Vec<Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Mailer for MemoryMailer {
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mail.clone());
        Ok(Sent { message_id: mail.message_id.clone() })
    }
}
