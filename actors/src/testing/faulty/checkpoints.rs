//! Faults of checkpoints.

use async_trait::async_trait;

use super::{Faulty, Write, away};
use crate::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use crate::inbox::Term;

#[async_trait]
impl<P: Checkpoints + ?Sized + 'static> Checkpoints for Faulty<P> {
    /// Fails before it begins a term, or after it.
    async fn begin(&self) -> Result<Begun, CheckpointError> {
        self.fate.call().await?;
        let begun = self.inner.begin().await?;
        self.fate.call().await?;
        Ok(begun)
    }

    /// Nobody knows of some whether they are stored, or will be.
    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        self.fate.delay().await;
        match self.fate.write() {
            Write::Done => self.inner.save(term, checkpoint).await,
            Write::NotDone | Write::Lost => Err(away().into()),
            Write::DoneUnheard => {
                self.inner.save(term, checkpoint).await?;
                Err(away().into())
            }
            Write::DoneLater(after) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    inner.save(term, checkpoint).await
                });
                Err(away().into())
            }
        }
    }

    async fn release(&self, term: Term) -> Result<(), CheckpointError> {
        self.fate.call().await?;
        self.inner.release(term).await
    }
}
