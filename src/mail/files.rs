//! Mails as files: each a `.eml` file in `mail/` of the data folder, which any mail program opens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use actors::mailer::{Mail, MailError, Mailer, Sent};
use async_trait::async_trait;
use uuid::Uuid;

use super::OpenError;
use super::message::Letterhead;
use crate::sqlite::DataDirectory;

/// The folder that mails are written to.
///
/// A mail is in it once it is on disk, whole. The file's name follows from the mail, and so does every byte in it: sent
/// again, it takes its own place.
#[derive(Debug)]
pub struct MailFolder {
    folder: Arc<Folder>,
    letterhead: Letterhead,
}

/// How the name of a file ends that is being written. One that a crash left is removed at a later start.
const UNFINISHED: &str = ".unfinished";
/// In a shared folder a file may be another process's work, as long as it is not older than any attempt takes.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Nobody else's, so that no two processes begin the same file.
    writer: String,
    /// Files that were begun: an attempt that was given up may still be writing when the next one writes the same mail.
    begun: AtomicU64,
    /// Files that have their name.
    named: AtomicU64,
    /// How many of those names are on disk.
    synced: Mutex<u64>,
}

impl MailFolder {
    /// The folder in that data folder, made when it is absent; `from` is the sender of every mail.
    ///
    /// # Errors
    /// When `from` is no address, or the folder cannot be made.
    pub fn open(directory: &DataDirectory, from: &str) -> Result<Self, OpenError> {
        Self::open_in(directory.path(), from, Duration::ZERO)
    }

    /// The same in a data folder that other processes may use as well: the same mail of two of them is one file.
    ///
    /// # Errors
    /// When `from` is no address, or the folder cannot be made.
    pub fn shared(data: &Path, from: &str) -> Result<Self, OpenError> {
        Self::open_in(data, from, ABANDONED_AFTER)
    }

    fn open_in(data: &Path, from: &str, abandoned_after: Duration) -> Result<Self, OpenError> {
        let letterhead = Letterhead::of(from)?;
        let folder = Folder {
            path: data.join("mail"),
            writer: Uuid::now_v7().simple().to_string(),
            begun: AtomicU64::new(0),
            named: AtomicU64::new(0),
            synced: Mutex::new(0),
        };
        let opened = folder.make().and_then(|()| folder.tidy_up(abandoned_after));
        opened.map_err(|source| OpenError::Folder { path: folder.path.clone(), source })?;
        Ok(Self { folder: Arc::new(folder), letterhead })
    }
}

impl Folder {
    /// Makes the folder when it is absent, so that it is there after a crash.
    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.path)?;
        self.path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Removes what was begun so long ago and not finished.
    fn tidy_up(&self, abandoned_after: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let unfinished = name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(UNFINISHED);
            if unfinished && (abandoned_after.is_zero() || age(&entry)? >= abandoned_after) {
                ignore_absent(fs::remove_file(self.path.join(name)))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Somebody may have tidied up.
        self.make()?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.path.join(format!(".{name}.{}.{number}{UNFINISHED}", self.writer));
        let written = write_durably(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, self.path.join(name)));
        if let Err(error) = written {
            // It takes room that may be what is missing.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        self.sync_name()
    }

    /// A name is on disk only with its folder. Those who name files at the same time have it synced once for all.
    fn sync_name(&self) -> io::Result<()> {
        let mine = self.named.fetch_add(1, Ordering::SeqCst) + 1;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced < mine {
            let named = self.named.load(Ordering::SeqCst);
            File::open(&self.path)?.sync_all()?;
            *synced = named;
        }
        Ok(())
    }
}

/// Since it was last written. One that is gone meanwhile is not old.
fn age(entry: &fs::DirEntry) -> io::Result<Duration> {
    let written = match entry.metadata().and_then(|metadata| metadata.modified()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Duration::ZERO),
        written => written?,
    };
    Ok(SystemTime::now().duration_since(written).unwrap_or_default())
}

/// Another process may have been faster.
fn ignore_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[async_trait]
impl Mailer for MailFolder {
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        let message = self.letterhead.write(mail)?;
        let message_id = self.letterhead.message_id(mail);
        let (folder, name) = (self.folder.clone(), file_name(mail));
        let written = tokio::task::spawn_blocking(move || folder.write(&name, &message.formatted())).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        // A full disk, a folder that is gone: no other mail would fare better.
        written.map_err(|error| MailError::DependencyDown(format!("{}: {error}", self.folder.path.display())))?;
        Ok(Sent { message_id })
    }
}

/// Sorted by time when listed, and the same whenever the mail is sent.
fn file_name(mail: &Mail) -> String {
    let id = mail.message_id.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_");
    format!("{}-{id}.eml", mail.date.to_string().replace(':', "-"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn mail() -> Mail {
        Mail {
            message_id: "01a208b6-8cf1-75a1-b290-22c358a649f8.0011223344556677".to_owned(),
            to: "ana@example.com".to_owned(),
            subject: "Your order".to_owned(),
            date: "2026-11-23T08:00:00.000Z".parse().unwrap(),
            text: "Thank you, Ána.\n".to_owned(),
            html: "<p>Thank you, Ána.</p>\n".to_owned(),
            correlation_id: "c-1".to_owned(),
            traceparent: None,
        }
    }

    fn folder() -> (tempfile::TempDir, MailFolder) {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::lock(directory.path()).unwrap();
        let folder = MailFolder::open(&data, "docket <orders@shop.example>").unwrap();
        (directory, folder)
    }

    fn files(folder: &MailFolder) -> Vec<PathBuf> {
        fs::read_dir(&folder.folder.path).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn a_mail_sent_twice_is_one_file_with_the_same_bytes() {
        let (_directory, folder) = folder();
        let sent = folder.send(&mail()).await.unwrap();
        assert_eq!(sent.message_id, format!("<{}@shop.example>", mail().message_id));
        let first = fs::read(&files(&folder)[0]).unwrap();
        folder.send(&mail()).await.unwrap();
        assert_eq!(files(&folder).len(), 1);
        assert_eq!(fs::read(&files(&folder)[0]).unwrap(), first);
        let text = String::from_utf8(first).unwrap();
        for line in ["X-Correlation-Id: c-1", "Date: Mon, 23 Nov 2026 08:00:00 +0000", "To: ana@example.com"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test]
    async fn nothing_in_a_mail_can_add_a_header_or_leave_the_folder() {
        let (_directory, folder) = folder();
        let evil = Mail {
            subject: "hi\r\nBcc: all@example.com".to_owned(),
            correlation_id: "x\r\nBcc: all@example.com".to_owned(),
            message_id: "../../evil".to_owned(),
            ..mail()
        };
        folder.send(&evil).await.unwrap();
        let text = fs::read_to_string(&files(&folder)[0]).unwrap();
        assert!(!text.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{text}");
        let no_address = Mail { to: "nobody\r\nBcc: all@example.com".to_owned(), ..mail() };
        assert!(matches!(folder.send(&no_address).await, Err(MailError::Undeliverable(_))));
    }

    #[test]
    fn a_mail_that_two_attempts_write_at_once_is_whole_at_any_time() {
        let (_directory, folder) = folder();
        let bytes = vec![b'x'; 1 << 20];
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..25).try_for_each(|_| folder.folder.write("a.eml", &bytes))))
                .collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                if let Ok(read) = fs::read(folder.folder.path.join("a.eml")) {
                    assert_eq!(read.len(), bytes.len(), "half a mail");
                }
            }
            for writer in writers {
                writer.join().unwrap().unwrap();
            }
        });
        assert_eq!(files(&folder).len(), 1);
    }

    #[tokio::test]
    async fn what_a_crash_left_unfinished_is_gone_after_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::lock(directory.path()).unwrap();
        let folder = MailFolder::open(&data, "orders@shop.example").unwrap();
        folder.send(&mail()).await.unwrap();
        fs::write(folder.folder.path.join(".b.eml.7.unfinished"), "half").unwrap();
        let folder = MailFolder::open(&data, "orders@shop.example").unwrap();
        assert_eq!(files(&folder).len(), 1);
    }

    #[tokio::test]
    async fn of_two_processes_in_one_folder_none_removes_what_the_other_writes() {
        let directory = tempfile::tempdir().unwrap();
        let first = MailFolder::shared(directory.path(), "orders@shop.example").unwrap();
        let (recent, old) =
            (first.folder.path.join(".a.eml.1.unfinished"), first.folder.path.join(".b.eml.1.unfinished"));
        fs::write(&recent, "half").unwrap();
        fs::write(&old, "half").unwrap();
        let long_ago = SystemTime::now() - 2 * ABANDONED_AFTER;
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();

        let second = MailFolder::shared(directory.path(), "orders@shop.example").unwrap();
        assert_eq!(files(&second), [recent]);
        assert_ne!(first.folder.writer, second.folder.writer);
        first.send(&mail()).await.unwrap();
        second.send(&mail()).await.unwrap();
        assert_eq!(files(&second).len(), 2);
    }

    #[tokio::test]
    async fn a_folder_that_somebody_removed_is_made_again() {
        let (_directory, folder) = folder();
        fs::remove_dir_all(&folder.folder.path).unwrap();
        folder.send(&mail()).await.unwrap();
        assert_eq!(files(&folder).len(), 1);
    }

    #[test]
    fn a_sender_that_is_no_address_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::lock(directory.path()).unwrap();
        assert!(matches!(MailFolder::open(&data, "nobody"), Err(OpenError::From { .. })));
    }
}
