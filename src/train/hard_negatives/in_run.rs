//! The step of a run that makes rows with hard negatives of its data sets before the first step.

use std::path::Path;

use candle_core::Device;
use xxhash_rust::xxh3::xxh3_128;

use super::{Pairs, Wanted, mine};
use crate::data::columns::LABEL_COLUMNS;
use crate::data::store::MadeRows;
use crate::error::{Error, Result};
use crate::model::{ModelOptions, SentenceTransformer};
use crate::negatives::Settings;
use crate::recipe::Plan;
use crate::recipe::plan::{DatasetPlan, Location, ModelSource};
use crate::train::events::{Event, Listener};
use crate::train::{prompts, sets};
use crate::util::files;

/// The plan with rows that have hard negatives in place of the pairs they are made of; `None` where no data set wants them.
/// Rows that were made before of the same pairs, models and settings are there still.
///
/// # Errors
/// As [`mine`], within the data set's name.
pub fn local_plan(plan: &Plan, device: &Device, listener: &mut dyn Listener) -> Result<Option<Plan>> {
    let all = || plan.train_dataset.iter().chain(&plan.eval_dataset);
    if all().all(|set| set.hard_negatives.is_none()) {
        return Ok(None);
    }
    let mut local = plan.clone();
    for set in local.train_dataset.iter_mut().chain(&mut local.eval_dataset) {
        let name = set.name.clone();
        if let Some(settings) = set.hard_negatives.take() {
            in_set(plan, set, settings, device, listener).map_err(|e| e.within(format!("data set `{name}`")))?;
        }
    }
    Ok(Some(local))
}

fn in_set(
    plan: &Plan,
    set: &mut DatasetPlan,
    settings: Settings,
    device: &Device,
    listener: &mut dyn Listener,
) -> Result<()> {
    let pairs = Pairs::find(&Wanted {
        paths: &set.path,
        anchor: set.columns.first().map(String::as_str),
        positive: set.columns.get(1).map(String::as_str),
        limit: set.limit,
        on_bad_row: set.on_bad_row,
        way_out: "correct them, or leave them out with `on_bad_row = \"skip\"`",
    })?;
    let settings = with_prompts(plan, set, pairs.names(), settings);
    let entry = MadeRows::of(key(&pairs, set, &settings)?)?;
    let mut say = |text: &str| listener.event(&Event::Message(text));
    let known = entry.notes()?.and_then(|text| serde_json::from_str::<(Vec<String>, Vec<String>)>(&text).ok());
    let (columns, lines) = match known {
        Some(known) => {
            say(&format!("data set `{}`: hard negatives found before", set.name));
            known
        }
        None => {
            say(&format!("data set `{}`: looking for hard negatives", set.name));
            let mut load = |model: &str| {
                let options = ModelOptions { device: Some(device.clone()), ..ModelOptions::default() };
                SentenceTransformer::load_with(&sets::locate(model)?, &options)
            };
            let summary = mine(&pairs, &settings, &entry.rows, &mut load, &model_key)?;
            let made = (summary.columns.clone(), summary.lines());
            let text = serde_json::to_string(&made).map_err(|e| Error::Internal(format!("notes as JSON: {e}")))?;
            entry.keep(&text)?;
            made
        }
    };
    lines.iter().for_each(|line| say(line));
    say(&format!("data set `{}`: rows of {}", set.name, columns.join(", ")));
    let is_label = |name: &str| LABEL_COLUMNS.contains(&name);
    // an anchor or a positive may have a label's name
    let (texts, added) = columns.split_at(2.min(columns.len()));
    set.label = added.iter().find(|name| is_label(name)).cloned();
    set.columns = texts.iter().chain(added.iter().filter(|name| !is_label(name))).cloned().collect();
    set.path = vec![entry.rows];
    set.limit = None;
    Ok(())
}

fn model_key(model: &str) -> Result<String> {
    files::fingerprint(&sets::locate(model)?)
}

/// Everything that rows depend on.
fn key(pairs: &Pairs, set: &DatasetPlan, settings: &Settings) -> Result<u128> {
    let settings = Settings { cache_folder: None, ..settings.clone() };
    let mut from = format!("{:?} {:?} {:?}\n{settings:?}\n", pairs.names(), set.limit, set.on_bad_row);
    for file in pairs.paths() {
        from += &files::fingerprint(file)?;
    }
    if let Some(corpus) = &settings.corpus {
        from += &files::fingerprint(Path::new(corpus))?;
    }
    for model in settings.model.iter().chain(&settings.cross_encoder) {
        from += &model_key(model)?;
    }
    Ok(xxh3_128(from.as_bytes()))
}

/// The settings with the prompts that the model is trained with, where the run's own base model looks and they name none:
/// it sees the texts as in training then. Where training has no prompts, the model's own are used.
fn with_prompts(plan: &Plan, set: &DatasetPlan, names: (&str, &str), mut settings: Settings) -> Settings {
    let common = prompts::of(plan, set);
    let trained_with = !set.prompts.is_empty() || common != Default::default();
    if !trained_with || !settings.model.as_deref().is_some_and(|model| is_base(plan, model)) {
        return settings;
    }
    let of = |column: &str, number: usize| -> String {
        set.prompts.get(column).or_else(|| common.of(column, number)).cloned().unwrap_or_default()
    };
    if settings.query_prompt_name.is_none() {
        settings.query_prompt.get_or_insert_with(|| of(names.0, 0));
    }
    if settings.corpus_prompt_name.is_none() {
        settings.corpus_prompt.get_or_insert_with(|| of(names.1, 1));
    }
    settings
}

fn is_base(plan: &Plan, model: &str) -> bool {
    match &plan.model.source {
        ModelSource::Base(Location::Path(base)) => files::absolute(base) == *model,
        ModelSource::Base(Location::Hub(id)) => id == model,
        _ => false,
    }
}
