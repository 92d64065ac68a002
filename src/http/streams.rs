//! Answers that have no end: how many of them an address gives at once, and that they end with it.

use std::sync::Arc;
use std::time::Duration;

use actors::order::error::NotDone;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::not_done;
use super::problem::Problem;

/// When it is worth asking again for a place.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// All streams of an address.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Streams {
    /// At most so many.
    pub(super) fn new(max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), closing: watch::Sender::new(false) }
    }

    /// Ends all of them, each after a whole line.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when they end.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// A place for one more.
    ///
    /// # Errors
    /// 503 `overloaded` when there is none.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| not_done(NotDone::Overloaded).retry_after(RETRY_AFTER))
    }
}
