//! NanoBEIREvaluator: retrieval on several small data sets, and the means over them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cross_encoder::nano_beir as pair_nano_beir;
use super::information_retrieval::{InformationRetrievalEvaluator, InformationRetrievalSettings};
use super::shared::prefixed;
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, LabelKind, Look, Metrics, Statistic};
use crate::scoring::Similarity;
use crate::util::registry::Settings;
use crate::util::suggest;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["a folder of folders in the BEIR layout, or NanoBEIR as it is on the Hub"],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "The data sets are read from a folder, or where there is no path from the Hub: thirteen small ones, once.",
        "The small corpora make values higher than those of the whole BEIR: compare like with like.",
    ],
    paper: "https://arxiv.org/abs/2104.08663",
    ..Card::new("NanoBEIREvaluator", "Exact search in several small corpora, each alone and their mean.")
};

/// Where the reference has the data sets from.
pub const DATASET_ID: &str = "sentence-transformers/NanoBEIR-en";

/// The data sets of NanoBEIR in the reference's order: short name, and what their metrics are called after.
const DATASETS: [(&str, &str); 13] = [
    ("climatefever", "NanoClimateFEVER"),
    ("dbpedia", "NanoDBPedia"),
    ("fever", "NanoFEVER"),
    ("fiqa2018", "NanoFiQA2018"),
    ("hotpotqa", "NanoHotpotQA"),
    ("msmarco", "NanoMSMARCO"),
    ("nfcorpus", "NanoNFCorpus"),
    ("nq", "NanoNQ"),
    ("quoraretrieval", "NanoQuoraRetrieval"),
    ("scidocs", "NanoSCIDOCS"),
    ("arguana", "NanoArguAna"),
    ("scifact", "NanoSciFact"),
    ("touche2020", "NanoTouche2020"),
];

/// Where a data set stands among those of NanoBEIR, by short name (`msmarco`) or whole (`NanoMSMARCO`), in any case.
fn known(name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    let short = name.strip_prefix("nano").unwrap_or(&name);
    DATASETS.iter().position(|(known, _)| *known == short)
}

/// What an evaluator reads from the Hub where no path is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnTheHub {
    /// The repository.
    pub id: String,
    /// Folders of it.
    pub subsets: &'static [&'static str],
    /// Data sets, each a split of every subset.
    pub splits: Vec<String>,
    /// Whether the data sets were asked for by name.
    pub named: bool,
}

/// What the evaluator of that name with these settings reads from the Hub; `None` for those that read nothing there.
#[must_use]
pub fn on_the_hub(evaluator: &str, settings: &Map<String, Value>) -> Option<OnTheHub> {
    let pairs = evaluator == pair_nano_beir::CARD.name;
    if !pairs && ![CARD.name, "SparseNanoBEIREvaluator", "MultiVectorNanoBEIREvaluator"].contains(&evaluator) {
        return None;
    }
    let id = settings.get("dataset_id").and_then(Value::as_str).unwrap_or(DATASET_ID).to_owned();
    let names = settings.get("dataset_names").and_then(Value::as_array);
    let usual = |name: &&str| !pairs || !pair_nano_beir::UNUSUAL.contains(name);
    let splits = match names {
        Some(names) => names.iter().filter_map(Value::as_str).map(|name| title(name).to_owned()).collect(),
        None => DATASETS.iter().map(|(_, name)| *name).filter(usual).map(str::to_owned).collect(),
    };
    let subsets: &[&str] =
        if pairs { &["corpus", "queries", "qrels", "bm25"] } else { &["corpus", "queries", "qrels"] };
    Some(OnTheHub { id, subsets, splits, named: names.is_some() })
}

/// What metrics of a data set are called after.
pub(super) fn title(name: &str) -> &str {
    known(name).map_or(name, |at| DATASETS[at].1)
}

/// Put in front of texts: the same for all data sets, or for each its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or a table of texts by data set")]
pub enum Prompts {
    /// For all.
    One(String),
    /// By data set, each of those that are evaluated.
    Each(BTreeMap<String, String>),
}

/// What a recipe may set of a [`NanoBEIREvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NanoBEIRSettings {
    /// In front of every key; the reference has no such setting, and without it the keys are the reference's.
    pub name: String,
    /// The id on the Hub of a data set with the folders `corpus`, `queries` and `qrels`, which is fetched when there is no
    /// path; `sentence-transformers/NanoBEIR-en` when left out.
    pub dataset_id: Option<String>,
    /// The data sets, by short name (`msmarco`) or by their folder's name; all that are in the folder when left out.
    pub dataset_names: Option<Vec<String>>,
    /// Cut-offs of the mean reciprocal rank.
    pub mrr_at_k: Vec<usize>,
    /// Cut-offs of NDCG; the largest makes the primary metric.
    pub ndcg_at_k: Vec<usize>,
    /// Cut-offs of accuracy.
    pub accuracy_at_k: Vec<usize>,
    /// Cut-offs of precision and recall.
    pub precision_recall_at_k: Vec<usize>,
    /// Cut-offs of mean average precision.
    pub map_at_k: Vec<usize>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Of sparse embeddings the number of values kept, which stands in names as the width does.
    #[serde(skip)]
    pub(super) max_active_dims: Option<usize>,
    /// The similarity functions to search with; the model's when left out.
    pub score_functions: Option<Vec<Similarity>>,
    /// The one whose NDCG is the primary metric; the best of the first evaluation when left out and there are several.
    pub main_score_function: Option<Similarity>,
    /// What the means are called: `mean` in `NanoBEIR_mean_cosine_ndcg@10`.
    pub aggregate_key: String,
    /// Put in front of every query: a text, or a table of texts by data set.
    pub query_prompts: Option<Prompts>,
    /// Put in front of every document: a text, or a table of texts by data set.
    pub corpus_prompts: Option<Prompts>,
    /// Whether a run writes what is found for each query, as JSON lines.
    pub write_predictions: bool,
    /// Whether a run keeps CSV files with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for NanoBEIRSettings {
    fn default() -> Self {
        let search = InformationRetrievalSettings::default();
        Self {
            name: String::new(),
            dataset_id: None,
            dataset_names: None,
            mrr_at_k: search.mrr_at_k,
            ndcg_at_k: search.ndcg_at_k,
            accuracy_at_k: search.accuracy_at_k,
            precision_recall_at_k: search.precision_recall_at_k,
            map_at_k: search.map_at_k,
            truncate_dim: None,
            max_active_dims: None,
            score_functions: None,
            main_score_function: None,
            aggregate_key: "mean".to_owned(),
            query_prompts: None,
            corpus_prompts: None,
            write_predictions: false,
            write_csv: None,
        }
    }
}

impl Settings for NanoBEIRSettings {
    fn validate(&self) -> Result<()> {
        if self.dataset_names.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::usage("`dataset_names` is empty").with_hint("leave it out for all there are"));
        }
        if self.aggregate_key.is_empty() {
            return Err(Error::usage("`aggregate_key` is empty").with_hint("leave it out for `mean`"));
        }
        self.search(self.named(&self.aggregate())).validate()
    }
}

impl NanoBEIRSettings {
    fn aggregate(&self) -> String {
        format!("NanoBEIR_{}", self.aggregate_key)
    }

    /// With the evaluator's name in front, and the width behind where embeddings are cut.
    fn named(&self, name: &str) -> String {
        let width = self.truncate_dim.or(self.max_active_dims).map(|dim| format!("_{dim}")).unwrap_or_default();
        prefixed(&self.name, &format!("{name}{width}"))
    }

    /// The settings of a search whose metrics are called after `name`.
    fn search(&self, name: String) -> InformationRetrievalSettings {
        InformationRetrievalSettings {
            name,
            mrr_at_k: self.mrr_at_k.clone(),
            ndcg_at_k: self.ndcg_at_k.clone(),
            accuracy_at_k: self.accuracy_at_k.clone(),
            precision_recall_at_k: self.precision_recall_at_k.clone(),
            map_at_k: self.map_at_k.clone(),
            truncate_dim: self.truncate_dim,
            score_functions: self.score_functions.clone(),
            main_score_function: self.main_score_function,
            write_csv: self.write_csv,
            write_predictions: self.write_predictions,
            ..InformationRetrievalSettings::default()
        }
    }

    /// The search whose keys are those of the means.
    pub(super) fn whole(&self) -> InformationRetrievalSettings {
        self.search(self.named(&self.aggregate()))
    }
}

impl EvaluatorSettings for NanoBEIRSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        EvaluatorSettings::primary_key(&self.whole(), similarity_fn_name)
    }

    /// Without data only the means; the evaluator adds those of each data set.
    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        EvaluatorSettings::keys(&self.whole(), similarity_fn_name)
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let file = format!("NanoBEIR_evaluation_{}_results.csv", prefixed(&self.name, &self.aggregate_key));
        self.whole().csv_file(file, similarity_fn_name).into_iter().collect()
    }
}

/// An [`InformationRetrievalEvaluator`] on each of several data sets, and the mean of every metric over them.
///
/// Keys: those of each data set (`NanoMSMARCO_cosine_ndcg@10`), then the means (`NanoBEIR_mean_cosine_ndcg@10`). The
/// primary metric is the mean NDCG. Data sets that NanoBEIR does not have are called after their folders.
///
/// Source: `evaluation/nano_beir.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "NanoBEIREvaluator"
/// path = "nano-beir"
/// ```
/// Without `path`, `sentence-transformers/NanoBEIR-en` or another `dataset_id` is read, from the Hugging Face cache or downloaded into it.
#[derive(Debug)]
pub struct NanoBEIREvaluator {
    settings: NanoBEIRSettings,
    searches: Vec<InformationRetrievalEvaluator>,
    best: std::sync::OnceLock<Similarity>,
}

impl NanoBEIREvaluator {
    /// An evaluator of named data sets.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings, a name that is not among the data sets, or one without a prompt;
    /// [`Error::Data`] when there is none, or as [`InformationRetrievalEvaluator::new`].
    pub fn new(datasets: Vec<(String, EvaluationData)>, settings: NanoBEIRSettings) -> Result<Self> {
        settings.validate()?;
        let mut searches = Vec::new();
        for (wanted, (name, data)) in choose(datasets, settings.dataset_names.as_deref())? {
            let EvaluationData::Retrieval { queries, corpus, relevant } = data else {
                return Err(Error::data(format!("`{name}` holds {}, not {}", data.kind(), DataKind::Retrieval)));
            };
            let prompt = |key: &str, prompts: &Option<Prompts>| match prompts {
                None => Ok(None),
                Some(Prompts::One(prompt)) => Ok(Some(prompt.clone())),
                Some(Prompts::Each(prompts)) => match prompts.get(&wanted).or_else(|| prompts.get(&name)) {
                    Some(prompt) => Ok(Some(prompt.clone())),
                    None => Err(Error::usage(format!("`{key}` has no prompt for the data set `{wanted}`"))),
                },
            };
            let search = InformationRetrievalSettings {
                query_prompt: prompt("query_prompts", &settings.query_prompts)?,
                corpus_prompt: prompt("corpus_prompts", &settings.corpus_prompts)?,
                ..settings.search(settings.named(title(&name)))
            };
            // An empty text is no document, and nobody asks nothing.
            let with_text =
                |list: Vec<(String, String)>| list.into_iter().filter(|(_, text)| !text.is_empty()).collect();
            let made = InformationRetrievalEvaluator::new(with_text(queries), with_text(corpus), relevant, search);
            searches.push(made.map_err(|e| e.within(format!("data set `{name}`")))?);
        }
        Ok(Self { settings, searches, best: std::sync::OnceLock::new() })
    }
}

/// The data sets that are asked for, by the names they are asked for; all, in the reference's order, without names.
#[allow(clippy::type_complexity)]
pub(super) fn choose<T>(datasets: Vec<(String, T)>, names: Option<&[String]>) -> Result<Vec<(String, (String, T))>> {
    let there: Vec<String> = datasets.iter().map(|(name, _)| name.clone()).collect();
    let mut by_name: BTreeMap<String, T> = datasets.into_iter().collect();
    if by_name.is_empty() {
        return Err(Error::data("there is no data set"));
    }
    let wanted: Vec<String> = names.map_or_else(
        || {
            let mut all = there.clone();
            all.sort_by_key(|name| (known(name).unwrap_or(usize::MAX), name.clone()));
            all
        },
        <[String]>::to_vec,
    );
    let mut chosen = Vec::new();
    for name in wanted {
        let same = |other: &&String| **other == name || known(other).is_some_and(|at| known(&name) == Some(at));
        let found = there.iter().find(same).and_then(|key| by_name.remove_entry(key));
        let Some(found) = found else {
            return Err(Error::usage(format!("`dataset_names`: there is no data set `{name}`, or it is named twice"))
                .with_hint(suggest::hint(&name, there.iter().map(String::as_str))));
        };
        chosen.push((name, found));
    }
    Ok(chosen)
}

impl Evaluator for NanoBEIREvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        self.evaluate_each(model.similarity_fn_name(), &mut |search| search.evaluate(model))
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        let whole = self.settings.whole();
        match self.best.get() {
            Some(best) => whole.ndcg_key(best.name()),
            None => EvaluatorSettings::primary_key(&whole, similarity_fn_name),
        }
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.searches.iter().flat_map(|search| search.keys(similarity_fn_name)).collect();
        keys.extend(self.settings().keys(similarity_fn_name));
        keys
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let mut files: Vec<Csv> = self.searches.iter().flat_map(|search| search.csv(similarity_fn_name)).collect();
        files.extend(self.settings().csv(similarity_fn_name));
        files
    }
}

impl NanoBEIREvaluator {
    /// The searches, one a data set.
    pub(super) fn searches(&self) -> &[InformationRetrievalEvaluator] {
        &self.searches
    }

    /// Searches each data set by `evaluate`, which may append metrics of its own, and takes the means.
    pub(super) fn evaluate_each(
        &self,
        similarity: &str,
        evaluate: &mut dyn FnMut(&InformationRetrievalEvaluator) -> Result<Metrics>,
    ) -> Result<Metrics> {
        let whole = self.settings.whole();
        let means = EvaluatorSettings::keys(&whole, similarity);
        let (mut result, mut sums) = (Metrics::default(), vec![0.0; means.len()]);
        // By score function the queries of all data sets, each labelled with its data set's number.
        let functions = whole.similarities(similarity)?;
        let mut items = vec![(Vec::new(), Vec::new()); functions.len()];
        let mut looks: Vec<Option<Look>> = vec![None; functions.len()];
        for (number, search) in self.searches.iter().enumerate() {
            let metrics = evaluate(search).map_err(|e| e.within(format!("data set `{}`", search.name())))?;
            // The keys of one search are those of another but for the name in front.
            sums.iter_mut().zip(&metrics.values).for_each(|(sum, (_, value))| *sum += value);
            result.values.extend(metrics.values);
            result.documents.extend(metrics.documents);
            looks.iter_mut().zip(metrics.looks).for_each(|(all, look)| join(all, look));
            for (sample, (labels, scores)) in metrics.samples.into_iter().zip(&mut items) {
                let values: Vec<f64> = sample.scores.into_iter().flatten().collect();
                labels.extend(std::iter::repeat_n(number as f64, values.len()));
                scores.extend(values);
            }
        }
        for ((function, (labels, scores)), look) in functions.iter().zip(items).zip(looks) {
            result.primary = whole.ndcg_key(function.name());
            result.looks.extend(look.map(|look| Look { key: result.primary.clone(), ..look }));
            result.push_sample(Statistic::MeanOfMeans, labels, vec![scores]);
        }
        for (key, sum) in means.into_iter().zip(sums) {
            result.push(key, sum / self.searches.len() as f64);
        }
        if let Some(best) = whole.best_of(similarity, &result) {
            self.best.get_or_init(|| best);
        }
        result.primary = self.primary_key(similarity);
        Ok(result)
    }
}

/// Takes the look behind one data set's metric into that behind the mean of all.
pub(super) fn join(all: &mut Option<Look>, look: Look) {
    match all {
        Some(all) => all.add(look),
        None => *all = Some(look),
    }
}

impl FromData for NanoBEIREvaluator {
    type Settings = NanoBEIRSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Retrievals;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Retrievals(datasets) => Some(Self::new(datasets, settings)),
            _ => None,
        }
    }
}
