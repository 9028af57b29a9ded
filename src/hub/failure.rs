//! What does it mean to whoever asked when the Hub refuses, and what is to be done about it?

use std::time::Duration;

use hf_hub::HFError;

use super::environment::Environment;
use crate::error::Error;

/// Why something did not come, or go.
#[derive(Debug)]
pub(super) enum Failure {
    /// An answer that is no yes.
    Refused {
        status: u16,
        /// What the Hub said itself.
        said: Option<String>,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// Nobody answered.
    NoConnection,
    /// It took too long.
    TooLong,
    /// The connection ended early.
    Cut,
    /// An answer that cannot be what was asked for, and why.
    Unexpected(String),
    /// Not in the cache, and the network is forbidden.
    Absent,
    /// Somebody stopped the process.
    Stopped,
    /// The machine's own refusal.
    Own(Error),
}

impl Failure {
    /// The status of the Hub's answer, where there was one.
    pub(super) fn status(&self) -> Option<u16> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }

    /// Whether the same request may well succeed in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::NoConnection | Self::TooLong | Self::Cut => true,
            Self::Unexpected(_) | Self::Absent | Self::Stopped | Self::Own(_) => false,
        }
    }

    /// In a few words.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Refused { status: 429, .. } => "the Hub has had too many requests (429)".to_owned(),
            Self::Refused { status: status @ 500.., .. } => format!("the Hub is in trouble ({status})"),
            Self::Refused { status, .. } => format!("the Hub refuses ({status})"),
            Self::NoConnection => "no connection".to_owned(),
            Self::TooLong => "it took too long".to_owned(),
            Self::Cut => "the connection was cut".to_owned(),
            Self::Unexpected(text) => text.clone(),
            Self::Absent => "it is not in the Hugging Face cache".to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::Own(error) => error.to_string(),
        }
    }

    /// As an error: `what` is the repository, as `` `owner/name` ``.
    pub(super) fn explain(self, what: &str) -> Error {
        let brief = self.brief();
        let (text, hint) = match &self {
            Self::Own(Error::Io { source, .. }) => {
                let hint = "make room, or point `HF_HOME` at a place that can be written to";
                return Error::model(format!("{what}: {source}")).with_hint(hint);
            }
            Self::Own(error) => {
                let hint = error.hint().unwrap_or("the same command goes on where this one was");
                return Error::model(format!("{what}: {error}")).with_hint(hint);
            }
            Self::Absent => {
                return Error::model(format!(
                    "{what} is not in the Hugging Face cache, and `HF_HUB_OFFLINE` forbids a download"
                ))
                .with_hint(
                    "unset `HF_HUB_OFFLINE` and fetch it once (`tallow pull`), or give a directory; `HF_HOME` says where the \
                         cache is",
                );
            }
            Self::Stopped => {
                return Error::cancelled(format!("{what}: stopped while it came from the Hub"))
                    .with_hint("the same command goes on where this one was");
            }
            Self::Refused { status: 401, .. } => (
                "the Hub wants to know who asks (401)".to_owned(),
                "set `HF_TOKEN`, or log in once with `hf auth login`; a wrong id of a repository looks the same",
            ),
            Self::Refused { status: 403, .. } => (
                "the Hub refuses access (403)".to_owned(),
                "ask for access on the repository's page, and use a token of that account which may do this in `HF_TOKEN`",
            ),
            Self::Refused { status: 404, .. } => (
                "there is no such repository or revision on the Hub (404), or it is private".to_owned(),
                "check the id; a private one needs `HF_TOKEN`",
            ),
            Self::Refused { status: 429, .. } => {
                (brief, "wait some minutes, and set `HF_TOKEN`, which is allowed more")
            }
            Self::Refused { status: 500.., .. } => {
                (brief, "try again later; what was downloaded is kept, and the same command goes on there")
            }
            Self::Refused { .. } => (brief, "look at what it says"),
            Self::NoConnection | Self::TooLong | Self::Cut | Self::Unexpected(_) => (
                format!("the Hub cannot be asked: {brief}"),
                "check the network (and `HF_ENDPOINT`); what was downloaded is kept, and the same command goes on there",
            ),
        };
        let said = match &self {
            Self::Refused { said: Some(said), .. } => format!(": {}", first_line(said)),
            _ => String::new(),
        };
        // whoever is asked may repeat what they were told
        let text = Environment::read().without_token(&format!("{what}: {text}{said}"));
        Error::model(text).with_hint(hint)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // the message of a request that failed may hold an address with a signature, so only its kind is told
        if error.is_timeout() && !error.is_connect() {
            Self::TooLong
        } else if error.is_connect() {
            Self::NoConnection
        } else if error.is_builder() {
            Self::Unexpected("the address is none".to_owned())
        } else if error.is_redirect() {
            Self::Unexpected("it sends from one address to the next without an end".to_owned())
        } else {
            Self::Cut
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        let refused = |status, said: Option<String>| Self::Refused { status, said, wait: None };
        match error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::RateLimited { context, .. } => refused(context.status.as_u16(), context.server_message.clone()),
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => {
                refused(404, None)
            }
            HFError::Request { source, .. } => source.into(),
            HFError::Io(source) => Self::Unexpected(first_line(&source.to_string())),
            other => Self::Unexpected(first_line(&other.to_string())),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
