//! Reading an order from its stored events, from its snapshot on when there is a good one.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::stream::{Rules, Stream, Unreadable};
use super::{OrderId, Version};
use crate::commit::Commit;
use crate::event_store::{EventStore, StoreError};
use crate::snapshots::Snapshots;
use crate::supervisor::child::Handle;

/// Commits read at a time: no read outlives what a store can give quickly.
const PAGE: usize = 256;

/// What reading an order needs.
#[derive(Clone)]
pub(super) struct Loader {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) snapshots: Arc<dyn Snapshots>,
    pub(super) rules: Rules,
    /// So many orders are read at a time, however many are asked for at once.
    pub(super) permits: Arc<Semaphore>,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) stream: Stream,
    /// The version of the snapshot it began with.
    pub(super) snapshot: Version,
}

#[derive(Debug)]
pub(super) enum NotLoaded {
    Store(StoreError),
    SchemaAhead(String),
    Poisonous(String),
}

impl From<StoreError> for NotLoaded {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unreadable> for NotLoaded {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::SchemaAhead { .. } => Self::SchemaAhead(error.to_string()),
            Unreadable::Poisonous { .. } => Self::Poisonous(error.to_string()),
        }
    }
}

pub(super) async fn load(
    order: OrderId,
    loader: Loader,
    trust_snapshots: bool,
    child: Handle,
) -> Result<Loaded, NotLoaded> {
    // The semaphore is never closed; should it be, reading goes on unbounded rather than not at all.
    let _permit = loader.permits.acquire().await.ok();
    // Only now: who waits for a permit is not stuck.
    let _handling = child.handling("load");
    if trust_snapshots && let Some(loaded) = from_snapshot(order, &loader).await? {
        return Ok(loaded);
    }
    let mut stream = Stream::nothing(order);
    read_on(&mut stream, &loader).await?;
    Ok(Loaded { stream, snapshot: Version::NONE })
}

/// `None` when there is no snapshot that fits what is stored.
async fn from_snapshot(order: OrderId, loader: &Loader) -> Result<Option<Loaded>, NotLoaded> {
    // A snapshot is never needed: what goes wrong with one is no error.
    let Some(snapshot) = loader.snapshots.load(order).await.ok().flatten() else { return Ok(None) };
    let Some(mut stream) = Stream::from_snapshot(&snapshot).filter(|stream| stream.end().order() == order) else {
        return Ok(None);
    };
    let version = stream.end().version();
    let commits = loader.store.read(order, version, 1).await?;
    if !commits.first().is_some_and(|commit| snapshot.is_at_end_of(commit)) {
        tracing::warn!(order.id = %order, %version, "a snapshot names a commit that is not stored; it is ignored");
        return Ok(None);
    }
    read_on(&mut stream, loader).await?;
    Ok(Some(Loaded { stream, snapshot: version }))
}

/// Takes in everything behind the stream's end.
async fn read_on(stream: &mut Stream, loader: &Loader) -> Result<(), NotLoaded> {
    loop {
        let next = stream.end().next_key();
        let page: Vec<Arc<Commit>> = loader.store.read(next.order, next.first, PAGE).await?;
        // Beyond the end a store gives the last commit: the one that is nearest below.
        let fresh = page.iter().filter(|commit| commit.first() >= next.first);
        let mut read = 0;
        for commit in fresh {
            stream.extend(commit, loader.rules)?;
            read += 1;
        }
        // A page may be short before the end, too.
        if read == 0 {
            return Ok(());
        }
    }
}
