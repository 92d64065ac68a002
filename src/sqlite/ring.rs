//! The newest commits in memory, for those who follow in real time: they read no row and decode nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::commit::Commit;

use super::readers::Stored;

/// Most commits kept.
const COMMITS_MAX: usize = 4_096;
/// Most bytes of commits kept, as stored.
const BYTES_MAX: usize = 16 << 20;

/// All durable commits behind a position, in the order of their rows.
#[derive(Debug)]
pub(super) struct Ring {
    after: i64,
    commits: VecDeque<Stored>,
    bytes: usize,
}

impl Ring {
    /// Of a log whose last row is `position`.
    pub(super) fn behind(position: i64) -> Self {
        Self { after: position, commits: VecDeque::new(), bytes: 0 }
    }

    /// Adds the next durable commit.
    pub(super) fn push(&mut self, position: i64, commit: Arc<Commit>) {
        self.bytes += commit.encoded().len();
        self.commits.push_back((position, commit));
        while self.commits.len() > COMMITS_MAX || self.bytes > BYTES_MAX {
            let Some((position, commit)) = self.commits.pop_front() else { break };
            self.after = position;
            self.bytes -= commit.encoded().len();
        }
    }

    /// The next `max` commits behind `position`; `None` when the ring does not reach back that far.
    pub(super) fn behind_position(&self, position: i64, max: usize) -> Option<Vec<Stored>> {
        if position < self.after {
            return None;
        }
        let first = self.commits.partition_point(|(stored, _)| *stored <= position);
        Some(self.commits.iter().skip(first).take(max).cloned().collect())
    }
}
