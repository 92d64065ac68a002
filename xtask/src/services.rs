//! The servers that tests share, on ports and in folders of their own. They end with whoever started them, however that
//! ends: a shell beside them waits for the end of a pipe, stops them then, and removes what they kept.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::mongod::{self, Options};
use crate::port::Port;
use crate::rabbitmq_node::{self, Ports};
use crate::steps::Failure;
use crate::tools;

/// Names the MongoDB that tests share. Set: that one is used, and none is started.
const MONGODB_URI: &str = "DOCKET_TEST_MONGODB_URI";
/// The program of which tests start servers of their own, to kill and freeze them.
const MONGODB_PROGRAM: &str = "DOCKET_TEST_MONGODB_PROGRAM";

/// Names the RabbitMQ that tests share. Set: that one is used, and none is started.
const RABBITMQ_URL: &str = "DOCKET_TEST_RABBITMQ_URL";
/// Where that one is asked about itself (its management plugin).
const RABBITMQ_API: &str = "DOCKET_TEST_RABBITMQ_API";
/// The program of which tests start nodes of their own.
const RABBITMQ_PROGRAM: &str = "DOCKET_TEST_RABBITMQ_PROGRAM";

/// Longest wait for a server, from when it is waited for.
const START_MAX: Duration = Duration::from_secs(120);

/// Runs a server (all arguments but the first) until its own standard input ends; then nothing of it is left. When the
/// server ends before, its exit code is in the file `ended` of its folder (the first argument).
const GUARD: &str = r#"
folder=$1; shift; exec 3<&0 2> /dev/null
"$@" > "$folder/log" 2>&1 < /dev/null 3<&- & server=$!
{ read -r _ <&3; kill -KILL $server; } &
wait $server; echo $? > "$folder/ended"
wait; rm -r "$folder"
"#;

/// The programs of the servers.
pub(crate) struct Programs {
    pub(crate) mongodb: PathBuf,
    pub(crate) rabbitmq: PathBuf,
}

/// The running servers.
pub(crate) struct Services {
    mongodb: Option<Mongodb>,
    rabbitmq: Option<Rabbitmq>,
    variables: Vec<(&'static str, OsString)>,
}

impl Services {
    /// Begins to start those that the environment does not name. They take their time, in which other things can be done.
    pub(crate) fn begin(programs: &Programs) -> Result<Self, Failure> {
        let (mut variables, mut rabbitmq, mut mongodb) = (Vec::new(), None, None);
        if let Some(url) = named(RABBITMQ_URL) {
            let api = named(RABBITMQ_API)
                .ok_or_else(|| Failure::new("RabbitMQ", format!("with {RABBITMQ_URL} set {RABBITMQ_API} as well")))?;
            variables.extend([(RABBITMQ_URL, url), (RABBITMQ_API, api)]);
        } else {
            let server = Rabbitmq::begin(&programs.rabbitmq)?;
            variables.push((RABBITMQ_URL, server.ports.url().into()));
            variables.push((RABBITMQ_API, server.ports.api().into()));
            rabbitmq = Some(server);
        }
        if let Some(uri) = named(MONGODB_URI) {
            variables.push((MONGODB_URI, uri));
        } else {
            let server = Mongodb::begin(&programs.mongodb)?;
            variables.push((MONGODB_URI, server.uri().into()));
            mongodb = Some(server);
        }
        variables.push((RABBITMQ_PROGRAM, programs.rabbitmq.clone().into()));
        variables.push((MONGODB_PROGRAM, programs.mongodb.clone().into()));
        Ok(Self { mongodb, rabbitmq, variables })
    }

    /// Waits until all of them serve, and says where.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        if let Some(mongodb) = &self.mongodb {
            mongodb.wait()?;
        }
        if let Some(rabbitmq) = &self.rabbitmq {
            rabbitmq.wait()?;
        }
        for (name, value) in &self.variables {
            println!("export {name}='{}'", value.display());
        }
        Ok(())
    }

    /// What tests find them by.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.variables.iter().map(|(name, value)| (*name, value))
    }

    /// Fails when one has ended, with what it said last.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.mongodb.as_ref().map_or(Ok(()), |mongodb| mongodb.server.check())?;
        self.rabbitmq.as_ref().map_or(Ok(()), |rabbitmq| rabbitmq.node.check())
    }
}

fn named(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// `cargo xtask services`: until Ctrl-C, or until one of them ends.
pub(crate) fn run() -> Result<(), Failure> {
    let services = Services::begin(&tools::servers()?)?;
    services.wait()?;
    println!("set these for tests that you run by hand; Ctrl-C stops the servers");
    loop {
        services.check()?;
        thread::sleep(Duration::from_millis(500));
    }
}

/// A MongoDB.
pub(crate) struct Mongodb {
    server: Guarded,
    port: Port,
}

impl Mongodb {
    /// One with nothing in it, once it can be written to.
    pub(crate) fn start(program: &Path) -> Result<Self, Failure> {
        let server = Self::begin(program)?;
        server.wait()?;
        Ok(server)
    }

    fn begin(program: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::new("MongoDB", error);
        let folder = folder("mongodb")?;
        let data = folder.join("data");
        fs::create_dir_all(&data).map_err(failure)?;
        let port = Port::take().map_err(failure)?;
        let command = mongod::command(program, port.number, &data, Options::default());
        Ok(Self { server: Guarded::begin("MongoDB", &command, folder)?, port })
    }

    fn wait(&self) -> Result<(), Failure> {
        self.server.wait_until(|| mongod::is_ready(self.port.number).unwrap_or(false))
    }

    /// Where it is.
    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port.number)
    }
}

/// A RabbitMQ node, and the port mapper that it needs. Fields are dropped in this order.
struct Rabbitmq {
    node: Guarded,
    _mapper: Guarded,
    ports: Ports,
}

impl Rabbitmq {
    /// One with nothing in it.
    fn begin(program: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::new("RabbitMQ", error);
        let ports = Ports::take().map_err(failure)?;
        let mapper = Guarded::begin("Erlang's port mapper", &rabbitmq_node::mapper(program, &ports), folder("epmd")?)?;
        let folder = folder("rabbitmq")?;
        let node = rabbitmq_node::node(program, &ports, &folder).map_err(failure)?;
        Ok(Self { node: Guarded::begin("RabbitMQ", &node, folder)?, _mapper: mapper, ports })
    }

    fn wait(&self) -> Result<(), Failure> {
        self.node.wait_until(|| rabbitmq_node::is_ready(self.ports.amqp.number).unwrap_or(false))
    }
}

/// A folder for a server of this process.
fn folder(server: &str) -> Result<PathBuf, Failure> {
    let folder = tools::cache()?.join(format!("services-{}-{server}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| Failure::new(server, error))?;
    Ok(folder)
}

/// A server and the shell that ends it.
struct Guarded {
    name: &'static str,
    guard: Child,
    folder: PathBuf,
}

impl Guarded {
    fn begin(name: &'static str, server: &Command, folder: PathBuf) -> Result<Self, Failure> {
        let guard = guarded(server, &folder).spawn().map_err(|error| Failure::new(name, error))?;
        Ok(Self { name, guard, folder })
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
    command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
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
        Guarded { name: "it", guard, folder }
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
