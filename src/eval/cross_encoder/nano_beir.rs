//! CrossEncoderNanoBEIREvaluator: reranking what BM25 found in several small data sets, and the means over them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reranking::{CrossEncoderRerankingEvaluator, Others, PairRerankingSettings, Sample};
use crate::error::{Error, Result};
use crate::eval::nano_beir::{choose, join, title};
use crate::eval::shared::prefixed;
use crate::eval::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::flow::{Card, Encode, LabelKind, Look, Metrics, ModelType, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &[
        "a folder of folders in the BEIR layout, each with what BM25 found in a `bm25.jsonl`, or NanoBEIR as it is on the \
         Hub",
    ],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "The data sets are read from a folder, or where there is no path from the Hub: thirteen small ones, once.",
        "Every query has `rerank_k` pairs or more: thirteen data sets are tens of thousands.",
        "ArguAna and Touche2020 are measured only where `dataset_names` names them, as in the reference: their relevance \
         is not that of a search.",
    ],
    paper: "https://arxiv.org/abs/2104.08663",
    ..Card::new("CrossEncoderNanoBEIREvaluator", "Reranking in several small corpora, each alone and their mean.")
};

/// Those that the reference leaves out unless they are named.
pub(in crate::eval) const UNUSUAL: [&str; 2] = ["NanoArguAna", "NanoTouche2020"];

/// What a recipe may set of a [`CrossEncoderNanoBEIREvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairNanoBEIRSettings {
    /// In front of every key; the reference has no such setting, and without it the keys are the reference's.
    pub name: String,
    /// The id on the Hub of a data set with the folders `corpus`, `queries`, `qrels` and `bm25`, which is fetched when
    /// there is no path; `sentence-transformers/NanoBEIR-en` when left out.
    pub dataset_id: Option<String>,
    /// The data sets, by short name (`msmarco`) or by their folder's name; when left out, all that are in the folder but
    /// ArguAna and Touche2020.
    pub dataset_names: Option<Vec<String>>,
    /// How many of the documents that were found for a query are reranked.
    pub rerank_k: usize,
    /// MRR and NDCG look at the first documents only, so many of them.
    pub at_k: usize,
    /// Whether positives that were not found are reranked, too.
    pub always_rerank_positives: bool,
    /// What the means are called: `mean` in `NanoBEIR_R100_mean_ndcg@10`.
    pub aggregate_key: String,
    /// The model's prompt of that name; its default one when left out.
    pub prompt_name: Option<String>,
    /// Whether a run keeps CSV files with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for PairNanoBEIRSettings {
    fn default() -> Self {
        let reranking = PairRerankingSettings::default();
        Self {
            name: String::new(),
            dataset_id: None,
            dataset_names: None,
            rerank_k: 100,
            at_k: reranking.at_k,
            always_rerank_positives: reranking.always_rerank_positives,
            aggregate_key: "mean".to_owned(),
            prompt_name: None,
            write_csv: None,
        }
    }
}

impl Settings for PairNanoBEIRSettings {
    fn validate(&self) -> Result<()> {
        if self.dataset_names.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::usage("`dataset_names` is empty").with_hint("leave it out for all there are"));
        }
        if self.aggregate_key.is_empty() {
            return Err(Error::usage("`aggregate_key` is empty").with_hint("leave it out for `mean`"));
        }
        if self.rerank_k == 0 {
            return Err(Error::usage("`rerank_k` must be at least 1, got 0"));
        }
        self.whole().validate()
    }
}

impl PairNanoBEIRSettings {
    /// The settings of a reranking whose metrics are called after `name`.
    fn reranking(&self, name: &str) -> PairRerankingSettings {
        PairRerankingSettings {
            name: prefixed(&self.name, name),
            at_k: self.at_k,
            always_rerank_positives: self.always_rerank_positives,
            prompt_name: self.prompt_name.clone(),
            write_csv: self.write_csv,
        }
    }

    /// The reranking whose keys are those of the means.
    fn whole(&self) -> PairRerankingSettings {
        self.reranking(&format!("NanoBEIR_R{}_{}", self.rerank_k, self.aggregate_key))
    }
}

impl EvaluatorSettings for PairNanoBEIRSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        EvaluatorSettings::primary_key(&self.whole(), similarity_fn_name)
    }

    /// Without data only the means; the evaluator adds those of each data set.
    fn keys(&self, _: &str) -> Vec<String> {
        self.whole().all(true)
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let file = format!("NanoBEIR_evaluation_{}_results.csv", prefixed(&self.name, &self.aggregate_key));
        self.whole().csv_file(file)
    }
}

/// A [`CrossEncoderRerankingEvaluator`] on each of several data sets, and the mean of every metric over them.
///
/// Keys: those of each data set (`NanoMSMARCO_R100_ndcg@10`, `NanoMSMARCO_R100_base_ndcg@10`), then the means
/// (`NanoBEIR_R100_mean_ndcg@10`), with the number of documents reranked after the `R`. The primary metric is the mean
/// NDCG. Data sets that NanoBEIR does not have are called after their folders.
///
/// Source: `cross_encoder/evaluation/nano_beir.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [[evaluator]]
/// type = "CrossEncoderNanoBEIREvaluator"
/// path = "nano-beir"
/// rerank_k = 50
/// ```
/// Without `path`, `sentence-transformers/NanoBEIR-en` or another `dataset_id` comes from the Hub.
#[derive(Debug)]
pub struct CrossEncoderNanoBEIREvaluator {
    settings: PairNanoBEIRSettings,
    rerankings: Vec<CrossEncoderRerankingEvaluator>,
}

impl CrossEncoderNanoBEIREvaluator {
    /// An evaluator of named data sets.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings, or a name that is not among the data sets; [`Error::Data`] when there is none,
    /// or as [`CrossEncoderRerankingEvaluator::new`].
    pub fn new(datasets: Vec<(String, Vec<Sample>)>, settings: PairNanoBEIRSettings) -> Result<Self> {
        settings.validate()?;
        let named = settings.dataset_names.as_deref();
        let usual = |(name, _): &(String, Vec<Sample>)| named.is_some() || !UNUSUAL.contains(&title(name));
        let datasets = datasets.into_iter().filter(usual).collect();
        let mut rerankings = Vec::new();
        for (_, (name, mut samples)) in choose(datasets, named)? {
            for sample in &mut samples {
                if let Others::Documents(found) = &mut sample.others {
                    found.truncate(settings.rerank_k);
                }
            }
            let own = settings.reranking(&format!("{}_R{}", title(&name), settings.rerank_k));
            let made = CrossEncoderRerankingEvaluator::new(samples, own);
            rerankings.push(made.map_err(|e| e.within(format!("data set `{name}`")))?);
        }
        Ok(Self { settings, rerankings })
    }
}

impl Evaluator for CrossEncoderNanoBEIREvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let mut result = Metrics { primary: self.primary_key(""), ..Metrics::default() };
        let means = self.settings.whole().all(true);
        let (mut sums, mut numbers, mut scores) = (vec![0.0; means.len()], Vec::new(), Vec::new());
        let mut all = None;
        for (number, reranking) in self.rerankings.iter().enumerate() {
            let metrics =
                reranking.evaluate(model).map_err(|e| e.within(format!("data set `{}`", reranking.name())))?;
            // The keys of one are those of another but for the name in front.
            sums.iter_mut().zip(&metrics.values).for_each(|(sum, (_, value))| *sum += value);
            result.values.extend(metrics.values);
            metrics.looks.into_iter().for_each(|look| join(&mut all, look));
            let values: Vec<f64> = metrics.samples.into_iter().flat_map(|sample| sample.scores).flatten().collect();
            numbers.extend(std::iter::repeat_n(number as f64, values.len()));
            scores.extend(values);
        }
        for (key, sum) in means.into_iter().zip(sums) {
            result.push(key, sum / self.rerankings.len() as f64);
        }
        result.looks.extend(all.map(|look| Look { key: result.primary.clone(), ..look }));
        result.push_sample(Statistic::MeanOfMeans, numbers, vec![scores]);
        Ok(result)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let each = self.rerankings.iter().flat_map(|reranking| reranking.keys(similarity_fn_name));
        each.chain(self.settings().keys(similarity_fn_name)).collect()
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let each = self.rerankings.iter().flat_map(|reranking| reranking.csv(similarity_fn_name));
        each.chain(self.settings().csv(similarity_fn_name)).collect()
    }
}

impl FromData for CrossEncoderNanoBEIREvaluator {
    type Settings = PairNanoBEIRSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::RankedDocumentSets;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::RankedDocumentSets(datasets) => Some(Self::new(datasets, settings)),
            _ => None,
        }
    }
}
