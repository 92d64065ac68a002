//! `docket import FILE`: sends the lines in parcels, so that a cut connection costs one parcel, and what is there
//! already is recognised by the server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use actors::order::import::LINE_BYTES_MAX;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::client::{Server, block_on, client};
use super::{CommandError, Done, NOT_DONE, Printable, print, print_json};

const PARCEL_LINES_MAX: u64 = 2_000;
const PARCEL_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file, one JSON object a line.
    file: PathBuf,
    #[command(flatten)]
    server: Server,
}

/// What became of the file.
#[derive(Default, Serialize)]
struct Summary {
    imported: u64,
    already_there: u64,
    bad: Vec<LineReason>,
    not_done: Vec<LineReason>,
}

#[derive(Serialize)]
struct LineReason {
    line: u64,
    reason: String,
}

#[derive(Deserialize)]
struct Outcome {
    line: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum What {
    Imported {},
    AlreadyThere {},
    Bad { reason: String },
    NotDone { problem: String },
}

pub(super) fn run(args: Args) -> Done {
    let name = args.file.display().to_string();
    let unreadable = |error: io::Error| CommandError::wrong(format!("cannot read {name}: {error}"));
    let file = File::open(&args.file).map_err(unreadable)?;
    let progress = bar(file.metadata().map_err(unreadable)?.len());
    let mut parcels = Parcels { file: BufReader::new(file), lines_before: 0, bytes_read: 0 };
    let mut summary = Summary::default();
    let docket = args.server.docket()?;
    let sent: Result<(), CommandError> = block_on(async {
        let client = client()?;
        while let Some(parcel) = parcels.next().map_err(unreadable)? {
            let first = parcel.lines_before + 1;
            let answer = docket.post(&client, "api/import", parcel.bytes).await;
            let answer = answer.map_err(|error| CommandError {
                message: format!("{error}\nStopped at line {first}. Run it again: what is there is recognised."),
                code: error.code,
            })?;
            summary.take(&answer, parcel.lines_before, &progress)?;
            progress.set_position(parcels.bytes_read);
        }
        Ok(())
    });
    progress.finish_and_clear();
    if args.server.json {
        print_json(&summary)?;
    } else {
        print(format_args!(
            "{} imported, {} there already, {} bad and skipped, {} not done",
            summary.imported,
            summary.already_there,
            summary.bad.len(),
            summary.not_done.len()
        ))?;
    }
    sent?;
    if !summary.not_done.is_empty() {
        eprintln!("Some lines could not be done now. Run it again: what is there is recognised.");
    }
    let complete = summary.bad.is_empty() && summary.not_done.is_empty();
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

impl Summary {
    fn take(&mut self, answer: &str, lines_before: u64, progress: &ProgressBar) -> Result<(), CommandError> {
        for text in answer.lines() {
            let outcome: Outcome = serde_json::from_str(text)
                .map_err(|error| CommandError::not_done(format!("the answer cannot be read: {error}")))?;
            let line = lines_before + outcome.line;
            match outcome.what {
                What::Imported {} => self.imported += 1,
                What::AlreadyThere {} => self.already_there += 1,
                What::Bad { reason } => {
                    progress.suspend(|| eprintln!("line {line}: {}", Printable(&reason)));
                    self.bad.push(LineReason { line, reason });
                }
                What::NotDone { problem } => {
                    progress.suspend(|| eprintln!("line {line}: not done ({})", Printable(&problem)));
                    self.not_done.push(LineReason { line, reason: problem });
                }
            }
        }
        Ok(())
    }
}

struct Parcels {
    file: BufReader<File>,
    lines_before: u64,
    bytes_read: u64,
}

struct Parcel {
    lines_before: u64,
    bytes: Vec<u8>,
}

impl Parcels {
    fn next(&mut self) -> io::Result<Option<Parcel>> {
        let mut parcel = Parcel { lines_before: self.lines_before, bytes: Vec::new() };
        let mut lines = 0;
        while lines < PARCEL_LINES_MAX && parcel.bytes.len() < PARCEL_BYTES_MAX {
            if self.line(&mut parcel.bytes)? == 0 {
                break;
            }
            lines += 1;
        }
        self.lines_before += lines;
        Ok((lines > 0).then_some(parcel))
    }

    /// The next line. Of one that is too long only the beginning is sent: enough for the server to refuse it.
    fn line(&mut self, into: &mut Vec<u8>) -> io::Result<u64> {
        let most = LINE_BYTES_MAX as u64 + 2;
        let mut read = self.file.by_ref().take(most).read_until(b'\n', into)? as u64;
        if read == most && into.last() != Some(&b'\n') {
            read += self.file.skip_until(b'\n')? as u64;
            into.push(b'\n');
        }
        self.bytes_read += read;
        Ok(read)
    }
}

fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
