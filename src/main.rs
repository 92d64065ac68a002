//! The program: serves, or does one of the commands.

use std::process::ExitCode;

use actors::supervisor::End;
use docket::cli;
use docket::config::Config;
use docket::system::{Only, System};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(serve)
}

/// Serves until a signal; a second one ends it at once.
fn serve(config: Config, only: Only) -> ExitCode {
    actix_rt::System::new().block_on(async {
        let (stop, at_once) = match cli::signals() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!("cannot listen for signals: {error}");
                return ExitCode::FAILURE;
            }
        };
        let system = match System::start(&config, &only).await {
            Ok(system) => system,
            Err(error) => {
                tracing::error!("{error}");
                return if error.is_wrong_command() { cli::WRONG.into() } else { ExitCode::FAILURE };
            }
        };
        system.start_up(&config).log();
        let end = system.run_until(stop, at_once).await;
        match &end {
            End::Asked => tracing::info!("{end}"),
            End::Failed(_) => tracing::error!("{end}"),
        }
        end.exit_code().into()
    })
}
