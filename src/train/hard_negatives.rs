//! Pairs of a file in, rows with hard negatives out: reading, searching, writing; and the step of a run that does so
//! before the first step.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Device;
use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::events::{Event, Listener};
use crate::data::columns::{DatasetSpec, LABEL_COLUMNS, OnBadRow};
use crate::data::corpus;
use crate::data::source::Files;
use crate::data::store::cache;
use crate::data::texts::{Table, read_table};
use crate::error::{Error, Result};
use crate::flow::{Encode, EncodeOptions, LabelKind};
use crate::model::{ModelOptions, SentenceTransformer};
use crate::negatives::cache::Cache;
use crate::negatives::rows::Rows;
use crate::negatives::{self, Found, Mined, Pool, Prompts, Settings, Skipped, Statistics};
use crate::recipe::Plan;
use crate::recipe::plan::DatasetPlan;
use crate::util::files;
use crate::util::numbers::thousands;

/// Where pairs stand.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Files, globs and directories.
    pub paths: Vec<PathBuf>,
    /// The column with anchors; the first text column without.
    pub anchor: Option<String>,
    /// The column with positives; the second text column without.
    pub positive: Option<String>,
    /// Only the first rows.
    pub limit: Option<usize>,
    pub on_bad_row: OnBadRow,
}

/// Loads a model from a folder.
pub type Load<'a> = dyn FnMut(&str) -> Result<SentenceTransformer> + 'a;

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Summary {
    /// Rows written.
    pub rows: usize,
    /// Their columns.
    pub columns: Vec<String>,
    /// Anchors, each once.
    pub queries: usize,
    /// Texts they were compared with, each once.
    pub documents: usize,
    /// Positives of an anchor, on average.
    pub positives_per_query: f64,
    /// How far down each ranking negatives were looked for.
    pub range_max: usize,
    /// Scores of `positive`, `negative` and their `difference`: `count`, `mean`, `std`, `min`, `50%`, `max`, ...
    #[schemars(with = "std::collections::BTreeMap<String, std::collections::BTreeMap<String, Option<f64>>>")]
    pub statistics: Statistics,
    /// What each limit left out.
    pub skipped: Vec<Skipped>,
    /// Rows there are not, since too few candidates were left.
    pub missing: usize,
    /// What to change.
    pub notes: Vec<String>,
    /// Texts whose embeddings were kept from before, and those that had to be encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<(usize, usize)>,
}

/// Finds hard negatives for pairs and writes rows with them to `output`, whole or not at all. `settings.model` and
/// `settings.cross_encoder` go through `load`; `key` gives a text that changes with a model's weights, for the cache.
///
/// # Errors
/// When the settings cannot be meant, pairs or models cannot be read, or no candidate is left.
pub fn mine(
    pairs: &Pairs,
    settings: &Settings,
    output: &Path,
    load: &mut Load<'_>,
    key: &dyn Fn(&str) -> Result<String>,
) -> Result<Summary> {
    let (settings, mut notes) = settings.clone().settled()?;
    let table = read(pairs)?;
    let names = (table.names[0].clone(), table.names[1].clone());
    let corpus =
        settings.corpus.as_deref().map(|path| corpus::read(Path::new(path), settings.corpus_column.as_deref()));
    let pool = Pool::new(pairs_of(table), corpus.transpose()?)?;
    if pool.documents().len() < 2 {
        return Err(
            Error::data("there is one document only, and it is a positive").with_hint("give more texts with `corpus`")
        );
    }
    // a reranker without a limit has nothing to decide
    let reranker = settings.cross_encoder.as_deref().filter(|_| settings.limited());
    if settings.cross_encoder.is_some() && reranker.is_none() {
        notes.push(
            "the CrossEncoder was not asked: its scores matter to limits and margins, and none is set".to_owned(),
        );
    }
    let last_rank = settings.last_rank(pool.max_positives(), reranker.is_some());
    // columns that cannot be written are told before the work
    let nothing = Mined { negatives: Vec::new(), positives: Vec::new(), skipped: Vec::new() };
    Rows::new(&pool, &nothing, &settings, (&names.0, &names.1))?;
    let reranker = reranker.map(&mut *load).transpose()?;
    let (mut found, cached) =
        candidates(&pool, &settings, last_rank.saturating_add(pool.max_positives()), load, key, &mut notes)?;
    if let Some(reranker) = &reranker {
        let predictor = reranker.predictor().ok_or_else(|| {
            Error::usage(format!("`cross_encoder` is a {}, which does not score pairs", reranker.kind()))
                .with_hint("give the folder of a CrossEncoder")
        })?;
        negatives::rescore(&pool, &mut found, predictor)?;
    }
    let mined = negatives::select(&pool, found, &settings, last_rank);
    let rows = Rows::new(&pool, &mined, &settings, (&names.0, &names.1))?;
    let written = write(output, &rows, &settings)?;
    let missing = rows.most().saturating_sub(written);
    if missing > 0 {
        notes.push(more(missing, rows.most(), &settings));
    }
    let positives: usize = pool.positives().iter().map(Vec::len).sum();
    Ok(Summary {
        rows: written,
        columns: rows.columns(),
        queries: pool.queries().len(),
        documents: pool.documents().len(),
        positives_per_query: positives as f64 / pool.queries().len().max(1) as f64,
        range_max: last_rank,
        statistics: rows.statistics(),
        skipped: mined.skipped.clone(),
        missing,
        notes,
        cached,
    })
}

/// The plan with rows that have hard negatives in place of the pairs they are made of; `None` where no data set is. Rows that were made before of the same pairs, models and settings are
/// there still.
///
/// # Errors
/// As [`mine`], within the data set's name.
pub fn local_plan(plan: &Plan, device: &Device, listener: &mut dyn Listener) -> Result<Option<Plan>> {
    let sets = || plan.train_dataset.iter().chain(&plan.eval_dataset);
    if sets().all(|set| set.hard_negatives.is_none()) {
        return Ok(None);
    }
    let mut plan = plan.clone();
    for set in plan.train_dataset.iter_mut().chain(&mut plan.eval_dataset) {
        if let Some(settings) = set.hard_negatives.take() {
            let name = set.name.clone();
            in_set(set, &settings, device, listener).map_err(|e| e.within(format!("data set `{name}`")))?;
        }
    }
    Ok(Some(plan))
}

fn in_set(set: &mut DatasetPlan, settings: &Settings, device: &Device, listener: &mut dyn Listener) -> Result<()> {
    let pairs = Pairs {
        paths: set.path.clone(),
        anchor: set.columns.first().cloned(),
        positive: set.columns.get(1).cloned(),
        limit: set.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        on_bad_row: set.on_bad_row,
    };
    let place = |model: &str| match Path::new(model).exists() {
        true => Ok(PathBuf::from(model)),
        false => crate::hub::fetch(model),
    };
    let key = |model: &str| files::fingerprint(&place(model)?);
    // everything that rows depend on
    let mut from = format!("{pairs:?}\n{:?}\n", Settings { cache_folder: None, ..settings.clone() });
    let paths: Vec<String> = set.path.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    for file in Files::resolve(&paths, Path::new(""))?.iter() {
        from += &files::fingerprint(&file.path)?;
    }
    if let Some(corpus) = &settings.corpus {
        from += &files::fingerprint(Path::new(corpus))?;
    }
    for model in settings.model.iter().chain(&settings.cross_encoder) {
        from += &key(model)?;
    }
    let entry = cache::mined_folder()?.join(format!("{:032x}", xxh3_128(from.as_bytes())));
    let (rows, notes) = (entry.with_extension("jsonl"), entry.with_extension("json"));
    let mut say = |text: &str| listener.event(&Event::Message(text));
    // written last, so that rows with it are whole
    let known = notes.exists().then(|| files::read_text(&notes)).transpose()?.filter(|_| rows.exists());
    let known = known.and_then(|text| serde_json::from_str::<(Vec<String>, Vec<String>)>(&text).ok());
    let (columns, lines) = match known {
        Some(known) => {
            say(&format!("data set `{}`: hard negatives found before", set.name));
            known
        }
        None => {
            say(&format!("data set `{}`: looking for hard negatives", set.name));
            let mut load = |model: &str| {
                let options = ModelOptions { device: Some(device.clone()), ..ModelOptions::default() };
                SentenceTransformer::load_with(&place(model)?, &options)
            };
            let summary = mine(&pairs, settings, &rows, &mut load, &key)?;
            let made = (summary.columns.clone(), summary.lines());
            let text = serde_json::to_string(&made).map_err(|e| Error::Internal(format!("notes as JSON: {e}")))?;
            files::write_atomic(&notes, text.as_bytes())?;
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
    set.path = vec![rows];
    set.limit = None;
    Ok(())
}

/// Anchors and positives, as the file's first two text columns unless named.
fn read(pairs: &Pairs) -> Result<Table> {
    let read = |columns: Option<Vec<String>>| {
        let paths = pairs.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let mut spec = DatasetSpec::new(paths, LabelKind::None);
        spec.columns = columns;
        spec.limit = pairs.limit;
        spec.on_bad_row = pairs.on_bad_row;
        read_table(&spec, Path::new(""))
    };
    let (anchor, positive) = match (&pairs.anchor, &pairs.positive) {
        (Some(anchor), Some(positive)) => (anchor.clone(), positive.clone()),
        (anchor, positive) => {
            let names = read(None)?.names;
            let first = anchor.clone().or_else(|| names.iter().find(|n| Some(*n) != positive.as_ref()).cloned());
            let second = positive.clone().or_else(|| names.iter().find(|n| Some(*n) != first.as_ref()).cloned());
            let (Some(first), Some(second)) = (first, second) else {
                let shown: Vec<String> = pairs.paths.iter().map(|path| format!("`{}`", path.display())).collect();
                return Err(Error::data(format!("{} has fewer than two text columns", shown.join(", ")))
                    .with_hint("pairs have an anchor and a positive"));
            };
            (first, second)
        }
    };
    if anchor == positive {
        return Err(Error::usage(format!("`{anchor}` is the column of anchors and of positives"))
            .with_hint("name a column for each"));
    }
    read(Some(vec![anchor, positive]))
}

fn pairs_of(table: Table) -> Vec<(String, String)> {
    let mut columns = table.columns.into_iter();
    match (columns.next(), columns.next()) {
        (Some(anchors), Some(positives)) => anchors.into_iter().zip(positives).collect(),
        _ => Vec::new(),
    }
}

fn candidates(
    pool: &Pool,
    settings: &Settings,
    k: usize,
    load: &mut Load<'_>,
    key: &dyn Fn(&str) -> Result<String>,
    notes: &mut Vec<String>,
) -> Result<(Found, Option<(usize, usize)>)> {
    let path = match (&settings.model, settings.bm25) {
        (Some(path), _) => path,
        (None, true) => return Ok((negatives::words(pool, k), None)),
        (None, false) => {
            return Err(Error::usage("nothing says where candidates come from")
                .with_hint("give the folder of a model (`model`), or `bm25` for none"));
        }
    };
    let model = load(path)?;
    if model.predictor().is_some() {
        return Err(Error::usage(format!("`{path}` is a {}, which finds nothing: it only scores pairs", model.kind()))
            .with_hint("give a bi-encoder as `model`; this one may be the `cross_encoder`"));
    }
    let options = |role: &str, given: &Option<String>, name: &Option<String>| -> Result<EncodeOptions> {
        let prompt = match (given, name) {
            (Some(text), _) => text.clone(),
            (None, Some(name)) => model.prompt(name)?.to_owned(),
            // without one nothing, as the reference's `encode_query` and `encode_document` have it
            (None, None) => model.prompts().get(role).cloned().unwrap_or_default(),
        };
        let task = Some(role.to_owned());
        Ok(EncodeOptions { prompt: Some(prompt), task, bf16: settings.bf16, ..EncodeOptions::default() })
    };
    let prompts = Prompts {
        query: options("query", &settings.query_prompt, &settings.query_prompt_name)?,
        document: options("document", &settings.corpus_prompt, &settings.corpus_prompt_name)?,
    };
    let single = model.sparse().is_none() && model.multi_vector().is_none();
    let mut cache = match settings.cache_folder.as_deref() {
        Some(folder) if single => Some(Cache::new(Path::new(folder), &key(path)?)),
        Some(_) => {
            notes.push("`cache_folder`: only embeddings with one dense vector a text are kept".to_owned());
            None
        }
        None => None,
    };
    let found = negatives::search(pool, &model, &prompts, k, cache.as_mut())?;
    Ok((found, cache.map(|cache| cache.counts())))
}

/// Writes all rows, or nothing.
fn write(path: &Path, rows: &Rows<'_>, settings: &Settings) -> Result<usize> {
    let temporary = files::temporary_name(path);
    let mut written = 0;
    let mut file = BufWriter::new(files::create(&temporary)?);
    let mut done = rows.each(&mut |row| {
        let line = serde_json::to_string(&row).map_err(|e| Error::Internal(format!("a row as JSON: {e}")))?;
        written += 1;
        writeln!(file, "{line}").map_err(Error::io("write", path))
    });
    if done.is_ok() {
        done = file.flush().map_err(Error::io("write", path));
    }
    if done.is_ok() && written == 0 {
        done = Err(Error::data("no candidate is left, so there are no negatives").with_hint(way_out(settings)));
    }
    done = done.and_then(|()| std::fs::rename(&temporary, path).map_err(Error::io("write", path)));
    if done.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    done.map(|()| written)
}

fn way_out(settings: &Settings) -> String {
    let mut names = vec!["`range_max` (higher)"];
    if settings.range_min > 0 {
        names.push("`range_min` (lower)");
    }
    for (name, value) in settings.limits() {
        match (name, value) {
            (_, None) => {}
            ("absolute_margin", _) => names.push("`absolute_margin` (lower)"),
            ("relative_margin", _) => names.push("`relative_margin` (lower)"),
            ("max_score", _) => names.push("`max_score` (higher)"),
            _ => names.push("`min_score` (lower)"),
        }
    }
    format!("change {}, or give more documents with `corpus`", names.join(", "))
}

fn more(missing: usize, most: usize, settings: &Settings) -> String {
    let part = 100.0 * missing as f64 / most.max(1) as f64;
    format!(
        "{} of {} rows ({part:.2} %) are missing for want of candidates; to find more, {}",
        thousands(missing),
        thousands(most),
        way_out(settings)
    )
}

impl Summary {
    /// What there is to say of it, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} anchors with {:.2} positives on average, {} documents, the nearest {}",
            thousands(self.queries),
            self.positives_per_query,
            thousands(self.documents),
            self.range_max
        )];
        lines.extend(self.statistics.table());
        for left_out in &self.skipped {
            lines.push(format!(
                "{} of {} left out {} candidates ({:.2} %)",
                left_out.setting,
                left_out.value,
                thousands(left_out.skipped),
                100.0 * left_out.ratio
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        if let Some((kept, new)) = self.cached {
            lines.push(format!("embeddings: {} kept from before, {} new", thousands(kept), thousands(new)));
        }
        lines
    }
}
