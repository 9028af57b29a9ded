//! A model's folder onto the Hub.

use std::path::Path;

use hf_hub::{HFClient, HFClientSync, HFError, RepoTypeModel};

use super::environment::{Environment, offline};
use super::failure::Failure;
use super::{session, split};
use crate::error::{Error, Result};

/// Seconds that the Hub may take for an answer: a commit of many files takes a while.
const PATIENCE_S: u64 = 300;

/// What goes where.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    pub folder: &'a Path,
    /// `owner/name`, or a name for the token's own account.
    pub id: &'a str,
    /// Of a repository that is made for it.
    pub private: bool,
    /// The branch, made if there is none; `None` for the main one.
    pub revision: Option<&'a str>,
    pub message: &'a str,
    /// Proposes it instead, as a pull request.
    pub create_pr: bool,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub id: String,
    /// The page of the repository, or of the pull request.
    pub url: String,
    /// The commit.
    pub commit: Option<String>,
}

/// The full id that a model would get: publishing is allowed here, and the Hub knows the token.
///
/// # Errors
/// When the network is forbidden, the id is none, or the Hub does not know who asks.
pub fn check(id: &str) -> Result<String> {
    connect(id).map(|(_, _, id)| id)
}

/// The client, its address and the full id.
fn connect(id: &str) -> Result<(HFClientSync, String, String)> {
    let shown = format!("`{id}`");
    let alone = !id.is_empty() && !id.contains('/');
    if !alone && split(id).is_none() {
        return Err(Error::usage(format!("{shown} is not the id of a repository"))
            .with_hint("ids look like `owner/name`; a name alone is your own account's"));
    }
    if offline() {
        return Err(Error::usage(format!("{shown}: `HF_HUB_OFFLINE` forbids to publish")).with_hint("unset it"));
    }
    let failed = |e: HFError| Failure::from(e).explain(&shown);
    let environment = Environment::read();
    let address = environment.endpoint.clone();
    let client = HFClient::builder()
        .client(session::client(PATIENCE_S).map_err(|failure| failure.explain(&shown))?)
        .endpoint(environment.endpoint)
        .cache_dir(environment.cache)
        // without one the builder looks for itself; what cannot stand in a header is not sent
        .token(environment.token.unwrap_or_else(|| "\n".to_owned()))
        .build()
        .map_err(failed)?;
    let client = HFClientSync::from_inner(client).map_err(failed)?;
    let user = client.whoami().send().map_err(failed)?;
    let id = if alone { format!("{}/{id}", user.username) } else { id.to_owned() };
    Ok((client, address, id))
}

/// Makes the repository if there is none, and uploads all files of the folder in one commit: it is there whole or not at
/// all. The token is that of `HF_TOKEN`, or the one that `hf auth login` left.
///
/// # Errors
/// When the folder has no model, the network is forbidden, there is no token, the Hub refuses, or the model is to be
/// private and the repository is public; nothing in the folder is changed.
pub fn push(what: &Push<'_>) -> Result<Pushed> {
    if !["modules.json", "config.json", "adapter_config.json"].iter().any(|file| what.folder.join(file).is_file()) {
        return Err(Error::usage(format!("`{}` is no model's folder", what.folder.display()))
            .with_hint("name one that a model was saved in, such as `runs/<run_id>/model` once the run is done"));
    }
    let (client, address, id) = connect(what.id)?;
    let shown = format!("`{id}`");
    let Some((owner, name)) = split(&id) else {
        return Err(Error::Internal(format!("the id {shown}")));
    };
    let failed = |e: HFError| Failure::from(e).explain(&shown);
    let repository = client.model(owner, name);
    // one that is proposed to is somebody else's
    if !what.create_pr {
        let made = client.create_repository().repo_id(&id).repo_type(RepoTypeModel).private(what.private).send();
        if let Err(refusal) = made.map_err(Failure::from) {
            let (there, barred) = (refusal.status() == Some(409), refusal.status() == Some(403));
            // a token that may make none may still write to one that is there
            let known = if barred || (there && what.private) { repository.info().send().ok() } else { None };
            if !there && known.is_none() {
                return Err(refusal.explain(&shown));
            }
            if what.private && known.is_none_or(|known| known.private == Some(false)) {
                return Err(Error::usage(format!("{shown} is there and public, and the model is to be private"))
                    .with_hint("name another repository, make that one private on its page, or publish for all"));
            }
        }
        if let Some(branch) = what.revision.filter(|branch| *branch != "main") {
            let made = repository.create_branch().branch(branch).send();
            let made = made.map_err(Failure::from);
            made.or_else(|e| if e.status() == Some(409) { Ok(()) } else { Err(e.explain(&shown)) })?;
        }
    }
    let commit = repository
        .upload_folder()
        .folder_path(what.folder)
        .maybe_revision(what.revision)
        .commit_message(what.message)
        .create_pr(what.create_pr)
        // what other programs leave, and what is being written
        .ignore_patterns(vec![".*".to_owned(), "*/.*".to_owned(), "checkpoints/*".to_owned()])
        .send()
        .map_err(failed)?;
    Ok(Pushed { url: commit.pr_url.unwrap_or_else(|| format!("{address}/{id}")), commit: commit.commit_oid, id })
}
