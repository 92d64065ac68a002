//! The whole program as a function: what `main` calls, also that of a crate that brings subscribers of its own.

use std::pin::pin;
use std::process::ExitCode;

use actors::subscriber::registry::{Parts, Registered};
use actors::supervisor::End;

use crate::cli;
use crate::config::Config;
use crate::system::{Only, System};

/// Serves with these subscribers, or does one of the commands, as this process's arguments say. Ends with the process's
/// exit code.
pub fn run(subscribers: impl FnOnce(&Parts) -> Vec<Registered>) -> ExitCode {
    cli::run(|config, only| serve(&config, &only, subscribers))
}

/// Serves until a signal; a second one ends it at once.
fn serve(config: &Config, only: &Only, subscribers: impl FnOnce(&Parts) -> Vec<Registered>) -> ExitCode {
    actix_rt::System::new().block_on(async {
        let (stop, at_once) = match cli::signals() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!("cannot listen for signals: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut stop = pin!(stop);
        let started = tokio::select! {
            started = System::start(config, only, subscribers) => started,
            () = &mut stop => {
                tracing::info!("stopped before it served");
                return ExitCode::SUCCESS;
            }
        };
        let system = match started {
            Ok(system) => system,
            Err(error) => {
                tracing::error!("{error}");
                return if error.is_wrong_command() { cli::WRONG.into() } else { ExitCode::FAILURE };
            }
        };
        system.start_up(config).log();
        let end = system.run_until(stop, at_once).await;
        match &end {
            End::Asked => tracing::info!("{end}"),
            End::Failed(_) => tracing::error!("{end}"),
        }
        end.exit_code().into()
    })
}
