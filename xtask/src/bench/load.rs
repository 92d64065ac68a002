//! The load: wrk with `load.lua`, one thread, 64 connections. A request without an answer, or with another than
//! expected, ends the bench: a figure from such a round would say nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::server::Server;
use crate::steps::Failure;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/load.lua");

/// How much of it.
pub(super) struct Load {
    /// Rounds of each, docket and ceiling.
    pub(super) rounds: usize,
    /// How long each round sends.
    pub(super) round: Duration,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Round {
    /// Requests, each answered as expected.
    pub(super) answered: u64,
    /// From the first request to the last answer.
    pub(super) took: Duration,
    /// Half of the answers came within this.
    pub(super) p50_ms: f64,
    /// All but one in a hundred came within this.
    pub(super) p99_ms: f64,
}

impl Round {
    /// Answers a second.
    pub(super) fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Places orders; the id of each that was accepted is added to the file.
pub(super) fn place(server: &Server, round: Duration, acknowledged: &Path) -> Result<Round, Failure> {
    wrk(server, "place", round, acknowledged)
}

/// Reads the orders whose ids are in the file, in turn.
pub(super) fn read(server: &Server, round: Duration, orders: &Path) -> Result<Round, Failure> {
    wrk(server, "read", round, orders)
}

fn wrk(server: &Server, what: &str, round: Duration, file: &Path) -> Result<Round, Failure> {
    let seconds = round.as_secs_f64().to_string();
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", "64", "--timeout", "10", "--duration"])
        .arg(format!("{}s", round.as_secs() + 10))
        .args(["--script", SCRIPT, &server.url, "--", what, &seconds])
        .arg(file)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new("wrk", error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let round =
        parse(&said).ok_or_else(|| Failure::new(format!("{what}: not every request was answered well"), &said))?;
    println!("{what:>8} {:>9.0}/s  {}", round.per_second(), server.url);
    Ok(round)
}

/// Reads the line that `load.lua` ends with; none when it tells of anything but answers as expected.
fn parse(said: &str) -> Option<Round> {
    let line = said.lines().find_map(|line| line.strip_prefix("result "))?;
    let figure = |name: &str| -> Option<f64> {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?.parse().ok()
    };
    let (answered, other, unanswered) = (figure("good")?, figure("other")?, figure("unanswered")?);
    let sound = answered > 0.0 && other == 0.0 && unanswered == 0.0;
    sound.then_some(Round {
        answered: answered as u64,
        took: Duration::from_secs_f64(figure("seconds")?),
        p50_ms: figure("p50_ms")?,
        p99_ms: figure("p99_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_read() {
        let said = "Running\nresult good=300 other=0 unanswered=0 seconds=1.5 p50_ms=0.6 p99_ms=13.9\n";
        let round = parse(said).expect("a round");
        assert_eq!(round, Round { answered: 300, took: Duration::from_millis(1500), p50_ms: 0.6, p99_ms: 13.9 });
        assert!((round.per_second() - 200.0).abs() < 1e-9);
    }

    #[test]
    fn a_round_with_other_answers_or_without_some_is_none() {
        for said in [
            "result good=300 other=1 unanswered=0 seconds=1.5 p50_ms=0.6 p99_ms=13.9",
            "result good=300 other=0 unanswered=1 seconds=1.5 p50_ms=0.6 p99_ms=13.9",
            "result good=0 other=0 unanswered=0 seconds=1.5 p50_ms=0.6 p99_ms=13.9",
            "unable to connect",
        ] {
            assert_eq!(parse(said), None, "{said}");
        }
    }
}
