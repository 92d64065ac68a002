//! The program: serves, or does one of the commands.

use std::process::ExitCode;

use actors::subscriber::registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    docket::run(registry::all)
}
