//! The `tallow` program.

use std::process::ExitCode;

use tallow::cli::{self, Next};
use tallow::mcp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    settle_memory();
    let code = match cli::run(std::env::args_os()) {
        Next::Exit(code) => code,
        Next::Serve(options) => cli::end(mcp::serve(&options, &mut cli::printer::Printer::new(false))),
    };
    ExitCode::from(code)
}

/// Takes small pages only: an optimizer's state of an embedding table is touched a row here and a row there, and would
/// fill a huge page for each of them.
fn settle_memory() {
    #[cfg(target_os = "linux")]
    // SAFETY: changes nothing but how the system backs this process' memory; failing does no harm.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0)
    };
}
