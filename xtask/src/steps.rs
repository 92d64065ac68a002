//! Steps, one after another, each announced, timed, and repeatable by the command it prints. The first that fails ends
//! the run.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What did not work, and how to see it again.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: String,
    repeat: Option<String>,
}

impl Failure {
    /// Something that is not one command: `why` says what to do.
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string(), repeat: None }
    }

    fn of_command(what: &str, why: impl fmt::Display, command: &Command) -> Self {
        Self { what: what.to_owned(), why: why.to_string(), repeat: Some(shell_line(command)) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}: {}", self.what, self.why)?;
        match &self.repeat {
            Some(command) => write!(f, "\nagain:  {command}"),
            None => Ok(()),
        }
    }
}

/// The steps of a run so far.
pub(crate) struct Steps {
    started: Instant,
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// None yet; the clock runs.
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }

    /// Does `work` as the step `name`.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = work()?;
        let took = started.elapsed();
        println!("== {name}: done in {}", seconds(took));
        self.done.push((name.to_owned(), took));
        Ok(outcome)
    }

    /// Runs `command` as the step `name`.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<(), Failure> {
        self.step(name, || run(name, command))
    }

    /// What was done and how long each took.
    pub(crate) fn print_summary(&self) {
        println!();
        for (name, took) in &self.done {
            println!("{:>9}  {name}", seconds(*took));
        }
        println!("{:>9}  together", seconds(self.started.elapsed()));
    }
}

/// Runs `command`, its output where ours goes.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<(), Failure> {
    println!("$ {}", shell_line(command));
    let status = command.status().map_err(|error| Failure::of_command(what, error, command))?;
    judge(what, status, command)
}

/// Runs `command`, passing on its standard output while `line` sees each line of it.
pub(crate) fn run_watched(what: &str, command: &mut Command, mut line: impl FnMut(&str)) -> Result<(), Failure> {
    println!("$ {}", shell_line(command));
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| Failure::of_command(what, error, command))?;
    if let Some(output) = child.stdout.take() {
        for text in BufReader::new(output).split(b'\n') {
            let text = text.map_err(|error| Failure::of_command(what, error, command))?;
            let text = String::from_utf8_lossy(&text);
            // Nobody to read our output is no reason to leave the tests half run.
            let _ = writeln!(io::stdout(), "{text}");
            line(&text);
        }
    }
    let status = child.wait().map_err(|error| Failure::of_command(what, error, command))?;
    judge(what, status, command)
}

/// What `command` writes to its standard output, when it succeeds.
pub(crate) fn said(what: &str, command: &mut Command) -> Result<String, Failure> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| Failure::of_command(what, error, command))?;
    judge(what, output.status, command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `command` runs and succeeds; what it says is nobody's matter.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn judge(what: &str, status: ExitStatus, command: &Command) -> Result<(), Failure> {
    if status.success() { Ok(()) } else { Err(Failure::of_command(what, status, command)) }
}

/// The command as one types it.
fn shell_line(command: &Command) -> String {
    let settings = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy();
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value)))
    });
    let words =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| quoted(&word.to_string_lossy()));
    settings.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_how_to_repeat_it() {
        let mut command = Command::new("false");
        command.arg("it's").env("A", "1 2");
        let failure = run("a step", &mut command).expect_err("false succeeded");
        assert_eq!(failure.to_string(), "failed: a step: exit status: 1\nagain:  A='1 2' false 'it'\\''s'");
    }

    #[test]
    fn a_watched_command_shows_every_line_and_its_failure() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; printf two; exit 3"]);
        let outcome = run_watched("a step", &mut command, |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two"]);
        assert!(outcome.is_err());
    }

    #[test]
    fn the_first_failing_step_is_not_among_those_done() {
        let mut steps = Steps::begin();
        assert!(steps.command("works", &mut Command::new("true")).is_ok());
        assert!(steps.command("fails", &mut Command::new("false")).is_err());
        assert_eq!(steps.done.len(), 1);
    }
}
