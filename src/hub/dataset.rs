//! Data sets on the Hub: which of a repository's files are a subset's split, and where they lie once they are here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClientSync, HFError};
use serde::{Deserialize, Serialize};

use super::failure::{explain, status};
use super::verify::verify;
use super::{offline, split};
use crate::error::{Error, Result};
use crate::util::files;

/// The branch on which the Hub keeps every public data set as Parquet, `<subset>/<split>/0000.parquet`.
const CONVERTED: &str = "refs/convert/parquet";
/// Endings of data, the best first: of a split that is there in several only the first is read.
const ENDINGS: [&str; 6] = ["parquet", "arrow", "jsonl", "json", "csv", "tsv"];
/// Names of one thing.
const SAME: [&[&str]; 2] = [&["validation", "valid", "val", "dev"], &["test", "eval"]];

/// A split of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubDataset {
    /// `owner/name`.
    pub id: String,
    /// A branch, tag or commit; `None` for the main one.
    pub revision: Option<String>,
    /// `None` for the only one, or the default.
    pub subset: Option<String>,
    pub split: String,
}

impl HubDataset {
    /// Its files, from the cache or downloaded now: the repository's own, or those of the Hub's conversion to Parquet.
    ///
    /// # Errors
    /// When there is no such data set, subset or split (the message lists those there are), or it cannot be had.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let what = format!("`{}`", self.id);
        let Some((owner, name)) = split(&self.id) else {
            return Err(Error::usage(format!("`{}` is not the id of a data set", self.id))
                .with_hint("ids look like `sentence-transformers/all-nli`"));
        };
        let client = HFClientSync::new().map_err(|e| explain(&what, &e))?;
        let repository = client.dataset(owner, name);
        let data = || ENDINGS.iter().map(|ending| format!("*.{ending}")).collect::<Vec<_>>();
        let revisions: Vec<Option<String>> = match &self.revision {
            Some(revision) => vec![Some(revision.clone())],
            None => vec![None, Some(CONVERTED.to_owned())],
        };
        // what is here whole needs no network
        let mut several = None;
        for revision in &revisions {
            let cached = repository
                .snapshot_download()
                .maybe_revision(revision.clone())
                .allow_patterns(data())
                .local_files_only(true)
                .send();
            let Ok(folder) = cached else { continue };
            match self.choose(&below(&folder)?) {
                // offline what is here is all there is, unless names say that parts are missing
                Ok(Some(chosen)) if whole(&chosen).unwrap_or(offline()) && (offline() || self.tells(&chosen)) => {
                    return Ok(chosen.iter().map(|path| folder.join(path)).collect());
                }
                Ok(_) => {}
                Err(error) => several = Some(error),
            }
        }
        if let Some(error) = several.filter(|_| offline()) {
            return Err(error);
        }
        if offline() {
            let missing = HFError::LocalEntryNotFound { path: self.id.clone() };
            return Err(explain(&format!("the data set {what}"), &missing));
        }
        let mut seen: Vec<String> = Vec::new();
        for revision in revisions {
            let tree = repository.list_tree().maybe_revision(revision.clone()).recursive(true).send();
            let entries = match tree {
                Ok(entries) => entries,
                // not every data set is converted
                Err(e) if status(&e) == Some(404) && revision.as_deref() == Some(CONVERTED) => continue,
                Err(e) => return Err(explain(&what, &e)),
            };
            let paths: Vec<String> = entries
                .into_iter()
                .filter_map(|entry| if let RepoTreeEntry::File { path, .. } = entry { Some(path) } else { None })
                .collect();
            if let Some(chosen) = self.choose(&paths)? {
                let folder = repository
                    .snapshot_download()
                    .maybe_revision(revision)
                    .allow_patterns(chosen.clone())
                    .send()
                    .map_err(|e| explain(&what, &e))?;
                let files: Vec<PathBuf> = chosen.iter().map(|path| folder.join(path)).collect();
                files.iter().try_for_each(|file| verify(&what, file))?;
                return Ok(files);
            }
            seen.extend(paths);
        }
        Err(self.unknown(&seen))
    }

    /// Whether these are what is meant whatever else the repository has: of several subsets only one may be here.
    fn tells(&self, chosen: &[String]) -> bool {
        let plain = |path: &String| Part::of(path).is_some_and(|part| matches!(part.subset.as_str(), "" | "default"));
        self.subset.is_some() || chosen.iter().all(plain)
    }

    /// The paths that are the subset's split, in order; `None` where no path is any split of that name.
    ///
    /// # Errors
    /// When the subset is not told and there are several, or there is none of that name.
    fn choose(&self, paths: &[String]) -> Result<Option<Vec<String>>> {
        // another word for the split counts only where no file has the split's own
        let parts: Vec<(Part, &String)> = paths.iter().filter_map(|path| Some((Part::of(path)?, path))).collect();
        let words = SAME.iter().find(|words| words.contains(&self.split.as_str())).copied().unwrap_or_default();
        let there = |word: &&str| parts.iter().any(|(part, _)| part.split == **word);
        let split = [self.split.as_str()].iter().chain(words).find(|word| there(word)).copied();
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

    fn unknown(&self, paths: &[String]) -> Error {
        let parts: Vec<Part> = paths.iter().filter_map(|path| Part::of(path)).collect();
        let subsets: BTreeSet<&str> = parts.iter().map(|part| part.subset.as_str()).collect();
        if let Some(subset) = self.subset.as_deref().filter(|subset| !subsets.contains(subset)) {
            return Error::usage(format!("`{}` has no subset `{subset}`", self.id))
                .with_hint(format!("there are {}", shown(subsets.into_iter())));
        }
        let of = |part: &&Part| self.subset.as_ref().is_none_or(|subset| part.subset == *subset);
        let splits: BTreeSet<&str> = parts.iter().filter(of).map(|part| part.split.as_str()).collect();
        let error = Error::usage(format!("`{}` has no split `{}`", self.id, self.split));
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

/// What a path says of the file: `data/train-00000-of-00002.parquet`, `pair/dev.jsonl`, `default/train/0000.parquet`.
struct Part {
    subset: String,
    split: String,
    /// Its place among [`ENDINGS`].
    ending: usize,
}

impl Part {
    fn of(path: &str) -> Option<Self> {
        let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, ending) = file.rsplit_once('.')?;
        let ending = ENDINGS.iter().position(|known| *known == ending)?;
        let mut folders: Vec<&str> = folders.split('/').filter(|folder| !folder.is_empty()).collect();
        let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        // the number of a part, with how many there are or without
        let mut name = stem;
        if let Some((before, last)) = name.rsplit_once("-of-")
            && number(last)
        {
            name = before;
        }
        if let Some((before, last)) = name.rsplit_once(['-', '_'])
            && number(last)
        {
            name = before;
        }
        let split = if number(name) || matches!(name, "part" | "data") { folders.pop()? } else { name };
        if folders.first() == Some(&"data") {
            folders.remove(0);
        }
        Some(Self { subset: folders.join("/"), split: split.to_owned(), ending })
    }
}

/// Whether all parts are there: `None` where their names do not tell.
fn whole(chosen: &[String]) -> Option<bool> {
    let [first, ..] = chosen else { return Some(false) };
    if let Some((_, rest)) = first.rsplit_once("-of-") {
        let count = rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|count| count.parse::<usize>().ok());
        return count.map(|count| count == chosen.len());
    }
    let numbered = |path: &String| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with(|c: char| c.is_ascii_digit()))
    };
    (chosen.len() == 1 && !numbered(first)).then_some(true)
}

/// The files below a folder, as paths from it.
fn below(folder: &Path) -> Result<Vec<String>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in files::list(&next)? {
            if entry.is_dir() {
                folders.push(entry);
            } else if let Some(path) = entry.strip_prefix(folder).ok().and_then(|path| path.to_str()) {
                found.push(path.to_owned());
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
        dataset(subset, split).choose(&paths).unwrap()
    }

    #[test]
    fn paths_say_what_they_are() {
        let of = |path: &str| Part::of(path).map(|part| (part.subset, part.split));
        let is = |subset: &str, split: &str| Some((subset.to_owned(), split.to_owned()));
        assert_eq!(of("data/train-00000-of-00002.parquet"), is("", "train"));
        assert_eq!(of("triplet/dev-00000-of-00001.parquet"), is("triplet", "dev"));
        assert_eq!(of("default/train/0000.parquet"), is("default", "train"));
        assert_eq!(of("train.jsonl"), is("", "train"));
        assert_eq!(of("en/test/part-3.csv"), is("en", "test"));
        assert_eq!(of("data/en/validation_12.parquet"), is("en", "validation"));
        assert_eq!(of("README.md"), None);
        assert_eq!(of("0000.parquet"), None);
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
        assert_eq!((whole(&chosen), whole(&chosen[..1])), (Some(true), Some(false)));
        let of = |paths: &[&str]| whole(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["dev.csv"]), Some(true));
        // of these there may be more
        assert_eq!((of(&["default/train/0000.parquet"]), of(&["train-1.jsonl", "train-2.jsonl"])), (None, None));
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
        let several = dataset(None, "train").choose(&all).unwrap_err();
        assert!(several.hint().unwrap().contains("`pair`, `triplet`"), "{several}");
        let unknown = dataset(Some("pairs"), "train").unknown(&all);
        assert!(unknown.to_string().contains("no subset `pairs`") && unknown.hint().unwrap().contains("`pair`"));
        let unknown = dataset(Some("triplet"), "dev").unknown(&all);
        assert!(unknown.to_string().contains("no split `dev`") && unknown.hint().unwrap().contains("`test`, `train`"));
        assert_eq!(choose(None, "train", &["default/train.json", "other/train.json"]).unwrap(), ["default/train.json"]);
    }
}
