//! Ctrl-C and SIGTERM as a flag that long work looks at between steps.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether somebody asked this process to stop.
#[must_use]
pub fn requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Asks for the stop from inside (tests, the server).
pub fn request() {
    STOP.store(true, Ordering::Relaxed);
}

/// From now on the first SIGINT or SIGTERM only sets the flag; a second one ends the process at once.
#[cfg(unix)]
pub fn install() {
    extern "C" fn on_signal(signal: libc::c_int) {
        if STOP.swap(true, Ordering::Relaxed) {
            // SAFETY: both calls are async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only touches an atomic and async-signal-safe functions.
        unsafe {
            libc::signal(signal, on_signal as *const () as libc::sighandler_t);
        }
    }
}

/// No signals to catch here.
#[cfg(not(unix))]
pub fn install() {}
