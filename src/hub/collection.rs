//! Several data sets in one repository, a subset's folder of Parquet files each, a split a data set: NanoBEIR.

use std::path::PathBuf;

use super::cache::Kind;
use super::dataset::below;
use super::download::download;
use super::environment::offline;
use super::failure::Failure;
use super::is_id;
use super::parts::{Part, whole};
use super::repository::Repository;
use super::session::{Tell, online};
use crate::error::{Error, Result};

/// What is wanted of a repository.
#[derive(Debug, Clone)]
pub struct Collection<'a> {
    pub id: &'a str,
    /// Each needs all splits.
    pub subsets: &'a [&'a str],
    pub splits: &'a [String],
    /// Whether the splits were asked for by name. If not, those of them that the repository has will do.
    pub named: bool,
}

impl Collection<'_> {
    /// The folder with its files, from the cache or downloaded now.
    ///
    /// # Errors
    /// When there is no such data set, it has other subsets or splits, or it cannot be had.
    pub fn folder(&self, tell: Tell<'_>) -> Result<PathBuf> {
        let what = format!("the data set `{}`", self.id);
        if !is_id(self.id) {
            return Err(Error::usage(format!("`{}` is not the id of a data set", self.id))
                .with_hint("ids look like `sentence-transformers/NanoBEIR-en`"));
        }
        let repository = Repository { kind: Kind::Dataset, id: self.id, revision: "main" };
        let cached = repository.cached();
        let here = cached.as_deref().map_or(Ok(Vec::new()), below)?;
        if let Some(folder) = cached.filter(|_| self.is_whole(&here) || (offline() && self.begun(&here))) {
            return Ok(folder);
        }
        if offline() {
            return Err(Failure::Absent.explain(&what));
        }
        let found = online(tell, async |session| {
            let listing = repository.list(session).await?;
            let paths: Vec<String> = listing.files.iter().map(|file| file.path.clone()).collect();
            if let Err(error) = self.missing(&paths) {
                return Ok(Err(error));
            }
            Ok(Ok(download(session, &repository, &listing, |file| self.wants(&file.path)).await?.0))
        });
        found.map_err(|failure| failure.explain(&what))?
    }

    /// Whether a file belongs to it.
    fn wants(&self, path: &str) -> bool {
        Part::of(path).is_some_and(|part| {
            part.is_parquet() && self.subsets.contains(&part.subset.as_str()) && self.splits.contains(&part.split)
        })
    }

    fn files(&self, subset: &str, split: &str, paths: &[String]) -> Vec<String> {
        let of = |part: Part| part.is_parquet() && part.subset == subset && part.split == split;
        paths.iter().filter(|path| Part::of(path).is_some_and(of)).cloned().collect()
    }

    /// Whether all of it is among the paths.
    fn is_whole(&self, paths: &[String]) -> bool {
        let all =
            |subset: &&str| self.splits.iter().all(|split| whole(&self.files(subset, split, paths)) == Some(true));
        self.subsets.iter().all(all)
    }

    /// Whether each subset has something among the paths.
    fn begun(&self, paths: &[String]) -> bool {
        self.subsets.iter().all(|subset| self.splits.iter().any(|split| !self.files(subset, split, paths).is_empty()))
    }

    /// Refuses a repository that has not what is wanted.
    fn missing(&self, paths: &[String]) -> Result<()> {
        for subset in self.subsets {
            let lacks = |split: &&String| self.files(subset, split, paths).is_empty();
            let all = self.splits.iter().all(|split| lacks(&split));
            if let Some(split) = self.splits.iter().find(lacks).filter(|_| self.named || all) {
                return Err(Error::data(format!("`{}` has no Parquet file of `{split}` in `{subset}`", self.id)).with_hint(
                    "it needs a subset each for the corpus, the queries and their judgements, with a split a data set, as \
                     `sentence-transformers/NanoBEIR-en` has them; or give a folder as `path`",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let splits = ["NanoNQ".to_owned(), "NanoFEVER".to_owned()];
        let named = Collection { id: "owner/nano", subsets: &["corpus", "qrels"], splits: &splits, named: true };
        let any = Collection { named: false, ..named.clone() };
        let paths =
            |names: &[&str]| names.iter().map(|name| format!("{name}-00000-of-00001.parquet")).collect::<Vec<_>>();
        let one = paths(&["corpus/NanoNQ", "qrels/NanoNQ"]);
        assert!(any.missing(&one).is_ok() && any.begun(&one) && !any.is_whole(&one));
        assert!(named.missing(&one).unwrap_err().to_string().contains("`NanoFEVER` in `corpus`"));
        assert!(any.missing(&paths(&["corpus/NanoNQ"])).unwrap_err().to_string().contains("in `qrels`"));
        let all = paths(&["corpus/NanoNQ", "corpus/NanoFEVER", "qrels/NanoNQ", "qrels/NanoFEVER"]);
        assert!(named.missing(&all).is_ok() && named.is_whole(&all));
        assert!(
            named.wants(&all[1]) && !named.wants("bm25/NanoNQ-00000-of-00001.parquet") && !named.wants("corpus/a.txt")
        );
    }
}
