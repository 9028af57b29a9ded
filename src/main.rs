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
        Next::Serve => cli::end(mcp::serve()),
    };
    ExitCode::from(code)
}

/// Keeps freed memory for the next step instead of giving it back and fetching it again, page fault by page fault;
/// and takes small pages: optimizer state of an embedding table is touched a row here and a row there.
fn settle_memory() {
    // mimalloc's `mi_option_purge_delay`, in milliseconds; its binding has no name for it
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: a known option with a number, before any other thread is there.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 2000) };
    #[cfg(target_os = "linux")]
    // SAFETY: changes nothing but how the system backs this process' memory; failing does no harm.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0)
    };
}
