//! The workspace of a server: the one folder whose files may be read and written through it.

use std::path::{Path, PathBuf};

use crate::data::store::cache;
use crate::error::Result;
use crate::hub;
use crate::util::fence;
pub use crate::util::fence::{VARIABLE, admit, admit_pattern};

/// Keeps this process, and the runs it starts, to the workspace `root` and the caches of the Hub and of tallow.
///
/// # Errors
/// When `root` is not a folder, or the caches cannot be written.
pub fn enter(root: &Path) -> Result<()> {
    let store = cache::folder()?;
    let ours = store.parent().map_or_else(|| store.clone(), Path::to_path_buf);
    fence::set(root, vec![ours, hub::cache_folder()])
}

/// As [`enter`], where the process was started by a server that keeps to a workspace.
///
/// # Errors
/// As [`enter`].
pub fn enter_inherited() -> Result<()> {
    match std::env::var_os(VARIABLE).filter(|root| !root.is_empty()) {
        Some(root) => enter(&PathBuf::from(root)),
        None => Ok(()),
    }
}
