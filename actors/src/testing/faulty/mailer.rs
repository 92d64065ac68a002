//! Faults around a mailer.

use async_trait::async_trait;

use super::{Faulty, Write};
use crate::mailer::{Mail, MailError, Mailer, Sent};

#[async_trait]
impl<P: Mailer + ?Sized + 'static> Mailer for Faulty<P> {
    /// A mail whose outcome is unknown was taken or not, and the sender cannot tell: a transient failure.
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        self.fate.delay().await;
        let transient = || MailError::Transient("a fault on purpose".to_owned());
        match self.fate.write() {
            Write::Done => self.inner.send(mail).await,
            Write::NotDone => Err(MailError::DependencyDown("a fault on purpose".to_owned())),
            Write::DoneUnheard => {
                self.inner.send(mail).await?;
                Err(transient())
            }
            Write::DoneLater(_) | Write::Lost => Err(transient()),
        }
    }
}
