//! The scan of the log: it brings all commits, order by order. Where the next order begins the one before it has ended,
//! and a lane that knows more of it than there is has met an older log.

use std::sync::Arc;

use super::queue::{Mark, Queue, Source};
use crate::commit::Commit;
use crate::inbox::Progress;
use crate::order::{OrderId, Version};

/// Where the scan stands.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The order that it met last, as far as that is known, with what may still come of it.
    open: Option<(OrderId, Version)>,
}

impl Scan {
    /// One that an earlier life began goes on.
    pub(super) fn resumed(progress: Option<&Progress>) -> Self {
        let after = progress.and_then(|progress| progress.catching_up).and_then(|catching_up| catching_up.after);
        // How far that commit reached is forgotten: its lane looks for itself.
        Self { open: after.map(|key| (key.order, Version::NONE)) }
    }

    /// It brought these commits.
    pub(super) fn brought(&mut self, commits: &[Arc<Commit>], queue: &mut Queue) {
        for commits in commits.chunk_by(|one, other| one.order() == other.order()) {
            let Some(last) = commits.last() else { continue };
            if self.open.is_some_and(|(order, _)| order != last.order()) {
                self.end(queue);
            }
            self.open = Some((last.order(), last.last()));
            queue.push_commits(commits, Source::Scan);
        }
        if let Some(last) = commits.last() {
            queue.mark(Mark::Scanned(last.key()));
        }
    }

    /// It has met everything.
    pub(super) fn ended(&mut self, queue: &mut Queue) {
        self.end(queue);
        queue.mark(Mark::ScanEnded);
    }

    fn end(&mut self, queue: &mut Queue) {
        if let Some((order, last)) = self.open.take() {
            queue.push_end(order, last);
        }
    }
}
