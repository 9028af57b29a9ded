//! What can go wrong, said once: every message names the file, row or key, and carries a hint that is rendered last.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message and, apart from it, the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    text: String,
    hint: Option<String>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Who has to act on an error; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The call or the recipe is wrong: exit code 2.
    Usage,
    /// The input, the model or the machine is wrong: exit code 1.
    Failed,
    /// Somebody stopped it: exit code 130.
    Cancelled,
    /// Not the user's doing: exit code 1, please report.
    Internal,
}

/// Every error of the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command-line argument or a recipe that cannot be meant.
    #[error("{0}")]
    Usage(Message),
    /// Rows or files that cannot be used.
    #[error("{0}")]
    Data(Message),
    /// A model directory, a tokenizer or weights that cannot be used.
    #[error("{0}")]
    Model(Message),
    /// Training that cannot go on.
    #[error("{0}")]
    Train(Message),
    /// The file system said no.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// The run was stopped from outside, its state saved.
    #[error("{0}")]
    Cancelled(Message),
    /// A tensor operation failed: a fault of ours unless a shape in the input caused it.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Broken invariants.
    #[error("internal error: {0}")]
    Internal(String),
}

macro_rules! constructors {
    ($($name:ident => $variant:ident),*) => {$(
        #[doc = concat!("A new [`Error::", stringify!($variant), "`] without a hint.")]
        pub fn $name(text: impl Into<String>) -> Self {
            Self::$variant(Message { text: text.into(), hint: None })
        }
    )*};
}

impl Error {
    constructors!(usage => Usage, data => Data, model => Model, train => Train, cancelled => Cancelled);

    /// Adds the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        match &mut self {
            Self::Usage(m) | Self::Data(m) | Self::Model(m) | Self::Train(m) | Self::Cancelled(m) => {
                m.hint = Some(hint.into());
            }
            Self::Io { .. } | Self::Tensor(_) | Self::Internal(_) => {}
        }
        self
    }

    /// Puts `context: ` before the message, for the variants that carry one.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        match &mut self {
            Self::Usage(m) | Self::Data(m) | Self::Model(m) | Self::Train(m) | Self::Cancelled(m) => {
                m.text = format!("{context}: {}", m.text);
            }
            Self::Io { .. } | Self::Tensor(_) | Self::Internal(_) => {}
        }
        self
    }

    /// A closure for `map_err` on file operations: `.map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The way out, where there is one to tell.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage(m) | Self::Data(m) | Self::Model(m) | Self::Train(m) | Self::Cancelled(m) => m.hint.as_deref(),
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Some("check the path; it is read relative to the current directory"),
                std::io::ErrorKind::PermissionDenied => {
                    Some("choose a place you may write to, or change its permissions")
                }
                std::io::ErrorKind::NotADirectory => {
                    Some("a part of the path is a file, not a directory: choose another place")
                }
                std::io::ErrorKind::AlreadyExists => {
                    Some("something else has that name: move it away or choose another place")
                }
                std::io::ErrorKind::ReadOnlyFilesystem => Some("nothing can be written there: choose another place"),
                std::io::ErrorKind::StorageFull => Some("free some disk space; what was complete is kept"),
                std::io::ErrorKind::QuotaExceeded => {
                    Some("your share of the disk is used up: free some of it; what was complete is kept")
                }
                std::io::ErrorKind::FileTooLarge => {
                    Some("files may not grow that large here: raise the limit (`ulimit -f`); what was complete is kept")
                }
                _ => None,
            },
            Self::Tensor(_) => None,
            Self::Internal(_) => Some("this is a fault of tallow: please report it with the command that led here"),
        }
    }

    /// Whether there was no room left to write to.
    #[must_use]
    pub fn no_room(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Usage(_) => Kind::Usage,
            Self::Data(_) | Self::Model(_) | Self::Train(_) | Self::Io { .. } => Kind::Failed,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::Tensor(_) | Self::Internal(_) => Kind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stay_apart_from_the_message() {
        let error = Error::data("`a.jsonl` line 3: no column `query`").with_hint("name it with `columns`");
        assert_eq!(error.to_string(), "`a.jsonl` line 3: no column `query`");
        assert_eq!(error.hint(), Some("name it with `columns`"));
        assert_eq!(error.kind(), Kind::Failed);
    }

    #[test]
    fn io_errors_carry_the_path() {
        let error = std::fs::read("/nonexistent/x").map_err(Error::io("read", "/nonexistent/x")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read `/nonexistent/x`"));
        assert!(error.hint().is_some());
    }
}
