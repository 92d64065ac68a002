//! The process: reads the configuration, starts a system and waits.

use std::process::ExitCode;

use docket::config::Config;
use docket::system::System;
use docket::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::load(None, std::env::vars()).expect("config");
    telemetry::start(&config.log).expect("telemetry");
    actix_rt::System::new().block_on(async {
        let system = match System::start(&config).await {
            Ok(system) => system,
            Err(error) => {
                tracing::error!("{error}");
                return ExitCode::from(1);
            }
        };
        system.start_up(&config).log();
        let stop = async { drop(tokio::signal::ctrl_c().await) };
        let end = system.run_until(stop, std::future::pending()).await;
        tracing::info!("{end}");
        ExitCode::from(end.exit_code())
    })
}
