//! Paths in recipes: read from the recipe's directory first, then from the current one, and made absolute.

use std::path::{Component, Path, PathBuf};

use super::locate::Problem;
use super::plan::Location;
use crate::error::{Error, Result};
use crate::hub;
use crate::util::fence;

/// Where relative paths are looked for.
#[derive(Debug, Clone)]
pub(super) struct Bases {
    recipe: PathBuf,
    current: PathBuf,
}

impl Bases {
    /// For a recipe file at `recipe`.
    ///
    /// # Errors
    /// When the current directory can't be told.
    pub(super) fn new(recipe: &Path) -> Result<Self> {
        let current = std::env::current_dir().map_err(Error::io("find the current directory", "."))?;
        let recipe = current.join(recipe);
        Ok(Self { recipe: recipe.parent().map_or_else(|| current.clone(), Path::to_path_buf), current })
    }

    /// A path that need not exist, from the current directory.
    pub(super) fn here(&self, path: &str) -> PathBuf {
        clean(&self.current.join(path))
    }

    /// As [`Bases::here`], in the workspace where there is one.
    ///
    /// # Errors
    /// When it leads out of that.
    pub(super) fn within(&self, key: &str, path: &str) -> Result<PathBuf, Problem> {
        let path = self.here(path);
        admitted(key, &path)?;
        Ok(path)
    }

    /// The absolute form of a file, directory or glob that is there.
    pub(super) fn find(&self, key: &str, text: &str) -> Result<PathBuf, Problem> {
        if text.trim().is_empty() {
            return Err(Problem::new(key, "is empty").with_hint("give the path of a file or directory"));
        }
        let places = self.places(text);
        // nothing is looked at outside the workspace, not even whether it is there
        let mut refused = None;
        for place in &places {
            match admitted(key, place) {
                Ok(()) => {
                    if let Some(found) = existing(place) {
                        return Ok(found);
                    }
                }
                Err(problem) => refused = Some(problem),
            }
        }
        if let Some(problem) = refused {
            return Err(problem);
        }
        let tried: Vec<String> = places.iter().map(|p| format!("`{}`", clean(p).display())).collect();
        let what = if is_glob(text) { "nothing matches" } else { "there is no" };
        Err(Problem::new(key, format!("{what} `{text}`: looked for {}", tried.join(" and ")))
            .with_hint("relative paths are read from the recipe's directory, then from the current one"))
    }

    /// A local file or directory, or an id on the Hub.
    pub(super) fn find_or_hub(&self, key: &str, text: &str) -> Result<Location, Problem> {
        match self.find(key, text) {
            Ok(path) => Ok(Location::Path(path)),
            Err(_) if is_hub_id(text) => Ok(Location::Hub(text.to_owned())),
            Err(problem) => Err(problem),
        }
    }

    fn places(&self, text: &str) -> Vec<PathBuf> {
        let mut places = vec![self.recipe.join(text)];
        let second = self.current.join(text);
        if clean(&second) != clean(&places[0]) {
            places.push(second);
        }
        places
    }
}

/// Whether `text` could name a repository: `name` or `user/name`, and nothing that looks like a path.
fn is_hub_id(text: &str) -> bool {
    // one part with an ending is a file that was mistyped
    let file = Path::new(text).extension().is_some_and(|e| e == "json" || e == "safetensors");
    hub::is_id(text) && (text.contains('/') || !file)
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn existing(place: &Path) -> Option<PathBuf> {
    if place.exists() {
        return Some(absolute(place));
    }
    let text = place.to_str().filter(|t| is_glob(t))?;
    glob::glob(text).ok()?.find_map(Result::ok)?;
    // links before the first wildcard are followed, so that the glob means the same from anywhere
    let fixed = fence::before_wildcards(place);
    let rest = place.strip_prefix(&fixed).ok()?;
    Some(fixed.canonicalize().unwrap_or_else(|_| clean(&fixed)).join(rest))
}

fn admitted(key: &str, path: &Path) -> Result<(), Problem> {
    fence::admit_pattern(path).map_err(|e| Problem::new(key, e.to_string()).with_hint(e.hint().unwrap_or_default()))
}

/// Links in the directory are followed, the last name is kept: its ending tells the format.
fn absolute(place: &Path) -> PathBuf {
    let resolved = match (place.parent(), place.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|p| p.join(name)),
        _ => place.canonicalize(),
    };
    resolved.unwrap_or_else(|_| clean(place))
}

/// Without `.` and `..`, by the letters alone.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn the_recipes_directory_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for sub in ["recipes", "here", "here/only", "recipes/both", "here/both"] {
            fs::create_dir(root.join(sub)).unwrap();
        }
        fs::write(root.join("recipes/both/a.jsonl"), "").unwrap();
        let bases = Bases { recipe: root.join("recipes"), current: root.join("here") };
        assert_eq!(bases.find("k", "both").unwrap(), root.join("recipes/both"));
        assert_eq!(bases.find("k", "./only").unwrap(), root.join("here/only"));
        assert_eq!(bases.find("k", "../here/only/../both").unwrap(), root.join("here/both"));
        assert_eq!(bases.find("k", "both/*.jsonl").unwrap(), root.join("recipes/both/*.jsonl"));
        assert_eq!(bases.here("runs"), root.join("here/runs"));
        let problem = bases.find("args.x", "gone.jsonl").unwrap_err();
        for place in ["recipes/gone.jsonl", "here/gone.jsonl"] {
            assert!(problem.message.contains(&root.join(place).display().to_string()), "{}", problem.message);
        }
        assert!(bases.find("k", "both/*.csv").unwrap_err().message.starts_with("nothing matches"));
        assert!(bases.find("k", " ").is_err());
    }

    #[test]
    fn hub_ids_are_not_paths() {
        for id in ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-small-en-v1.5"] {
            assert!(is_hub_id(id), "{id}");
        }
        for path in ["../models/x", "./x", "/abs/x", "a/b/c", "tokenizer.json", "a//b", "dir/", "~/x"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
