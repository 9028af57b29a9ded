//! Data sets on the Hub: which of a repository's files are a subset's split, and where they lie once they are here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::Kind;
use super::download::download;
use super::environment::offline;
use super::failure::Failure;
use super::is_id;
use super::parts::{Part, whole};
use super::repository::Repository;
use super::session::{Tell, online};
use super::slices::{self, Slice};
use crate::error::{Error, Result};
use crate::util::files;

/// The branch on which the Hub keeps every public data set as Parquet, `<subset>/<split>/0000.parquet`.
pub(super) const CONVERTED: &str = "refs/convert/parquet";
/// Names of one thing.
const SAME: [&[&str]; 2] = [&["validation", "valid", "val", "dev"], &["test", "eval"]];

/// Rows of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubDataset {
    /// `owner/name`, or a name alone.
    pub id: String,
    /// A branch, tag or commit; `None` for the main one.
    pub revision: Option<String>,
    /// `None` for the only one, or the default.
    pub subset: Option<String>,
    /// A split, some of its rows, or several of these, as [`slices::parse`] reads them.
    pub split: String,
}

/// Rows of one split.
#[derive(Debug)]
pub struct Rows {
    pub slice: Slice,
    /// The split's files, in order.
    pub files: Vec<PathBuf>,
}

impl HubDataset {
    /// The files of its splits, from the cache or downloaded now: the repository's own, or those of the Hub's conversion to
    /// Parquet.
    ///
    /// # Errors
    /// When there is no such data set, subset or split (the message lists those there are), or it cannot be had.
    pub fn rows(&self, tell: Tell<'_>) -> Result<Vec<Rows>> {
        let slices = slices::parse(&self.split)?;
        let what = format!("`{}`", self.id);
        if !is_id(&self.id) {
            return Err(Error::usage(format!("{what} is not the id of a data set"))
                .with_hint("ids look like `sentence-transformers/all-nli`"));
        }
        let revisions: Vec<&str> = match &self.revision {
            Some(revision) => vec![revision],
            None => vec!["main", CONVERTED],
        };
        let repository = |revision| Repository { kind: Kind::Dataset, id: &self.id, revision };
        let rows = |folder: &Path, chosen: Vec<Vec<String>>| {
            let files = |paths: Vec<String>| paths.iter().map(|path| folder.join(path)).collect();
            slices.iter().cloned().zip(chosen).map(|(slice, paths)| Rows { slice, files: files(paths) }).collect()
        };
        // what is here whole needs no network
        let mut several = None;
        for revision in &revisions {
            let Some(folder) = repository(revision).cached() else { continue };
            match self.choose_all(&slices, &below(&folder)?) {
                // offline what is here is all there is, unless names say that parts are missing
                Ok(Some(chosen)) if chosen.iter().all(|part| self.suffices(part)) => return Ok(rows(&folder, chosen)),
                Ok(_) => {}
                Err(error) => several = Some(error),
            }
        }
        if offline() {
            return Err(several.unwrap_or_else(|| Failure::Absent.explain(&format!("the data set {what}"))));
        }
        let found = online(tell, async |session| {
            let mut seen: Vec<String> = Vec::new();
            for revision in &revisions {
                let repository = repository(revision);
                let listing = match repository.list(session).await {
                    Ok(listing) => listing,
                    // not every data set is converted
                    Err(failure) if failure.status() == Some(404) && *revision == CONVERTED => continue,
                    Err(failure) => return Err(failure),
                };
                let paths: Vec<String> = listing.files.iter().map(|file| file.path.clone()).collect();
                match self.choose_all(&slices, &paths) {
                    Ok(Some(chosen)) => {
                        let wanted = |path: &String| chosen.iter().flatten().any(|one| one == path);
                        let (folder, _) = download(session, &repository, &listing, |file| wanted(&file.path)).await?;
                        return Ok(Ok((folder, chosen)));
                    }
                    Ok(None) => seen.extend(paths),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Err(self.unknown(&slices, &seen)))
        });
        let (folder, chosen) = found.map_err(|failure| failure.explain(&what))??;
        Ok(rows(&folder, chosen))
    }

    /// Whether the files of a split that are here are all of it.
    fn suffices(&self, chosen: &[String]) -> bool {
        whole(chosen).unwrap_or(offline()) && (offline() || self.tells(chosen))
    }

    /// Whether these are what is meant whatever else the repository has: of several subsets only one may be here.
    fn tells(&self, chosen: &[String]) -> bool {
        let plain = |path: &String| Part::of(path).is_some_and(|part| matches!(part.subset.as_str(), "" | "default"));
        self.subset.is_some() || chosen.iter().all(plain)
    }

    /// The paths of each split, in order; `None` where one of them is not there.
    fn choose_all(&self, slices: &[Slice], paths: &[String]) -> Result<Option<Vec<Vec<String>>>> {
        slices.iter().map(|slice| self.choose(&slice.split, paths)).collect()
    }

    /// The paths that are the subset's split, in order; `None` where no path is any split of that name.
    ///
    /// # Errors
    /// When the subset is not told and there are several, or there is none of that name.
    fn choose(&self, split: &str, paths: &[String]) -> Result<Option<Vec<String>>> {
        // another word for the split counts only where no file has the split's own
        let parts: Vec<(Part, &String)> = paths.iter().filter_map(|path| Some((Part::of(path)?, path))).collect();
        let words = SAME.iter().find(|words| words.contains(&split)).copied().unwrap_or_default();
        let there = |word: &&str| parts.iter().any(|(part, _)| part.split == **word);
        let split = [split].iter().chain(words).find(|word| there(word)).copied();
        let mut subsets: BTreeMap<String, Vec<(usize, &String)>> = BTreeMap::new();
        for (part, path) in parts.iter().filter(|(part, _)| Some(part.split.as_str()) == split) {
            subsets.entry(part.subset.clone()).or_default().push((part.ending, path));
        }
        let found = match &self.subset {
            Some(subset) => subsets.remove(subset),
            None if subsets.len() > 1 => {
                let default = ["", "default"].into_iter().find_map(|name| subsets.remove(name));
                if default.is_none() {
                    return Err(Error::usage(format!("`{}` has several subsets", self.id))
                        .with_hint(format!("name one with `subset`: {}", shown(subsets.keys().map(String::as_str)))));
                }
                default
            }
            None => subsets.pop_first().map(|(_, files)| files),
        };
        let Some(files) = found else { return Ok(None) };
        let best = files.iter().map(|(ending, _)| *ending).min();
        let mut chosen: Vec<String> =
            files.into_iter().filter(|(ending, _)| Some(*ending) == best).map(|(_, path)| path.clone()).collect();
        chosen.sort();
        Ok(Some(chosen))
    }

    fn unknown(&self, slices: &[Slice], paths: &[String]) -> Error {
        let parts: Vec<Part> = paths.iter().filter_map(|path| Part::of(path)).collect();
        let subsets: BTreeSet<&str> = parts.iter().map(|part| part.subset.as_str()).collect();
        if let Some(subset) = self.subset.as_deref().filter(|subset| !subsets.contains(subset)) {
            return Error::usage(format!("`{}` has no subset `{subset}`", self.id))
                .with_hint(format!("there are {}", shown(subsets.into_iter())));
        }
        let of = |part: &&Part| self.subset.as_ref().is_none_or(|subset| part.subset == *subset);
        let splits: BTreeSet<&str> = parts.iter().filter(of).map(|part| part.split.as_str()).collect();
        let missing = |slice: &&Slice| self.choose(&slice.split, paths).is_ok_and(|found| found.is_none());
        let split = slices.iter().find(missing).map_or(self.split.as_str(), |slice| slice.split.as_str());
        let error = Error::usage(format!("`{}` has no split `{split}`", self.id));
        if splits.is_empty() {
            return error.with_hint("it has no data files that are known: download it and give its `path`");
        }
        error.with_hint(format!("there are {}", shown(splits.into_iter())))
    }
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| if name.is_empty() { "the one without a name".to_owned() } else { format!("`{name}`") })
        .collect::<Vec<_>>()
        .join(", ")
}

/// The files below a folder, as paths from it.
pub(super) fn below(folder: &Path) -> Result<Vec<String>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in files::list(&next)? {
            if entry.is_dir() {
                folders.push(entry);
            } else if let Some(path) = entry.strip_prefix(folder).ok().and_then(|path| path.to_str()) {
                // of a link whose content is gone nothing is here
                if entry.exists() {
                    found.push(path.to_owned());
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dataset(subset: Option<&str>, split: &str) -> HubDataset {
        let id = "owner/name".to_owned();
        HubDataset { id, revision: None, subset: subset.map(str::to_owned), split: split.to_owned() }
    }

    fn choose(subset: Option<&str>, split: &str, paths: &[&str]) -> Option<Vec<String>> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        dataset(subset, split).choose(split, &paths).unwrap()
    }

    fn unknown(subset: Option<&str>, split: &str, paths: &[String]) -> Error {
        dataset(subset, split).unknown(&slices::parse(split).unwrap(), paths)
    }

    #[test]
    fn a_split_is_all_of_its_parts_in_one_format() {
        let paths = [
            "train.csv",
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
            "dev.csv",
            "README.md",
        ];
        let chosen = choose(None, "train", &paths).unwrap();
        assert_eq!(chosen, ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]);
        assert_eq!(choose(None, "validation", &paths).unwrap(), ["dev.csv"]);
        assert!(choose(None, "test", &paths).is_none());
        // two names of one thing are two things where both are there
        let paths = ["dev.jsonl", "validation.jsonl", "eval.jsonl"];
        assert_eq!(choose(None, "validation", &paths).unwrap(), ["validation.jsonl"]);
        assert_eq!(choose(None, "dev", &paths).unwrap(), ["dev.jsonl"]);
        assert_eq!(choose(None, "val", &paths).unwrap(), ["validation.jsonl"]);
        assert_eq!(choose(None, "test", &paths).unwrap(), ["eval.jsonl"]);
    }

    #[test]
    fn subsets_are_told_apart() {
        let paths = ["pair/train.jsonl", "triplet/train.jsonl", "triplet/test.jsonl"];
        assert_eq!(choose(Some("triplet"), "train", &paths).unwrap(), ["triplet/train.jsonl"]);
        assert_eq!(choose(None, "test", &paths).unwrap(), ["triplet/test.jsonl"]);
        let all: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let several = dataset(None, "train").choose("train", &all).unwrap_err();
        assert!(several.hint().unwrap().contains("`pair`, `triplet`"), "{several}");
        let error = unknown(Some("pairs"), "train", &all);
        assert!(error.to_string().contains("no subset `pairs`") && error.hint().unwrap().contains("`pair`"));
        let error = unknown(Some("triplet"), "train[:5]+dev", &all);
        assert!(error.to_string().contains("no split `dev`") && error.hint().unwrap().contains("`test`, `train`"));
        assert_eq!(choose(None, "train", &["default/train.json", "other/train.json"]).unwrap(), ["default/train.json"]);
    }
}
