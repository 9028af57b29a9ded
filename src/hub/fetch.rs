//! Downloads, into the same cache that Python's `huggingface_hub` uses.

use std::path::{Path, PathBuf};

use hf_hub::{HFClientSync, HFError};

use super::failure::explain;
use super::verify::verify;
use super::{offline, split};
use crate::error::{Error, Result};
use crate::util::files;

/// What a model needs; other formats of the same weights stay where they are.
const WANTED: [&str; 4] = ["*.json", "*.safetensors", "*.txt", "*.model"];
const UNWANTED: [&str; 3] = ["onnx/*", "openvino/*", "*.bin"];

/// The directory of the model `id` (`owner/name`), from the cache or downloaded now.
///
/// `HF_HOME` places the cache, `HF_TOKEN` opens private models, `HF_HUB_OFFLINE=1` forbids the network.
///
/// # Errors
/// When the id is no id, or the model is neither in the cache nor to be had.
pub fn fetch(id: &str) -> Result<PathBuf> {
    let Some((owner, name)) = split(id) else {
        return Err(Error::usage(format!("`{id}` is neither a directory nor the id of a model"))
            .with_hint("ids look like `sentence-transformers/all-MiniLM-L6-v2`; a directory must exist"));
    };
    let shown = format!("`{id}`");
    let failed = |e: &HFError| explain(&shown, e);
    let client = HFClientSync::new().map_err(|e| failed(&e))?;
    let repository = client.model(owner, name);
    let patterns = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    let cached = repository.snapshot_download().allow_patterns(patterns(&WANTED)).local_files_only(true).send();
    if let Ok(path) = cached
        && is_whole(&path)
    {
        return Ok(path);
    }
    if offline() {
        return Err(failed(&HFError::LocalEntryNotFound { path: id.to_owned() }));
    }
    let path = repository
        .snapshot_download()
        .allow_patterns(patterns(&WANTED))
        .ignore_patterns(patterns(&UNWANTED))
        .send()
        .map_err(|e| failed(&e))?;
    check(&shown, &path)?;
    Ok(path)
}

/// Verifies all files of a snapshot.
fn check(what: &str, folder: &Path) -> Result<()> {
    for entry in files::list(folder)? {
        if entry.is_dir() {
            check(what, &entry)?;
        } else {
            verify(what, &entry)?;
        }
    }
    Ok(())
}

/// The directory of all Parquet files of the data set `id` (`owner/name`), from the cache or downloaded now.
///
/// # Errors
/// When the id is no id, or the data set is neither in the cache nor to be had.
pub fn fetch_dataset(id: &str) -> Result<PathBuf> {
    let Some((owner, name)) = split(id) else {
        return Err(Error::usage(format!("`{id}` is not the id of a data set"))
            .with_hint("ids look like `sentence-transformers/NanoBEIR-en`"));
    };
    let shown = format!("`{id}`");
    let client =
        HFClientSync::new().map_err(|e| Error::model(format!("the Hugging Face cache cannot be read: {e}")))?;
    let repository = client.dataset(owner, name);
    let wanted = || vec!["*.parquet".to_owned()];
    let cached = repository.snapshot_download().allow_patterns(wanted()).local_files_only(true).send().ok();
    match cached.filter(|path| path.is_dir()) {
        // offline what is here is all there is
        Some(path) if offline() || is_even(&path)? => return Ok(path),
        None if offline() => {
            return Err(Error::data(format!("the data set {shown} is not in the Hugging Face cache")).with_hint(
                "`HF_HUB_OFFLINE` forbids to fetch it: unset it, or give a folder of data sets in the BEIR layout; \
                 `HF_HOME` says where the cache is",
            ));
        }
        _ => {}
    }
    let path = repository.snapshot_download().allow_patterns(wanted()).send().map_err(|e| explain(&shown, &e))?;
    check(&shown, &path)?;
    Ok(path)
}

/// Whether all folders of a cached snapshot have the same Parquet files: a download may have been broken off.
fn is_even(snapshot: &Path) -> Result<bool> {
    let mut all = Vec::new();
    for folder in files::list(snapshot)?.into_iter().filter(|path| path.is_dir()) {
        let mut names: Vec<_> = files::list(&folder)?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"))
            .filter_map(|path| path.file_name().map(ToOwned::to_owned))
            .collect();
        names.sort();
        all.push(names);
    }
    all.retain(|names| !names.is_empty());
    Ok(all.len() > 2 && all.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Whether a cached snapshot has weights, in its root or in a module's folder; a download may have been broken off.
fn is_whole(snapshot: &Path) -> bool {
    // of a checkpoint in parts they name how many they are
    let parts = |dir: &Path| {
        let names = files::list(dir).unwrap_or_default();
        let names = names
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("model-")?.strip_suffix(".safetensors"));
        let counts: Vec<usize> = names.filter_map(|name| name.split_once("-of-")?.1.parse().ok()).collect();
        counts.first().is_some_and(|count| *count == counts.len())
    };
    let has = |dir: &Path| dir.join("model.safetensors").exists() || parts(dir);
    has(snapshot) || files::list(snapshot).is_ok_and(|entries| entries.iter().any(|entry| has(entry)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_id_is_refused_without_asking() {
        for id in ["minilm", "a/b/c", "/x", "x/", ""] {
            let error = super::fetch(id).unwrap_err();
            assert!(error.to_string().contains("neither a directory nor"), "{error}");
        }
    }
}
