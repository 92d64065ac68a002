//! `docket copy`: from the data folder to MongoDB. It works on the folder itself, so docket must not run on it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::client::block_on;
use super::{CommandError, Done, load, print, print_json};
use crate::config::{Config, is_database};
use crate::copy::{self, CopyError, Patience, Report, Source, Step, Target, Total};
use crate::mongo::Uri;
use crate::mongo::server::{Server, Settings};
use crate::mongo::uri::redacted;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to: mongodb://…; without it that of the configuration (MONGODB_URI), which keeps a password out of the
    /// list of processes.
    #[arg(long, value_name = "URI")]
    to: Option<String>,
    /// The order service's database there; else that of the configuration. A subscriber's has its name behind it.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The configuration; else config.toml in the working directory, if there is one.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Done {
    let config = load(args.config.as_deref())?;
    let (uri, database) = address(args.to, args.database, &config)?;
    let folder = &config.data.directory;
    let bar = ProgressBar::no_length();
    let report = block_on(async {
        let source = Source::open(folder).await.map_err(failed)?;
        let target = Target { server: server(&uri).await?, database, patience: Patience::default() };
        let report = copy::run(&source, &target, &mut |step| show(&bar, step)).await;
        source.close().await;
        report.map_err(failed)
    });
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        print_json(&report)?
    } else {
        print(summary(&report, &uri, folder))?
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to, when that makes sense.
fn address(to: Option<String>, database: Option<String>, config: &Config) -> Result<(Uri, String), CommandError> {
    let uri = to.map_or_else(|| config.mongodb.uri.clone(), |uri| Uri::new(&uri));
    let database = database.unwrap_or_else(|| config.mongodb.database.clone());
    if uri.is_empty() {
        return Err(CommandError::wrong("where to? Say --to mongodb://HOST:27017/?replicaSet=rs0, or set MONGODB_URI"));
    }
    if !is_database(&database) {
        return Err(CommandError::wrong(format!(
            "--database {database}: must be a name such as docket: 1 to 38 of A-Z a-z 0-9 _ -, and not admin, local or \
             config"
        )));
    }
    uri.check(&database).map_err(|error| CommandError::wrong(format!("--to: {error}")))?;
    Ok((uri, database))
}

/// More patient than a docket that serves: nobody waits for an answer.
async fn server(uri: &Uri) -> Result<Server, CommandError> {
    let mut settings = Settings::new(uri.expose());
    settings.pool_max = 8;
    settings.select_within = Duration::from_secs(3);
    settings.answer_within = Duration::from_secs(30);
    Server::new(&settings)
        .await
        .map_err(|error| CommandError::wrong(format!("--to {uri}: {}", redacted(&error.to_string()))))
}

fn failed(error: CopyError) -> CommandError {
    match error {
        CopyError::Nothing(_) => CommandError::wrong(error.to_string()),
        CopyError::Directory(_)
        | CopyError::Open(_)
        | CopyError::Unreadable { .. }
        | CopyError::Unusable(_)
        | CopyError::Unfit(_)
        | CopyError::NotOurs(_)
        | CopyError::Changed(_)
        | CopyError::TakenOver
        | CopyError::Away(_)
        | CopyError::Full(_)
        | CopyError::Differs(_) => CommandError::not_done(error.to_string()),
    }
}

fn show(bar: &ProgressBar, step: Step<'_>) {
    match step {
        Step::Begins { what, of, done } => {
            let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {msg} {per_sec} {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar.set_length(of);
            bar.set_position(done);
            bar.reset_eta();
        }
        Step::Done(more) => bar.inc(more),
    }
}

fn summary(report: &Report, uri: &Uri, folder: &Path) -> String {
    let database = &report.database;
    let mut lines = vec![match (&report.copied_at, report.copied_before) {
        (at, true) => format!(
            "{} was copied to {uri}, database {database}, before ({}). Nothing was changed.",
            folder.display(),
            at.as_deref().unwrap_or("nobody knows when")
        ),
        (_, false) => format!(
            "{} is copied to {uri}, database {database}. Everything was read back and compared.",
            folder.display()
        ),
    }];
    let commits = &report.commits;
    lines.push(format!("  {} commits, SHA-256 {}", HumanCount(commits.count), commits.sha256));
    lines.extend(report.subscribers.iter().map(|subscriber| {
        let Total { name, paused, rows, documents, effects, effects_waiting, discards, sum } = subscriber;
        format!(
            "  {name}{}: {} rows, {} documents, {} effects ({} to be performed), {} discards, SHA-256 {}",
            if *paused { ", paused" } else { "" },
            HumanCount(*rows),
            HumanCount(*documents),
            HumanCount(*effects),
            HumanCount(*effects_waiting),
            HumanCount(*discards),
            sum.sha256
        )
    }));
    lines.extend(report.left_out.iter().map(|file| format!("  {file} is no subscriber's and was left out")));
    let database = match database.as_str() {
        "docket" => String::new(),
        other => format!(" and DOCKET__MONGODB__DATABASE={other}"),
    };
    lines.push(format!(
        "Next: set MONGODB_URI{database}, and start docket. Keep {} as a backup and do not start docket on it without \
         MONGODB_URI again: what is ordered there would be in one of the two only.",
        folder.display()
    ));
    lines.join("\n")
}
