//! Stdout for the protocol alone: what anything else prints goes to stderr.

use crate::error::{Error, Result};

/// What was stdout, for the protocol. From now on the process's stdout is its stderr.
///
/// # Errors
/// When the system refuses to duplicate the descriptor.
#[cfg(unix)]
pub(super) fn protocol_output() -> Result<tokio::fs::File> {
    use std::os::fd::{AsFd, AsRawFd};

    let own = std::io::stdout().as_fd().try_clone_to_owned().map_err(Error::io("keep", "stdout"))?;
    let (out, err) = (std::io::stdout().as_raw_fd(), std::io::stderr().as_raw_fd());
    // SAFETY: both descriptors are open for the life of the process; dup2 only makes one name the other's file.
    if unsafe { libc::dup2(err, out) } < 0 {
        return Err(Error::io("redirect", "stdout")(std::io::Error::last_os_error()));
    }
    Ok(tokio::fs::File::from_std(std::fs::File::from(own)))
}

/// Stdout as it is.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub(super) fn protocol_output() -> Result<tokio::io::Stdout> {
    Ok(tokio::io::stdout())
}
