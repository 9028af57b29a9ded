//! Downloads of whole repositories, into the same cache that Python's `huggingface_hub` uses.

use std::path::{Path, PathBuf};

use super::cache::Kind;
use super::dataset::{CONVERTED, below};
use super::download::{Came, download};
use super::environment::offline;
use super::failure::Failure;
use super::is_id;
use super::parts::Part;
use super::repository::{Listing, Remote, Repository};
use super::session::{Session, Tell, online};
use crate::error::{Error, Result};
use crate::util::files;

/// Endings of what a model needs; other formats of the same weights stay where they are.
const WANTED: [&str; 4] = ["json", "safetensors", "txt", "model"];
const UNWANTED: [&str; 2] = ["onnx/", "openvino/"];

/// As [`model`], with nobody listening.
///
/// # Errors
/// As there.
pub fn fetch(id: &str, revision: Option<&str>) -> Result<PathBuf> {
    model(id, revision, &mut |_| {})
}

/// The directory of the model `id` (`owner/name`, or a name alone) at a revision, the main branch without one, from the
/// cache or downloaded now.
///
/// # Errors
/// When the id is no id, or the model is neither in the cache nor to be had.
pub fn model(id: &str, revision: Option<&str>, tell: Tell<'_>) -> Result<PathBuf> {
    let what = shown(id, "a directory nor the id of a model", "ids look like `owner/name`; a directory must exist")?;
    let repository = Repository { kind: Kind::Model, id, revision: revision.unwrap_or("main") };
    if let Some(folder) = repository.cached().filter(|folder| is_whole(folder)) {
        return Ok(folder);
    }
    if offline() {
        return Err(Failure::Absent.explain(&what));
    }
    let found = online(tell, async |session| {
        let listing = repository.list(session).await?;
        Ok(download(session, &repository, &listing, wanted_of_model).await?.0)
    });
    found.map_err(|failure| {
        let absent = failure.status() == Some(404);
        let error = failure.explain(&what);
        match error.hint().map(str::to_owned).filter(|_| absent) {
            // a folder's name that was mistyped looks like an id
            Some(hint) => error.with_hint(format!(
                "{hint}; nor is there such a directory beside the recipe or here, where paths are looked for first"
            )),
            None => error,
        }
    })
}

/// The directory of the model `id` in the cache, with its small files at least; nothing is downloaded.
#[must_use]
pub fn cached(id: &str) -> Option<PathBuf> {
    let folder = is_id(id).then(|| Repository { kind: Kind::Model, id, revision: "main" }.cached())??;
    Some(folder).filter(|path| path.join("config.json").is_file() || path.join("modules.json").is_file())
}

/// What [`pull`] brought.
#[derive(Debug)]
pub struct Pulled {
    pub kind: Kind,
    pub folder: PathBuf,
    /// Files that are there now, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Those of them that were not there before.
    pub came: usize,
}

/// The folder of a repository as it is now at a revision, the main branch without one: what was missing is downloaded.
/// Without a `kind` it is looked for among the models, then among the data sets.
///
/// # Errors
/// When the id is no id, or the repository cannot be had, or, where the network is forbidden, is not in the cache.
pub fn pull(id: &str, kind: Option<Kind>, revision: Option<&str>, tell: Tell<'_>) -> Result<Pulled> {
    let what = shown(id, "the id of a model nor of a data set", "ids look like `owner/name`")?;
    let kinds: Vec<Kind> = kind.map_or_else(|| vec![Kind::Model, Kind::Dataset], |kind| vec![kind]);
    let repository = |kind, revision| Repository { kind, id, revision };
    let revisions = |kind| match (kind, revision) {
        (_, Some(revision)) => vec![revision],
        (Kind::Model, None) => vec!["main"],
        (Kind::Dataset, None) => vec!["main", CONVERTED],
    };
    if offline() {
        let all = kinds.iter().flat_map(|kind| revisions(*kind).into_iter().map(|revision| (*kind, revision)));
        // a model that came in part is none
        let whole = |kind, folder: &PathBuf| kind == Kind::Dataset || is_whole(folder);
        let mut here = all.filter_map(|(kind, revision)| {
            Some((kind, repository(kind, revision).cached().filter(|folder| whole(kind, folder))?))
        });
        let Some((kind, folder)) = here.next() else { return Err(Failure::Absent.explain(&what)) };
        return pulled(kind, folder, 0);
    }
    let found = online(tell, async |session| {
        let mut refused = None;
        for kind in kinds {
            match bring(session, &revisions(kind).into_iter().map(|one| repository(kind, one)).collect::<Vec<_>>())
                .await
            {
                Ok((folder, came)) => return Ok((kind, folder, came.files)),
                // the Hub says the same of what is not there and of what may not be seen
                Err(failure) if matches!(failure.status(), Some(401 | 404)) => refused = refused.or(Some(failure)),
                Err(failure) => return Err(failure),
            }
        }
        Err(refused.unwrap_or(Failure::Absent))
    });
    let (kind, folder, came) = found.map_err(|failure| failure.explain(&what))?;
    pulled(kind, folder, came)
}

/// The first of several revisions that has something to bring.
async fn bring(session: &Session, revisions: &[Repository<'_>]) -> Result<(PathBuf, Came), Failure> {
    let mut nothing = None;
    for repository in revisions {
        let listing: Listing = match repository.list(session).await {
            Ok(listing) => listing,
            Err(failure) if nothing.is_some() && failure.status() == Some(404) => continue,
            Err(failure) => return Err(failure),
        };
        let wanted = |file: &Remote| match repository.kind {
            Kind::Model => wanted_of_model(file),
            Kind::Dataset => Part::of(&file.path).is_some(),
        };
        if listing.files.iter().any(wanted) {
            return download(session, repository, &listing, wanted).await;
        }
        nothing.get_or_insert_with(|| {
            Failure::Own(
                Error::data("it has no files that could be read")
                    .with_hint("models are read as safetensors, data as Parquet, Arrow, JSON, CSV or TSV"),
            )
        });
    }
    Err(nothing.unwrap_or(Failure::Absent))
}

fn pulled(kind: Kind, folder: PathBuf, came: usize) -> Result<Pulled> {
    let paths = below(&folder)?;
    let bytes =
        paths.iter().filter_map(|path| std::fs::metadata(folder.join(path)).ok()).map(|about| about.len()).sum();
    Ok(Pulled { kind, folder, files: paths.len(), bytes, came })
}

/// The id as messages have it.
fn shown(id: &str, neither: &str, hint: &str) -> Result<String> {
    match is_id(id) {
        true => Ok(format!("`{id}`")),
        false => Err(Error::usage(format!("`{id}` is neither {neither}")).with_hint(hint)),
    }
}

fn wanted_of_model(file: &Remote) -> bool {
    let ending = file.path.rsplit_once('.').map_or("", |(_, ending)| ending);
    WANTED.contains(&ending) && !UNWANTED.iter().any(|folder| file.path.starts_with(folder))
}

/// Whether a cached snapshot has weights, in its root or in a module's folder; a download may have been broken off.
fn is_whole(snapshot: &Path) -> bool {
    // of a checkpoint in parts they name how many they are
    let parts = |dir: &Path| {
        let names = files::list(dir).unwrap_or_default();
        let names = names
            .iter()
            .filter(|path| path.exists())
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("model-")?.strip_suffix(".safetensors"));
        let counts: Vec<usize> = names.filter_map(|name| name.split_once("-of-")?.1.parse().ok()).collect();
        counts.first().is_some_and(|count| *count == counts.len())
    };
    let has = |dir: &Path| dir.join("model.safetensors").exists() || parts(dir);
    has(snapshot) || files::list(snapshot).is_ok_and(|entries| entries.iter().any(|entry| has(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_refused_without_asking() {
        for id in ["a/b/c", "/x", "x/", "", ".x", "a b"] {
            let error = fetch(id, None).unwrap_err();
            assert!(error.to_string().contains("neither a directory nor"), "{error}");
            assert!(pull(id, None, None, &mut |_| {}).unwrap_err().to_string().contains("neither the id"));
        }
    }

    #[test]
    fn a_model_is_its_safetensors_and_what_describes_it() {
        let wanted = |path: &str| wanted_of_model(&Remote { path: path.to_owned(), size: 1, etag: "a".to_owned() });
        for path in ["config.json", "1_Pooling/config.json", "model.safetensors", "vocab.txt", "spiece.model"] {
            assert!(wanted(path), "{path}");
        }
        for path in ["pytorch_model.bin", "onnx/config.json", "openvino/x.json", "README.md", "json"] {
            assert!(!wanted(path), "{path}");
        }
    }
}
