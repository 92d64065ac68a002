//! Copies the write-ahead log to the file, on a thread and a connection of its own so that no writer waits for it.
//! What it does not get done is no loss, only a longer log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;

use super::gate::Gate;
use super::{Checkpoint, Durability, checkpoint, open_writer};

/// From how many pages (of 4 KiB) on the log is copied: 4 MiB.
const PAGES_WORTH_COPYING: i64 = 1 << 10;
/// From how many pages on nobody else may use the file until it is copied: 64 MiB.
const PAGES_MAX: i64 = 16 << 10;
/// How many may be left to copy while nobody else may use the file: 8 MiB, unless that is never reached.
const PAGES_COPIED_ALONE: i64 = 2 << 10;
/// How often it is tried to get down to that.
const ROUNDS_MAX: usize = 4;
/// How long it rests after an error.
const REST: Duration = Duration::from_secs(1);

/// Starts the thread. It looks at the log whenever it is told to, and ends when nobody can tell it any more.
pub(super) fn start(path: PathBuf, gate: Arc<Gate>) -> std::io::Result<SyncSender<()>> {
    let (nudge, nudged) = sync_channel(1);
    let checkpointer = Checkpointer { path, gate, connection: None };
    std::thread::Builder::new().name("checkpointer".to_owned()).spawn(move || checkpointer.run(&nudged))?;
    Ok(nudge)
}

struct Checkpointer {
    path: PathBuf,
    gate: Arc<Gate>,
    connection: Option<Connection>,
}

impl Checkpointer {
    fn run(mut self, nudged: &Receiver<()>) {
        while nudged.recv().is_ok() {
            if let Err(error) = self.look() {
                tracing::warn!(%error, path = %self.path.display(), "the write-ahead log could not be copied");
                self.connection = None;
                std::thread::sleep(REST);
            }
        }
    }

    fn look(&mut self) -> rusqlite::Result<()> {
        let _turn = self.gate.turn();
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_writer(&self.path, Durability::EveryCommit)?,
        };
        let connection = self.connection.insert(connection);
        let mut wal = checkpoint(connection, Checkpoint::Look)?;
        if wal.pages < PAGES_WORTH_COPYING || wal.copied == wal.pages {
            return Ok(());
        }
        for _ in 0..ROUNDS_MAX {
            wal = checkpoint(connection, Checkpoint::Passive)?;
            if wal.pages < PAGES_MAX {
                return Ok(());
            }
            if wal.pages - wal.copied < PAGES_COPIED_ALONE {
                break;
            }
        }
        let _alone = self.gate.close();
        checkpoint(connection, Checkpoint::Truncate)?;
        Ok(())
    }
}
