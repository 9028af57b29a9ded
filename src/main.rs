//! The `tallow` program.

use std::process::ExitCode;

use tallow::cli::{self, Next};
use tallow::mcp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = match cli::run(std::env::args_os()) {
        Next::Exit(code) => code,
        Next::Serve => cli::end(mcp::serve()),
    };
    ExitCode::from(code)
}
