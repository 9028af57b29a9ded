//! What the Hub's answers mean to whoever asked, and what to do about them.

use hf_hub::HFError;

use crate::error::Error;

/// The status of the Hub's answer, where there was one.
pub(super) fn status(failure: &HFError) -> Option<u16> {
    match failure {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context }
        | HFError::RateLimited { context, .. } => Some(context.status.as_u16()),
        HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => Some(404),
        _ => None,
    }
}

/// What the Hub said itself.
fn said(failure: &HFError) -> Option<&str> {
    match failure {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context }
        | HFError::RateLimited { context, .. } => context.server_message.as_deref(),
        _ => None,
    }
}

/// A failed request as an error: `what` is the repository, as `` `owner/name` ``.
pub(super) fn explain(what: &str, failure: &HFError) -> Error {
    if let HFError::LocalEntryNotFound { .. } = failure {
        return Error::model(format!("{what} is not in the cache, and `HF_HUB_OFFLINE` forbids a download"))
            .with_hint("fetch it once with the network, or give a directory; `HF_HOME` says where the cache is");
    }
    if let HFError::Io(source) = failure {
        return Error::model(format!("{what}: {source}"))
            .with_hint("make room, or point `HF_HOME` at a place that can be written to");
    }
    let (text, hint) = match status(failure) {
        Some(401) => (
            "the Hub wants to know who asks (401)".to_owned(),
            "set `HF_TOKEN`, or log in once with `hf auth login`; a wrong id of a repository looks the same",
        ),
        Some(403) => (
            "the Hub refuses access (403)".to_owned(),
            "ask for access on the repository's page, and use a token of that account which may do this in `HF_TOKEN`",
        ),
        Some(404) => (
            "there is no such repository or revision on the Hub (404), or it is private".to_owned(),
            "check the id; a private one needs `HF_TOKEN`",
        ),
        Some(429) => (
            "the Hub has had too many requests (429)".to_owned(),
            "wait some minutes, and set `HF_TOKEN`, which is allowed more",
        ),
        Some(status @ 500..) => (
            format!("the Hub is in trouble ({status})"),
            "try again later; what was downloaded whole is kept, and the same command goes on there",
        ),
        Some(status) => (format!("the Hub refuses ({status})"), "look at what it says"),
        // the message of a request that failed may hold an address with a signature, so only its kind is told
        None => (
            format!("the Hub cannot be asked: {}", kind(failure)),
            "check the network (and `HF_ENDPOINT`); what was downloaded whole is kept, and the same command goes on there",
        ),
    };
    let said = said(failure).map(|said| format!(": {}", first_line(said))).unwrap_or_default();
    Error::model(format!("{what}: {text}{said}")).with_hint(hint)
}

fn kind(failure: &HFError) -> String {
    match failure {
        HFError::Request { source, .. } if source.is_connect() => "no connection".to_owned(),
        HFError::Request { source, .. } if source.is_timeout() => "it took too long".to_owned(),
        HFError::Request { .. } => "the connection was cut".to_owned(),
        other => first_line(&other.to_string()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
