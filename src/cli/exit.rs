//! Exit codes: 0 done, 1 failed, 2 bad usage, 3 a check found something, 130 cancelled.

use crate::error::{Error, Kind};

/// Everything went well.
pub const DONE: u8 = 0;

/// The exit code of an error.
#[must_use]
pub fn code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Failed | Kind::Internal => 1,
        Kind::Usage => 2,
        Kind::Cancelled => 130,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_documented() {
        assert_eq!(code(&Error::usage("x")), 2);
        assert_eq!(code(&Error::data("x")), 1);
        assert_eq!(code(&Error::cancelled("x")), 130);
        assert_eq!(code(&Error::Internal("x".into())), 1);
    }
}
