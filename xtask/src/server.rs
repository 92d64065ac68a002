//! A running program of this workspace, in a folder of its own, stopped when it is no longer needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::{Failure, succeeds};

/// What is before the operators' address in a docket's log.
const OPS: &str = "\"ops.address\":\"";
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);

/// How a program was built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// As for tests.
    Dev,
    /// `--release`.
    Release,
}

/// A folder that goes when its owner does.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one in the cache folder: on the disk on which things are kept, not in memory.
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        let folder = crate::tools::cache()?.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| Failure::new(name, format!("{}: {error}", folder.display())))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over lies in a cache.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that serves.
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    /// `http://ADDRESS:PORT`.
    pub(crate) url: String,
    /// The same of a docket's operators.
    pub(crate) ops: String,
}

impl Server {
    /// A docket that keeps its data in `folder`, or with a `mongodb_uri` there.
    pub(crate) fn docket(
        folder: &Path,
        profile: Profile,
        arguments: &[&str],
        mongodb_uri: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut command = built(profile, "docket")?;
        command
            .args(arguments)
            .env("MONGODB_URI", mongodb_uri.unwrap_or_default())
            .env("DOCKET__DATA__DIRECTORY", folder.join("data"))
            .env("DOCKET__HTTP__BIND", "127.0.0.1:0")
            .env("DOCKET__OPS__BIND", "127.0.0.1:0")
            .env("DOCKET__LOG__FORMAT", "json");
        Self::start("docket", folder, command, "\"http.address\":\"")
    }

    /// What answers as docket does, and keeps nothing.
    pub(crate) fn empty_handler(folder: &Path) -> Result<Self, Failure> {
        let command = built(Profile::Release, "examples/empty_handler")?;
        Self::start("empty_handler", folder, command, "listening on http://")
    }

    /// Starts it and waits until a line of its log names its address, after `mark`.
    fn start(name: &str, folder: &Path, mut command: Command, mark: &str) -> Result<Self, Failure> {
        let failure = |why: &dyn std::fmt::Display| Failure::new(format!("start of {name}"), why);
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| failure(&error))?;
        let output = file.try_clone().map_err(|error| failure(&error))?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(output).stderr(file);
        let child = command.spawn().map_err(|error| failure(&error))?;
        let mut server = Self { name: name.to_owned(), child, log, url: String::new(), ops: String::new() };
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            let said = server.log();
            if let Some(http) = address(&said, mark) {
                server.url = format!("http://{http}");
                server.ops = address(&said, OPS).map_or_else(String::new, |ops| format!("http://{ops}"));
                return Ok(server);
            }
            if !server.runs() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(failure(&format!("it names no address; its log:\n{}", server.log())))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it as an operator does, and waits until it has ended.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let what = format!("stop of {}", self.name);
        // The shell's own `kill`: a bare machine has no other.
        succeeds(Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]));
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Ok(Some(status)) if status.success() || self.name != "docket" => return Ok(()),
                Ok(Some(status)) => return Err(Failure::new(what, format!("{status}; its log:\n{}", self.log()))),
                Err(error) => return Err(Failure::new(what, error)),
            }
        }
        Err(Failure::new(what, format!("it still runs after {} s", STOP_MAX.as_secs())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a step before has built: it lies beside this program, in the target folder. (`cargo run` would find it too, but
/// waits for any other cargo that builds there.)
pub(crate) fn built(profile: Profile, program: &str) -> Result<Command, Failure> {
    let this = std::env::current_exe().map_err(|error| Failure::new("target folder", error))?;
    let target = this.ancestors().nth(2).unwrap_or(Path::new("target"));
    Ok(Command::new(
        target
            .join(match profile {
                Profile::Dev => "debug",
                Profile::Release => "release",
            })
            .join(program),
    ))
}

fn address<'a>(log: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = log.split_once(mark)?;
    // A line that is not whole yet may lack the end of the port.
    let (line, _) = rest.split_once('\n')?;
    line.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_whole_line() {
        let mark = "\"http.address\":\"";
        let line = "{\"message\":\"serving\",\"http.address\":\"127.0.0.1:4711\",\"ops.address\":\"127.0.0.1:4712\"}";
        assert_eq!(address(&format!("first\n{line}\n"), mark), Some("127.0.0.1:4711"));
        assert_eq!(address(&format!("first\n{line}\n"), OPS), Some("127.0.0.1:4712"));
        assert_eq!(address(line, mark), None);
        assert_eq!(address("first\n", mark), None);
    }
}
