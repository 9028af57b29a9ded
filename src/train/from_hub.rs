//! What does a plan need from the Hub? It comes before anything else is done, and the log tells of it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::events::{Event, Listener};
use crate::data::slices;
use crate::data::source::Files;
use crate::data::store::MadeRows;
use crate::error::Result;
use crate::eval::nano_beir;
use crate::hub::{self, HubDataset};
use crate::recipe::Plan;
use crate::recipe::plan::{DatasetPlan, Location, ModelSource};

/// The plan with files in place of data on the Hub. Models keep their ids, and are in the cache.
///
/// # Errors
/// When something cannot be had, within its key or the data set's name.
pub fn fetch(plan: &Plan, resumes: bool, listener: &mut dyn Listener) -> Result<Plan> {
    let mut plan = plan.clone();
    let tell = &mut |line: &str| listener.event(&Event::Message(line));
    // a checkpoint has the model; of one with adapters the base is read again
    let model = Some(&plan.model.source).filter(|_| !resumes || plan.model.lora.is_some());
    let revision = plan.model.revision.as_deref().filter(|_| matches!(plan.model.source, ModelSource::Base(_)));
    let base = model.and_then(of_source).map(|(key, id)| (key, id, revision));
    let others = of_data(&plan).into_iter().map(|(key, id)| (key, id, None));
    for (key, id, revision) in base.into_iter().chain(others) {
        hub::model(&id, revision, tell).map_err(|e| e.within(format!("`{key}`")))?;
    }
    for set in plan.train_dataset.iter_mut().chain(&mut plan.eval_dataset) {
        if let Some(hub) = set.hub.take() {
            data(set, &hub, tell).map_err(|e| e.within(format!("data set `{}`", set.name)))?;
        }
    }
    for evaluator in &mut plan.evaluator {
        if evaluator.path.as_os_str().is_empty()
            && let Some(wanted) = nano_beir::on_the_hub(&evaluator.kind, &evaluator.settings)
        {
            evaluator.path =
                nano_beir_folder(&wanted, tell).map_err(|e| e.within(format!("evaluator `{}`", evaluator.kind)))?;
        }
    }
    Ok(plan)
}

/// The folder of an evaluator's data sets, from the cache or downloaded now.
///
/// # Errors
/// As [`hub::Collection::folder`].
pub fn nano_beir_folder(wanted: &nano_beir::OnTheHub, tell: hub::Tell<'_>) -> Result<PathBuf> {
    let (id, splits) = (wanted.id.as_str(), wanted.splits.as_slice());
    hub::Collection { id, subsets: wanted.subsets, splits, named: wanted.named }.folder(tell)
}

/// The model on the Hub that a plan starts from, with its key.
fn of_source(source: &ModelSource) -> Option<(String, String)> {
    let (key, location) = match source {
        ModelSource::Base(location) => ("model.base", location),
        ModelSource::Config { tokenizer, .. } => ("model.tokenizer", tokenizer),
        ModelSource::Distilled { teacher, .. } => ("model.static_embedding.distill_from", teacher),
        ModelSource::StaticEmbedding { tokenizer, .. } => ("model.static_embedding.tokenizer", tokenizer),
        _ => return None,
    };
    if let Location::Hub(id) = location { Some((key.to_owned(), id.clone())) } else { None }
}

/// The models on the Hub that data sets and losses name.
fn of_data(plan: &Plan) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for set in plan.train_dataset.iter().chain(&plan.eval_dataset) {
        of_loss(&set.loss.settings, &mut found);
        let teacher = set.teacher.as_ref().filter(|teacher| !Path::new(&teacher.model).is_absolute());
        found.extend(teacher.map(|teacher| ("teacher.model".to_owned(), teacher.model.clone())));
        if let Some(settings) = &set.hard_negatives {
            let named = [("model", &settings.model), ("cross_encoder", &settings.cross_encoder)];
            for (key, model) in named {
                let id = model.as_ref().filter(|model| !Path::new(model).exists());
                found.extend(id.map(|id| (format!("hard_negatives.{key}"), id.clone())));
            }
        }
    }
    found
}

fn of_loss(settings: &Map<String, Value>, found: &mut Vec<(String, String)>) {
    let own_decoder = settings.get("tie_encoder_decoder") == Some(&Value::Bool(false));
    let keys = ["guide"].into_iter().chain(own_decoder.then_some("decoder_name_or_path"));
    for key in keys {
        let id = settings.get(key).and_then(Value::as_str).filter(|id| !id.is_empty() && !Path::new(id).is_absolute());
        found.extend(id.map(|id| (format!("loss.{key}"), id.to_owned())));
    }
    if let Some(Value::Object(inner)) = settings.get("loss") {
        of_loss(inner, found);
    }
}

/// Files in place of a data set on the Hub.
fn data(set: &mut DatasetPlan, hub: &HubDataset, tell: hub::Tell<'_>) -> Result<()> {
    let parts = hub.rows(tell)?;
    let files = parts.iter().map(|part| part.files.len()).sum::<usize>();
    tell(&format!("data set `{}`: {files} file(s) of `{}` from the Hub", set.name, hub.id));
    match parts.as_slice() {
        [all] if all.slice.first().is_some() => set.limit = set.limit.into_iter().chain(all.slice.first()).min(),
        all if all.iter().all(|part| part.slice.is_whole()) => {}
        _ => {
            set.path = vec![sliced(hub, &parts)?];
            return Ok(());
        }
    }
    set.path = parts.into_iter().flat_map(|part| part.files).collect();
    Ok(())
}

/// A file of the rows that are meant; made once.
fn sliced(hub: &HubDataset, parts: &[hub::Rows]) -> Result<PathBuf> {
    // the folders are called after commits, so paths stand for contents
    let key = format!("{}\n{:?}", hub.split, parts.iter().map(|part| &part.files).collect::<Vec<_>>());
    let entry = MadeRows::of(xxh3_128(key.as_bytes()))?;
    if entry.notes()?.is_some() {
        return Ok(entry.rows);
    }
    let mut rows = Vec::new();
    for part in parts {
        let paths: Vec<String> = part.files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let files = Files::resolve(&paths, Path::new(""))?;
        let range = part.slice.rows(slices::count(&files)?).map_err(|e| e.within("`split`"))?;
        rows.push((files, range));
    }
    slices::write(&rows, &entry.rows)?;
    entry.keep(&format!("{} of {}", hub.split, hub.id))?;
    Ok(entry.rows)
}
