//! Ctrl-C, SIGTERM and a closed terminal as a flag that long work looks at between steps.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Of the work that this thread does for somebody.
    static OWN: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Whether somebody asked this process, or the work that this thread is at, to stop.
#[must_use]
pub fn requested() -> bool {
    STOP.load(Ordering::Relaxed) || OWN.with_borrow(|own| own.as_ref().is_some_and(|own| own.load(Ordering::Relaxed)))
}

/// Does `work` on this thread, which looks at `stop` as well wherever it looks whether to stop.
pub fn stoppable<T>(stop: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    /// Also when the work panics: threads are used again.
    struct Reset(Option<Arc<AtomicBool>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            OWN.set(self.0.take());
        }
    }
    let _reset = Reset(OWN.replace(Some(stop)));
    work()
}

/// Asks for the stop from inside (tests, the server).
pub fn request() {
    STOP.store(true, Ordering::Relaxed);
}

/// Whether Ctrl-C was pressed before.
#[cfg(unix)]
static PRESSED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP only set the flag; Ctrl-C says so, and pressed a second time ends the process
/// at once. The other two come twice by themselves (a terminal that is closed, a run that is cancelled again), so they
/// never do. What was ignored before, as by `nohup`, stays ignored.
///
/// A file that may grow no further (`ulimit -f`) gives an error from now on, not a signal.
#[cfg(unix)]
pub fn install() {
    extern "C" fn on_signal(signal: libc::c_int) {
        const SAID: &[u8] = b"\nstopping as soon as what is under way allows it; once more to stop at once\n";
        STOP.store(true, Ordering::Relaxed);
        if signal != libc::SIGINT {
            return;
        }
        // SAFETY: all calls are async-signal-safe.
        unsafe {
            if PRESSED.swap(true, Ordering::Relaxed) {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            } else if libc::isatty(2) == 1 {
                let _ = libc::write(2, SAID.as_ptr().cast(), SAID.len());
            }
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only touches atomics and async-signal-safe functions.
        unsafe {
            if libc::signal(signal, on_signal as *const () as libc::sighandler_t) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
    // SAFETY: only changes what becomes of one signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// No signals to catch here.
#[cfg(not(unix))]
pub fn install() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_stopped_and_no_other() {
        let stop = Arc::new(AtomicBool::new(false));
        stoppable(Arc::clone(&stop), || {
            assert!(!requested());
            stop.store(true, Ordering::Relaxed);
            assert!(requested());
            assert!(std::thread::scope(|scope| scope.spawn(|| !requested()).join().unwrap_or(false)));
        });
        assert!(!requested());
    }
}
