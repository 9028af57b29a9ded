//! A model's folder onto the Hub.

use std::path::Path;

use hf_hub::{HFClientSync, RepoTypeModel};

use super::failure::explain;
use super::{offline, split};
use crate::error::{Error, Result};

/// What goes where.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    pub folder: &'a Path,
    /// `owner/name`, or a name for the token's own account.
    pub id: &'a str,
    /// Of a repository that is made for it.
    pub private: bool,
    /// The branch; `None` for the main one.
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

/// Makes the repository if there is none, and uploads all files of the folder in one commit: it is there whole or not at
/// all. The token is that of `HF_TOKEN`, or the one that `hf auth login` left.
///
/// # Errors
/// When the network is forbidden, there is no token, or the Hub refuses; nothing in the folder is changed.
pub fn push(what: &Push<'_>) -> Result<Pushed> {
    let shown = format!("`{}`", what.id);
    if !what.folder.is_dir() {
        return Err(Error::usage(format!("there is no folder `{}`", what.folder.display())));
    }
    if offline() {
        return Err(Error::usage(format!("{shown}: `HF_HUB_OFFLINE` forbids to publish")).with_hint("unset it"));
    }
    let client = HFClientSync::new().map_err(|e| explain(&shown, &e))?;
    let id = match split(what.id) {
        Some(_) => what.id.to_owned(),
        None if !what.id.is_empty() && !what.id.contains('/') => {
            let user = client.whoami().send().map_err(|e| explain(&shown, &e))?;
            format!("{}/{}", user.username, what.id)
        }
        None => {
            return Err(Error::usage(format!("{shown} is not the id of a repository"))
                .with_hint("ids look like `owner/name`; a name alone is your own account's"));
        }
    };
    let shown = format!("`{id}`");
    let Some((owner, name)) = split(&id) else {
        return Err(Error::Internal(format!("the id {shown}")));
    };
    let page = client
        .create_repository()
        .repo_id(&id)
        .repo_type(RepoTypeModel)
        .private(what.private)
        .exist_ok(true)
        .send()
        .map_err(|e| explain(&shown, &e))?;
    let commit = client
        .model(owner, name)
        .upload_folder()
        .folder_path(what.folder)
        .maybe_revision(what.revision)
        .commit_message(what.message)
        .create_pr(what.create_pr)
        // what other programs leave, and what is being written
        .ignore_patterns(vec![".*".to_owned(), "*/.*".to_owned(), "checkpoints/*".to_owned()])
        .send()
        .map_err(|e| explain(&shown, &e))?;
    Ok(Pushed { url: commit.pr_url.unwrap_or(page.url), commit: commit.commit_oid, id })
}
