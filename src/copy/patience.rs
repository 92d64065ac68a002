//! How long to wait for MongoDB when it goes away in the middle.

use std::time::Duration;

use actors::event_store::StoreError;
use tokio::time::Instant;

use super::CopyError;

/// Tries again, with waits that grow, and gives up after a while.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// For how long what fails is tried again.
    pub give_up_after: Duration,
}

impl Default for Patience {
    /// Long enough for an election and for the restart of a server.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            give_up_after: Duration::from_secs(120),
        }
    }
}

impl Patience {
    /// Does it until it is done, or fails with something that waiting does not mend. It may be done more than once.
    pub(super) async fn done<T>(self, mut attempt: impl AsyncFnMut() -> Result<T, StoreError>) -> Result<T, CopyError> {
        let begun = Instant::now();
        let mut wait = self.first;
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(StoreError::Away(why)) if begun.elapsed() + wait > self.give_up_after => {
                    return Err(CopyError::Away(why));
                }
                Err(StoreError::Away(_)) => tokio::time::sleep(wait).await,
                Err(StoreError::Full(why)) => return Err(CopyError::Full(why)),
                Err(StoreError::Damaged(why)) => return Err(CopyError::Differs(why)),
            }
            wait = (wait * 2).min(self.longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_away_for_a_while_is_waited_for_and_for_longer_is_not() {
        let patience = Patience::default();
        let begun = Instant::now();
        let back = patience
            .done(async || match begun.elapsed() > Duration::from_secs(60) {
                true => Ok("back"),
                false => Err(StoreError::Away("down".to_owned())),
            })
            .await;
        assert_eq!(back.expect("in time"), "back");
        let begun = Instant::now();
        let never = patience.done(async || Err::<(), _>(StoreError::Away("down".to_owned()))).await;
        assert!(matches!(never, Err(CopyError::Away(why)) if why == "down"));
        assert!(begun.elapsed() <= patience.give_up_after && begun.elapsed() > Duration::from_secs(100));
    }
}
