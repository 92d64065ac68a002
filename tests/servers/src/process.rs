//! A process that does not outlive its owner.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for a server to serve.
const START_MAX: Duration = Duration::from_secs(120);

/// Longest wait for a process to stand still.
const STANDS_STILL_WITHIN: Duration = Duration::from_secs(10);

/// A server's process.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it. What it says is added to the file `log` of its folder.
    ///
    /// # Panics
    /// When there is no such program.
    pub(crate) fn spawn(command: &mut Command, folder: &TempDir) -> Self {
        let log =
            File::options().create(true).append(true).open(folder.path().join("log")).expect("a file for the log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        let program = command.get_program().to_owned();
        Self(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", Path::new(&program).display())))
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// When it has ended, or takes too long; with what it said.
    pub(crate) async fn until(&mut self, name: &str, folder: &TempDir, mut serves: impl AsyncFnMut() -> bool) {
        let until = Instant::now() + START_MAX;
        while !serves().await {
            assert!(Instant::now() < until, "{name} does not serve; its log:\n{}", said(folder));
            let ended = self.0.try_wait().expect("a child");
            assert!(ended.is_none(), "{name} ended before it served; its log:\n{}", said(folder));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }

    /// Sends it that signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.0.id())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name}");
    }

    /// It stands still (SIGSTOP), each of its threads: on a busy machine that is not so at once.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let until = Instant::now() + STANDS_STILL_WITHIN;
        while !self.stands_still() {
            assert!(Instant::now() < until, "it does not stand still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("its threads");
        threads.flatten().all(|thread| {
            // The state follows the name, in which anything may be. A thread that is gone is still.
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it said so far.
pub(crate) fn said(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}
