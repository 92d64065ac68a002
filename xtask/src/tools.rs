//! The programs that the steps need beside the Rust toolchain. Each is pinned, said aloud before it is installed, and
//! kept outside the clone, so that the next clone finds it. Nothing that runs by itself is installed or started.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services::Programs;
use crate::steps::{Failure, run, succeeds};

const CARGO_DENY: &str = "cargo-deny@0.20.2";
/// Speaks MongoDB's protocol. A program under the GPL that tests run beside them: nothing of ours is linked to it.
const SECANTUS: &str = "secantus-mdb@0.5.3-beta.193";
/// RabbitMQ, and of Erlang what it needs.
const RABBITMQ: [&str; 15] = [
    "rabbitmq-server",
    "erlang-asn1",
    "erlang-base",
    "erlang-crypto",
    "erlang-eldap",
    "erlang-inets",
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-parsetools",
    "erlang-public-key",
    "erlang-runtime-tools",
    "erlang-ssl",
    "erlang-syntax-tools",
    "erlang-tools",
    "erlang-xmerl",
];
const SCHEMATHESIS_PINS: &str = include_str!("../schemathesis/requirements.txt");
const DEPLOYMENT_PINS: &str = include_str!("../deployment/requirements.txt");

/// The installed programs.
pub(crate) struct Tools {
    /// Licences, bans, sources.
    pub(crate) cargo_deny: PathBuf,
    /// Tests the API against its description.
    pub(crate) schemathesis: PathBuf,
    /// The folder of what knows the schemas of Kubernetes and of compose files.
    pub(crate) deployment: PathBuf,
    /// The servers that tests use.
    pub(crate) servers: Programs,
}

impl Tools {
    /// Installs what is missing.
    pub(crate) fn install() -> Result<Self, Failure> {
        alone(|folder| {
            // The README's walk through is run as it is written.
            debian(&["curl"], || succeeds(Command::new("curl").arg("--version")))?;
            // So is the consumer that is no docket.
            debian(&["python3-pika"], || succeeds(Command::new("/usr/bin/python3").args(["-c", "import pika"])))?;
            mail_server()?;
            Ok(Self {
                cargo_deny: cargo_deny(folder)?,
                schemathesis: from_pypi(folder, "schemathesis", SCHEMATHESIS_PINS)?.join("schemathesis"),
                deployment: from_pypi(folder, "deployment", DEPLOYMENT_PINS)?,
                servers: Programs { mongodb: a_mongodb(folder)?, rabbitmq: rabbitmq(folder)? },
            })
        })
    }
}

/// A MongoDB server, installed when it is missing.
pub(crate) fn mongodb() -> Result<PathBuf, Failure> {
    alone(a_mongodb)
}

/// The servers that tests use, installed when they are missing.
pub(crate) fn servers() -> Result<Programs, Failure> {
    alone(|folder| {
        mail_server()?;
        Ok(Programs { mongodb: a_mongodb(folder)?, rabbitmq: rabbitmq(folder)? })
    })
}

/// Does `work` in the folder of the tools. Two runs at once wait for each other.
fn alone<T>(work: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
    let folder = cache()?.join("tools");
    fs::create_dir_all(&folder).map_err(|error| cannot_use(&folder, error))?;
    let lock = folder.join("lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let locked = locked.map_err(|error| cannot_use(&lock, error))?;
    let done = work(&folder);
    drop(locked);
    done
}

/// What rustup's default profile brings; a minimal one does not.
pub(crate) fn check_toolchain() -> Result<(), Failure> {
    run("toolchain", Command::new("rustc").arg("--version"))?;
    for part in ["fmt", "clippy"] {
        if !succeeds(Command::new("cargo").args([part, "--version"])) {
            return Err(Failure::new("toolchain", "no rustfmt or clippy; run: rustup component add rustfmt clippy"));
        }
    }
    Ok(())
}

/// Installs Debian packages when `there` says that what they bring is missing.
pub(crate) fn debian(packages: &[&str], there: impl Fn() -> bool) -> Result<(), Failure> {
    if there() {
        return Ok(());
    }
    let names = packages.join(" ");
    println!("missing: {names}; installing from Debian's packages");
    if !succeeds(Command::new("apt-get").arg("--version")) {
        return Err(Failure::new("tools", format!("no apt-get here; install what Debian calls {names}")));
    }
    update_debian()?;
    run(
        "tools",
        as_root("apt-get").args(["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"]).args(packages),
    )?;
    if there() { Ok(()) } else { Err(Failure::new("tools", format!("{names} installed, and still missing"))) }
}

fn update_debian() -> Result<(), Failure> {
    run("tools", as_root("apt-get").args(["update", "--quiet", "--quiet"]))
}

/// `sudo program`, or `program` for root. Packages must not ask, nor start the services they bring.
fn as_root(program: &str) -> Command {
    let root = fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    let mut command = Command::new(if root { "env" } else { "sudo" });
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", program]);
    command
}

fn cargo_deny(folder: &Path) -> Result<PathBuf, Failure> {
    let home = folder.join("cargo-deny");
    once(&home, CARGO_DENY, || {
        println!("missing: {CARGO_DENY}; compiling it from crates.io, once, some minutes");
        // Optimised a little: it compiles in half the time, and its work is small.
        run(
            "tools",
            Command::new("cargo")
                .args(["install", "--locked", "--debug", "--quiet", CARGO_DENY, "--root"])
                .arg(&home)
                .env("CARGO_TARGET_DIR", home.join("target"))
                .env("CARGO_PROFILE_DEV_DEBUG", "0")
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
        )?;
        fs::remove_dir_all(home.join("target")).map_err(|error| cannot_use(&home, error))
    })?;
    Ok(home.join("bin/cargo-deny"))
}

/// What `xtask/NAME/requirements.txt` pins, in an environment of its own: the folder of its programs.
fn from_pypi(folder: &Path, name: &str, pins: &str) -> Result<PathBuf, Failure> {
    let home = folder.join(name);
    once(&home, pins, || {
        debian(&["python3", "python3-venv"], || {
            succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
        })?;
        println!("missing: {name}; installing it from PyPI");
        run("tools", Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        run(
            "tools",
            Command::new(home.join("bin/pip"))
                .args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--requirement"])
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("requirements.txt")),
        )
    })?;
    Ok(home.join("bin"))
}

/// `mongod` when there is one, else the program that takes its place.
fn a_mongodb(folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(mongod) = on_path("mongod") {
        println!("{}", mongod.display());
        return Ok(mongod);
    }
    let home = folder.join("secantusd");
    once(&home, SECANTUS, || {
        debian(&["cmake", "g++", "make"], || {
            ["cmake", "g++", "make"].iter().all(|program| succeeds(Command::new(program).arg("--version")))
        })?;
        println!("missing: {SECANTUS}; compiling it from crates.io, once, some minutes");
        run(
            "tools",
            Command::new("cargo")
                // Its sources do with an older compiler than they ask for.
                .args(["install", "--locked", "--ignore-rust-version", "--quiet", SECANTUS, "--root"])
                .arg(&home)
                .env("CARGO_TARGET_DIR", home.join("target")),
        )?;
        fs::remove_dir_all(home.join("target")).map_err(|error| cannot_use(&home, error))
    })?;
    Ok(home.join("bin/secantusd-rs"))
}

/// RabbitMQ from Debian's packages, unpacked and not installed: installed, they would start a node, and Erlang's port
/// mapper, whenever the machine starts.
fn rabbitmq(folder: &Path) -> Result<PathBuf, Failure> {
    let home = folder.join("rabbitmq");
    once(&home, &RABBITMQ.join(" "), || {
        println!("missing: RabbitMQ; unpacking it from Debian's packages, without installing them");
        let packages = home.join("packages");
        fs::create_dir_all(&packages).map_err(|error| cannot_use(&packages, error))?;
        update_debian()?;
        // Whoever may read the packages while they come is nobody's matter; apt warns of it.
        run(
            "tools",
            Command::new("apt-get").args(["download", "--quiet", "--quiet"]).args(RABBITMQ).current_dir(&packages),
        )?;
        for package in files(&packages)? {
            run("tools", Command::new("dpkg").arg("--extract").arg(package).arg(&home))?;
        }
        fs::remove_dir_all(&packages).map_err(|error| cannot_use(&packages, error))?;
        let erlang = home.join("usr/lib/erlang");
        move_erlang(&erlang.join("bin/erl"), &erlang)?;
        debian(&["libssl3", "libtinfo6"], || {
            // It loads what it needs of the system.
            let crypto = ["-noshell", "-eval", "ok = crypto:start(), halt(0)."];
            succeeds(Command::new(erlang.join("bin/erl")).args(crypto))
        })
    })?;
    Ok(home.join("usr/lib/rabbitmq/bin/rabbitmq-server"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|error| cannot_use(folder, error))
}

/// Erlang's start script knows only where it would be installed.
fn move_erlang(script: &Path, to: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(script).map_err(|error| cannot_use(script, error))?;
    let moved = text.replace("ROOTDIR=/usr/lib/erlang", &format!("ROOTDIR='{}'", to.display()));
    fs::write(script, moved).map_err(|error| cannot_use(script, error))
}

/// What tests' mail server is made of, and the certificate that it shows. None of these brings a service.
fn mail_server() -> Result<(), Failure> {
    debian(&["python3-aiosmtpd", "openssl"], || {
        succeeds(Command::new("/usr/bin/python3").args(["-c", "import aiosmtpd"]))
            && succeeds(Command::new("openssl").arg("version"))
    })
}

/// A program by its name, where the shell would find it.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Does `install` into `home` unless that was done before, by the same `recipe`. What was broken off is begun anew.
fn once(home: &Path, recipe: &str, install: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let complete = home.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|done| done == recipe) {
        println!("{}", home.display());
        return Ok(());
    }
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_use(home, error)),
        Ok(()) | Err(_) => {}
    }
    install()?;
    fs::write(&complete, recipe).map_err(|error| cannot_use(&complete, error))
}

/// Where everything lies that the next clone can use too.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| Failure::new("cache", "set HOME: what is kept lies in ~/.cache/docket"))?;
    Ok(cache.join("docket"))
}

fn cannot_use(path: &Path, error: io::Error) -> Failure {
    Failure::new("tools", format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_broken_off_or_is_another_version_is_begun_anew() {
        let home = std::env::temp_dir().join(format!("docket-xtask-once-{}", std::process::id()));
        let broken_off = once(&home, "a@1", || {
            fs::create_dir_all(&home).map_err(|error| cannot_use(&home, error))?;
            fs::write(home.join("half"), "").map_err(|error| cannot_use(&home, error))?;
            Err(Failure::new("install", "no network"))
        });
        assert!(broken_off.is_err());

        let mut installed = 0;
        for recipe in ["a@1", "a@1", "a@2"] {
            once(&home, recipe, || {
                installed += 1;
                assert!(!home.join("half").exists());
                fs::create_dir_all(&home).map_err(|error| cannot_use(&home, error))
            })
            .expect("installed");
        }
        fs::remove_dir_all(&home).expect("removed");
        assert_eq!(installed, 2);
    }

    #[test]
    fn what_is_there_is_not_installed() {
        assert!(debian(&["no-such-package"], || true).is_ok());
    }
}
