//! Ctrl-C, SIGTERM and a closed terminal as a flag that long work looks at between steps.

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

/// From now on the first SIGINT, SIGTERM or SIGHUP only sets the flag, and says so; a second one ends the process at
/// once.
#[cfg(unix)]
pub fn install() {
    extern "C" fn on_signal(signal: libc::c_int) {
        const SAID: &[u8] = b"\nstopping as soon as what is under way allows it; once more to stop at once\n";
        // SAFETY: all calls are async-signal-safe.
        unsafe {
            if STOP.swap(true, Ordering::Relaxed) {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            } else if libc::isatty(2) == 1 {
                let _ = libc::write(2, SAID.as_ptr().cast(), SAID.len());
            }
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only touches an atomic and async-signal-safe functions.
        unsafe {
            libc::signal(signal, on_signal as *const () as libc::sighandler_t);
        }
    }
}

/// No signals to catch here.
#[cfg(not(unix))]
pub fn install() {}
