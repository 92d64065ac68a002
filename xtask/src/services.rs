//! The servers that tests share, on ports and in folders of their own. They end with whoever started them, however that
//! ends: a shell beside them waits for the end of a pipe, stops them then, and removes what they kept.

#[path = "../../tests/servers/src/mongod.rs"]
mod mongod;
#[path = "../../tests/servers/src/port.rs"]
mod port;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::Failure;
use crate::tools;
use mongod::Options;
use port::Port;

/// Names the MongoDB that tests share. Set: that one is used, and none is started.
const MONGODB_URI: &str = "DOCKET_TEST_MONGODB_URI";
/// The program of which tests start servers of their own, to kill and freeze them.
const MONGODB_PROGRAM: &str = "DOCKET_TEST_MONGODB_PROGRAM";

const START_MAX: Duration = Duration::from_secs(60);

/// Runs a server (all arguments but the first) until its own standard input ends; then nothing of it is left. When the
/// server ends before, its exit code is in the file `ended` of its folder (the first argument).
const GUARD: &str = r#"
folder=$1; shift; exec 3<&0 2> /dev/null
"$@" > "$folder/log" 2>&1 < /dev/null 3<&- & server=$!
{ read -r _ <&3; kill -KILL $server; } &
wait $server; echo $? > "$folder/ended"
wait; rm -r "$folder"
"#;

/// The running servers.
pub(crate) struct Services {
    mongodb: Option<Guarded>,
    variables: Vec<(&'static str, OsString)>,
}

impl Services {
    /// Starts those that the environment does not name.
    pub(crate) fn start(mongodb_program: &Path) -> Result<Self, Failure> {
        let named = std::env::var_os(MONGODB_URI).filter(|uri| !uri.is_empty());
        let (mongodb, uri) = match named {
            Some(uri) => (None, uri),
            None => {
                let server = Guarded::mongodb(mongodb_program)?;
                let uri = server.mongodb_uri().into();
                (Some(server), uri)
            }
        };
        let variables = vec![(MONGODB_URI, uri), (MONGODB_PROGRAM, mongodb_program.into())];
        for (name, value) in &variables {
            println!("export {name}='{}'", value.display());
        }
        Ok(Self { mongodb, variables })
    }

    /// What tests find them by.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.variables.iter().map(|(name, value)| (*name, value))
    }

    /// Fails when one has ended, with what it said last.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.mongodb.as_ref().map_or(Ok(()), Guarded::check)
    }
}

/// `cargo xtask services`: until Ctrl-C, or until one of them ends.
pub(crate) fn run() -> Result<(), Failure> {
    let services = Services::start(&tools::mongodb()?)?;
    println!("set these for tests that you run by hand; Ctrl-C stops the servers");
    loop {
        services.check()?;
        thread::sleep(Duration::from_millis(500));
    }
}

/// A server and the shell that ends it.
pub(crate) struct Guarded {
    name: &'static str,
    guard: Child,
    folder: PathBuf,
    port: Port,
}

impl Guarded {
    /// A MongoDB with nothing in it, once it can be written to. One at a time.
    pub(crate) fn mongodb(program: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::new("MongoDB", error);
        let folder = tools::cache()?.join(format!("services-{}", std::process::id()));
        let data = folder.join("data");
        fs::create_dir_all(&data).map_err(failure)?;
        let port = Port::take().map_err(failure)?;
        let command = mongod::command(program, port.number, &data, Options::default());
        let guard = guarded(&command, &folder).spawn().map_err(failure)?;
        let server = Self { name: "MongoDB", guard, folder, port };
        server.wait_until(|| mongod::is_ready(server.port.number).unwrap_or(false))?;
        Ok(server)
    }

    /// Where it is, when it is a MongoDB.
    pub(crate) fn mongodb_uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port.number)
    }

    fn wait_until(&self, is_ready: impl Fn() -> bool) -> Result<(), Failure> {
        let until = Instant::now() + START_MAX;
        while !is_ready() {
            self.check()?;
            if Instant::now() > until {
                let why = format!("not ready after {} s; its log:\n{}", START_MAX.as_secs(), self.log());
                return Err(Failure::new(self.name, why));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        match fs::read_to_string(self.folder.join("ended")) {
            Ok(code) => {
                Err(Failure::new(self.name, format!("it ended with {}; its log:\n{}", code.trim(), self.log())))
            }
            Err(_) => Ok(()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Waiting closes its standard input, which ends it. What else could be done here is nothing.
        let _ = self.guard.wait();
    }
}

/// In a process group of its own: Ctrl-C reaches this program, whose end reaches the guard.
fn guarded(server: &Command, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "sh"]).arg(folder).arg(server.get_program()).args(server.get_args());
    command.stdin(Stdio::piped()).process_group(0);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("docket-xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn start(name: &str, words: &[&str]) -> Guarded {
        let folder = folder(name);
        let mut server = Command::new("sh");
        server.args(words);
        let guard = guarded(&server, &folder).spawn().expect("a shell");
        Guarded { name: "it", guard, folder, port: Port::take().expect("a port") }
    }

    #[test]
    fn nothing_is_left_of_a_server_when_its_owner_is_gone() {
        let server = start("guarded", &["-c", "echo $$; exec sleep 1000"]);
        server.wait_until(|| server.log().ends_with('\n')).expect("it runs");
        let (folder, process) = (server.folder.clone(), PathBuf::from(format!("/proc/{}", server.log().trim())));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists() && !folder.exists());
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let server = start("ended", &["-c", "echo no room; exit 3"]);
        let failure = server.wait_until(|| false).expect_err("it has ended");
        assert_eq!(failure.to_string(), "failed: it: it ended with 3; its log:\nno room\n");
    }
}
