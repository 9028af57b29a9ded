//! Pairs of a file in, rows with hard negatives out: reading, searching, writing; and the step of a run that does so
//! before the first step.

mod in_run;
mod pairs;
mod summary;

use std::path::Path;

pub use in_run::local_plan;
pub use pairs::{Pairs, Wanted};
pub use summary::Summary;

use crate::data::corpus;
use crate::error::{Error, Result};
use crate::eval::shared::{self, DOCUMENT, QUERY};
use crate::flow::{Encode, EncodeOptions};
use crate::model::SentenceTransformer;
use crate::negatives::cache::Cache;
use crate::negatives::rows::{self, Rows};
use crate::negatives::{self, Found, Mined, OutputFormat, Pool, Prompts, Selection, Settings};
use crate::util::files::{self, NewFile};
use crate::util::numbers::thousands;

/// Loads a model from a folder.
pub type Load<'a> = dyn FnMut(&str) -> Result<SentenceTransformer> + 'a;

/// Finds hard negatives for pairs and writes rows with them to `output`, whole or not at all. `settings.model` and
/// `settings.cross_encoder` go through `load`; `key` gives a text that changes with a model's weights, for the cache.
///
/// # Errors
/// When the settings cannot be meant, pairs or models cannot be read, `output` cannot be written or is one of the files
/// that are read, or no candidate is left.
pub fn mine(
    pairs: &Pairs,
    settings: &Settings,
    output: &Path,
    load: &mut Load<'_>,
    key: &dyn Fn(&str) -> Result<String>,
) -> Result<Summary> {
    let (settings, mut notes) = settings.clone().settled()?;
    files::keep_apart(output, pairs.paths().chain(settings.corpus.as_deref().map(Path::new)))?;
    let file = NewFile::create(output)?;
    let (read, rows_skipped) = pairs.read()?;
    let pool = Pool::new(read, documents(&settings, &mut notes)?)?;
    if pool.documents().len() < 2 {
        return Err(Error::data(format!("{} has one document only, and it is a positive", pairs.describe()))
            .with_hint("give more texts with `corpus`"));
    }
    rows::check(&pool, &settings, pairs.names())?;
    // a reranker without a limit has nothing to decide
    let reranker = settings.cross_encoder.as_deref().filter(|_| settings.limited());
    if settings.cross_encoder.is_some() && reranker.is_none() {
        notes.push(
            "the CrossEncoder was not asked: its scores matter to limits and margins, and none is set".to_owned(),
        );
    }
    let mut finder = Finder::new(&settings, load, key, &mut notes)?;
    let reranker = reranker.map(|path| load_reranker(path, load)).transpose()?;
    let last_rank = settings.last_rank(pool.max_positives(), reranker.is_some());
    let mut selection = Selection::new(&pool, &settings, last_rank);
    let depth = settings.depth(pool.max_positives(), last_rank);
    let mut take = |mut found: Found| -> Result<()> {
        if let Some(predictor) = reranker.as_ref().and_then(|reranker| reranker.predictor()) {
            negatives::rescore(&pool, &mut found, predictor)?;
        }
        selection.add(found);
        Ok(())
    };
    match &mut finder {
        Finder::Words => negatives::words(&pool, depth, &mut take)?,
        Finder::Model { model, prompts, cache } => {
            negatives::search(&pool, model.as_ref(), prompts, depth, cache.as_mut(), &mut take)?;
        }
    }
    let mined = selection.finish();
    refuse_nothing(&mined, &settings, pairs)?;
    let rows = Rows::new(&pool, &mined, &settings, pairs.names());
    let written = write(file, &rows)?;
    let missing = rows.most().saturating_sub(written);
    if missing > 0 {
        notes.push(more(missing, rows.most(), &settings));
    }
    let cache = finder.cache();
    notes.extend(
        cache
            .into_iter()
            .flat_map(Cache::damaged)
            .map(|folder| format!("the embeddings in `{}` were damaged and have been made anew", folder.display())),
    );
    let positives: usize = pool.positives().iter().map(Vec::len).sum();
    Ok(Summary {
        rows: written,
        rows_skipped,
        columns: rows.columns(),
        queries: pool.queries().len(),
        documents: pool.documents().len(),
        positives_per_query: positives as f64 / pool.queries().len().max(1) as f64,
        range_max: last_rank,
        statistics: rows.statistics(),
        cached: cache.map(Cache::counts),
        skipped: mined.skipped,
        missing,
        notes,
    })
}

/// The texts of the corpus that are not empty.
fn documents(settings: &Settings, notes: &mut Vec<String>) -> Result<Option<Vec<String>>> {
    let Some(path) = settings.corpus.as_deref() else { return Ok(None) };
    let mut texts = corpus::read_for("corpus_column", Path::new(path), settings.corpus_column.as_deref())?;
    let all = texts.len();
    texts.retain(|text| !text.trim().is_empty());
    if texts.len() < all {
        notes.push(format!("{} empty texts of `{path}` were left out", thousands(all - texts.len())));
    }
    Ok(Some(texts))
}

/// Where candidates come from.
// there is one of them
#[allow(clippy::large_enum_variant)]
enum Finder {
    Words,
    Model { model: Box<SentenceTransformer>, prompts: Prompts, cache: Option<Cache> },
}

impl Finder {
    fn new(
        settings: &Settings,
        load: &mut Load<'_>,
        key: &dyn Fn(&str) -> Result<String>,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let path = match (&settings.model, settings.bm25) {
            (Some(path), _) => path,
            (None, true) => return Ok(Self::Words),
            (None, false) => {
                return Err(Error::usage("nothing says where candidates come from")
                    .with_hint("give the folder of a model (`model`), or `bm25` for none"));
            }
        };
        let model = load(path)?;
        if model.predictor().is_some() {
            return Err(Error::usage(format!(
                "`{path}` is a {}, which finds nothing: it only scores pairs",
                model.kind()
            ))
            .with_hint("give a bi-encoder as `model`; this one may be the `cross_encoder`"));
        }
        let options = |role: &str, text: &Option<String>, name: &Option<String>| -> Result<EncodeOptions> {
            let prompt = shared::prompt(&model, text.as_deref(), name.as_deref(), role)?;
            Ok(EncodeOptions { prompt, task: Some(role.to_owned()), bf16: settings.bf16, ..Default::default() })
        };
        let prompts = Prompts {
            query: options(QUERY, &settings.query_prompt, &settings.query_prompt_name)?,
            document: options(DOCUMENT, &settings.corpus_prompt, &settings.corpus_prompt_name)?,
        };
        let single = model.sparse().is_none() && model.multi_vector().is_none();
        let cache = match settings.cache_folder.as_deref() {
            Some(folder) if single => Some(Cache::new(Path::new(folder), &key(path)?)),
            Some(_) => {
                notes.push("`cache_folder`: only embeddings with one dense vector a text are kept".to_owned());
                None
            }
            None => None,
        };
        Ok(Self::Model { model: Box::new(model), prompts, cache })
    }

    fn cache(&self) -> Option<&Cache> {
        match self {
            Self::Words => None,
            Self::Model { cache, .. } => cache.as_ref(),
        }
    }
}

/// A model that gives a pair one score.
fn load_reranker(path: &str, load: &mut Load<'_>) -> Result<SentenceTransformer> {
    let model = load(path)?;
    match model.predictor() {
        Some(predictor) => negatives::one_score(predictor).map_err(|e| e.within(format!("`{path}`")))?,
        None => {
            return Err(Error::usage(format!("`cross_encoder` is a {}, which does not score pairs", model.kind()))
                .with_hint("give the folder of a CrossEncoder"));
        }
    }
    Ok(model)
}

/// Refuses to write rows where not one has a negative.
fn refuse_nothing(mined: &Mined, settings: &Settings, pairs: &Pairs) -> Result<()> {
    let most = mined.negatives.iter().map(Vec::len).max().unwrap_or(0);
    if most == 0 {
        return Err(Error::data(format!("{}: no candidate is left, so there are no negatives", pairs.describe()))
            .with_hint(way_out(settings, false)));
    }
    if settings.output_format == OutputFormat::NTuple && most < settings.num_negatives {
        return Err(Error::data(format!(
            "{}: no anchor has the {} negatives that make an n-tuple, the most is {most}",
            pairs.describe(),
            settings.num_negatives
        ))
        .with_hint(way_out(settings, true)));
    }
    Ok(())
}

/// Writes all rows, or nothing.
fn write(mut file: NewFile, rows: &Rows<'_>) -> Result<usize> {
    let mut written = 0;
    rows.each(&mut |row| {
        written += 1;
        let line = serde_json::to_string(&row).map_err(|e| Error::Internal(format!("a row as JSON: {e}")))?;
        file.line(&line)
    })?;
    file.publish()?;
    Ok(written)
}

/// What to change for more negatives; `fewer` where fewer of them an anchor would help.
fn way_out(settings: &Settings, fewer: bool) -> String {
    let mut names = vec!["`range_max` (higher)"];
    if fewer && settings.num_negatives > 1 {
        names.push("`num_negatives` (lower)");
    }
    if settings.range_min > 0 {
        names.push("`range_min` (lower)");
    }
    names.extend(settings.limits().map(|(limit, _)| limit.way_out()));
    format!("change {}, or give more documents with `corpus`", names.join(", "))
}

fn more(missing: usize, most: usize, settings: &Settings) -> String {
    let part = 100.0 * missing as f64 / most.max(1) as f64;
    format!(
        "{} of {} rows ({part:.2} %) are missing for want of candidates; to find more, {}",
        thousands(missing),
        thousands(most),
        way_out(settings, true)
    )
}
