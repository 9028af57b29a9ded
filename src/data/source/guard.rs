//! Panics of decoders on damaged files, made into errors.
//!
//! The Arrow reader trusts the offsets it finds in a file and panics when they lead nowhere. A damaged file is the
//! user's to repair, so it gets the same message as any other.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::files::DataFile;
use crate::error::{Error, Result};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `read`; what it fails or panics with is an error that names the file. Whatever `read` changes must not be
/// used again after an error.
pub(super) fn guard<T, E: Display>(file: &DataFile, read: impl FnOnce() -> Result<T, E>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Only what is caught below goes unreported.
            if !GUARDED.get() {
                hook(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(outer);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(broken(file, &error)),
        Err(_) => Err(broken(file, &"the parts of it do not fit each other")),
    }
}

/// The error for a file that cannot be read as what its ending says.
fn broken(file: &DataFile, error: &dyn Display) -> Error {
    Error::data(format!("cannot read `{}` as {:?}: {error}", file.shown, file.format))
        .with_hint("the file is cut off, damaged or of another format: fetch or write it again")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::super::files::Format;
    use super::*;

    #[test]
    fn panics_become_errors() {
        let file = DataFile { path: "a.arrow".into(), shown: "a.arrow".to_owned(), format: Format::Arrow };
        let error = guard(&file, || -> Result<(), String> { panic!("offset out of range") });
        let text = error.map_err(|e| e.to_string());
        assert_eq!(text, Err("cannot read `a.arrow` as Arrow: the parts of it do not fit each other".to_owned()));
        assert!(!GUARDED.get());
        assert_eq!(guard(&file, || Ok::<_, String>(3)).ok(), Some(3));
    }
}
