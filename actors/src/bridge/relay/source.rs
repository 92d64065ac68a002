//! What is published, batch by batch: the log as it grows, and after a lost position first what a scan of it finds.

use std::sync::Arc;

use crate::broker::Message;
use crate::clock::Timestamp;
use crate::commit::{Commit, CommitKey};
use crate::event::Envelope;
use crate::log::{Follow, Log, LogError, Position};

/// Commits that are taken from the log at once.
const COMMITS_AT_ONCE: usize = 256;

/// Where batches come from.
pub(super) struct Source {
    follow: Box<dyn Follow>,
    scan: Option<Scan>,
}

struct Scan {
    log: Arc<dyn Log>,
    after: Option<CommitKey>,
    since: Timestamp,
}

/// Events in the order in which they are published.
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    /// The place behind them; `None` while a scan has not met everything.
    pub(super) position: Option<Position>,
    /// When the oldest and the newest of them were recorded.
    pub(super) recorded: Option<(Timestamp, Timestamp)>,
}

impl Source {
    /// What this log gives.
    pub(super) fn following(follow: Box<dyn Follow>) -> Self {
        Self { follow, scan: None }
    }

    /// First everything in the log that was recorded at that moment or later. `follow` was opened before, so that both
    /// together miss nothing.
    pub(super) fn scanning(follow: Box<dyn Follow>, log: Arc<dyn Log>, since: Timestamp) -> Self {
        Self { follow, scan: Some(Scan { log, after: None, since }) }
    }

    /// The next batch, when there is one. It may be empty: then only the place has moved.
    pub(super) async fn next(&mut self) -> Result<Batch, LogError> {
        let Some(scan) = &mut self.scan else {
            let commits = self.follow.next(COMMITS_AT_ONCE).await?;
            return Ok(Batch::of(&commits, Some(self.follow.position())));
        };
        let commits = scan.log.scan(scan.after, COMMITS_AT_ONCE).await?;
        let Some(last) = commits.last() else {
            tracing::info!("the whole log was scanned: the relay goes on from its end");
            self.scan = None;
            return Ok(Batch::of(&[], Some(self.follow.position())));
        };
        scan.after = Some(last.key());
        let wanted: Vec<_> = commits.into_iter().filter(|commit| commit.recorded_at() >= scan.since).collect();
        Ok(Batch::of(&wanted, None))
    }
}

impl Batch {
    fn of(commits: &[Arc<Commit>], position: Option<Position>) -> Self {
        let messages = commits.iter().flat_map(|commit| commit.envelopes()).filter_map(message).collect();
        let moments = || commits.iter().map(|commit| commit.recorded_at());
        Self { messages, position, recorded: moments().min().zip(moments().max()) }
    }
}

/// What cannot be written as JSON cannot be sent; subscribers get it from the log.
fn message(event: Envelope) -> Option<Message> {
    let unwritable = |error: &serde_json::Error| tracing::error!(event.id = %event.id, %error, "an event is not sent");
    Message::of(&event).inspect_err(unwritable).ok()
}
