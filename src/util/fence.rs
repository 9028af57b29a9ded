//! Where may this process read and write? Everywhere, until a server is given a workspace; then only there.
//!
//! A path is judged by where it really leads: links are followed, and of what is not there yet the folder above. Two
//! circles: what users name (arguments, recipes) must lie in the workspace; what the program opens for them may also
//! lie in its own caches. A child process of the server finds the workspace in [`VARIABLE`].

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The environment variable that names the workspace to a process.
pub const VARIABLE: &str = "TALLOW_WORKSPACE";

/// The places that are open: the workspace first, then the caches.
#[derive(Debug)]
struct Fence {
    workspace: PathBuf,
    caches: Vec<PathBuf>,
}

static FENCE: OnceLock<Fence> = OnceLock::new();

/// From now on, and for good, this process keeps to `workspace` and the `caches`.
///
/// # Errors
/// When the workspace is not a folder, or another one was set before.
pub fn set(workspace: &Path, caches: Vec<PathBuf>) -> Result<()> {
    let workspace = workspace.canonicalize().map_err(Error::io("open the workspace", workspace))?;
    if !workspace.is_dir() {
        return Err(Error::usage(format!("the workspace `{}` is not a folder", workspace.display()))
            .with_hint("name the folder that holds data, recipes and runs"));
    }
    let caches = caches.into_iter().filter_map(|cache| real(&cache)).collect();
    let fence = FENCE.get_or_init(|| Fence { workspace: workspace.clone(), caches });
    if fence.workspace == workspace {
        Ok(())
    } else {
        Err(Error::Internal(format!("the workspace is `{}` already", fence.workspace.display())))
    }
}

/// The workspace, where there is one.
#[must_use]
pub fn workspace() -> Option<&'static Path> {
    FENCE.get().map(|fence| fence.workspace.as_path())
}

/// Refuses a path that a user named and that leads out of the workspace.
///
/// # Errors
/// [`Error::Usage`] naming the path and the workspace.
pub fn admit(path: &Path) -> Result<()> {
    match FENCE.get() {
        Some(fence) if !fence.holds(path, false) => Err(fence.refusal(path)),
        _ => Ok(()),
    }
}

/// Refuses to open what lies neither in the workspace nor in a cache.
///
/// # Errors
/// As [`admit`].
pub fn admit_open(path: &Path) -> Result<()> {
    match FENCE.get() {
        Some(fence) if !fence.holds(path, true) => Err(fence.refusal(path)),
        _ => Ok(()),
    }
}

/// The part of a path or pattern before its first wildcard.
#[must_use]
pub fn before_wildcards(pattern: &Path) -> PathBuf {
    pattern.components().take_while(|part| !is_wild(part)).collect()
}

/// As [`admit`], of a path that may be a pattern: what a wildcard may stand for must not lead upwards again.
///
/// # Errors
/// As [`admit`].
pub fn admit_pattern(pattern: &Path) -> Result<()> {
    let climbs = |part: Component<'_>| part == Component::ParentDir;
    let fixed = before_wildcards(pattern);
    let wild = pattern.components().skip(fixed.components().count());
    match FENCE.get() {
        Some(fence) if wild.into_iter().any(climbs) => Err(fence.refusal(pattern)),
        // a pattern that begins with a wildcard is one of the current directory
        _ if fixed.as_os_str().is_empty() => admit(Path::new(".")),
        _ => admit(&fixed),
    }
}

fn is_wild(part: &Component<'_>) -> bool {
    part.as_os_str().to_string_lossy().contains(['*', '?', '['])
}

impl Fence {
    fn holds(&self, path: &Path, caches: bool) -> bool {
        let Some(real) = real(path) else { return false };
        let within = |place: &PathBuf| real.starts_with(place);
        within(&self.workspace) || (caches && self.caches.iter().any(within))
    }

    fn refusal(&self, path: &Path) -> Error {
        Error::usage(format!("`{}` leads out of the workspace `{}`", path.display(), self.workspace.display()))
            .with_hint("name a path in the workspace; `tallow mcp --root DIR` sets another one")
    }
}

/// Where a path leads: links followed as far as it is there, and no `..` after that; `None` where that cannot be told.
fn real(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let mut rest = Vec::new();
    let mut there = absolute.as_path();
    loop {
        match there.canonicalize() {
            Ok(found) => return Some(rest.iter().rev().fold(found, |path, part| path.join(part))),
            // a link that leads nowhere would be written through
            Err(_) if there.is_symlink() => return None,
            Err(_) => {}
        }
        match there.components().next_back()? {
            Component::Normal(name) => rest.push(name.to_owned()),
            _ => return None,
        }
        there = there.parent()?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fence(dir: &Path) -> Fence {
        let place = |name: &str| {
            std::fs::create_dir_all(dir.join(name)).unwrap();
            dir.join(name).canonicalize().unwrap()
        };
        Fence { workspace: place("work"), caches: vec![place("cache")] }
    }

    #[test]
    fn what_lies_inside_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let fence = fence(dir.path());
        let at = |path: &str| dir.path().join(path);
        std::fs::write(at("work/a.txt"), "a").unwrap();
        for path in ["work", "work/a.txt", "work/new/deep/file", "work/../work/a.txt"] {
            assert!(fence.holds(&at(path), false), "{path}");
        }
        for path in ["", "work/../secret", "workshop", "work/no/../../../secret", "cache/x"] {
            assert!(!fence.holds(&at(path), false), "{path}");
        }
        assert!(fence.holds(&at("cache/x"), true));
        assert!(fence.refusal(Path::new("/etc/passwd")).hint().unwrap().contains("--root"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let fence = fence(dir.path());
        let at = |path: &str| dir.path().join(path);
        std::fs::write(at("secret"), "s").unwrap();
        std::fs::create_dir(at("outside")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(dir.path().join(to), at(name)).unwrap();
        link("secret", "work/file");
        link("outside", "work/folder");
        link("nowhere", "work/dangling");
        link("work", "way-in");
        for path in ["work/file", "work/folder", "work/folder/new", "work/dangling", "work/dangling/x"] {
            assert!(!fence.holds(&at(path), true), "{path}");
        }
        assert!(fence.holds(&at("way-in/new"), false));
    }
}
