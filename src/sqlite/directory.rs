//! The data folder and its lock: one process a folder. The lock is the operating system's, so it ends with the process
//! however that ends; the file that carries it stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data folder that this process alone uses, for as long as a clone of this value lives.
#[derive(Clone, Debug)]
pub struct DataDirectory(Arc<Locked>);

#[derive(Debug)]
struct Locked {
    path: PathBuf,
    /// Held, not read: closing it releases the lock.
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process uses it.
    #[error("the data folder {} is in use by another docket (pid {pid})", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
        /// Which process, as far as it said.
        pid: String,
    },
    /// It cannot be made or written.
    #[error("the data folder {} cannot be used: {source}", path.display())]
    Io {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataDirectory {
    /// Makes the folder when it is absent and locks it.
    ///
    /// # Errors
    /// When another process holds it, or the folder cannot be made or written.
    pub fn lock(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        make(path).map_err(failed)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("docket.lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::InUse { path: path.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The pid is only there to be read by a person: a full disk must not keep docket from starting to read.
        if let Err(error) = write_pid(&mut file) {
            tracing::warn!(%error, path = %path.display(), "the pid could not be written to docket.lock");
        }
        Ok(Self(Arc::new(Locked { path: path.to_owned(), _lock: file })))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

/// Makes the folder so that it is still there after a loss of power, as its files will be.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    let parent = path.canonicalize()?;
    parent.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    match file.take(20).read_to_string(&mut pid) {
        Ok(read) if read > 0 => pid.trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_by_name_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/of/orders");
        let first = DataDirectory::lock(&path).expect("free");
        let shared = first.clone();
        drop(first);
        let refused = DataDirectory::lock(&path).expect_err("in use").to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        drop(shared);
        DataDirectory::lock(&path).expect("free again");
    }
}
