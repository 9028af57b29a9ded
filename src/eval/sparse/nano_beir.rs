//! SparseNanoBEIREvaluator: NanoBEIR of sparse embeddings, and how sparse these are in each data set and in all.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::watched::{SEARCH, Seen, Told, Watched, tell};
use super::{SparseSettings, sparse_of};
use crate::error::{Error, Result};
use crate::eval::nano_beir::{self, NanoBEIREvaluator, NanoBEIRSettings};
use crate::eval::{Csv, DataKind, Entry, Evaluator, EvaluatorSettings, FromData, Keyed, shared};
use crate::flow::{Card, Encode, Metrics, ModelType};
use crate::util::registry::Settings;

/// An evaluator of each data set's search, the means of their metrics, and how sparse embeddings are.
///
/// Keys: of each data set those of [`NanoBEIREvaluator`] and `NanoMSMARCO_query_active_dims`, ..., `_avg_flops`; then the
/// means. Active dimensions and sparsity of all data sets are means over all their texts, `avg_flops` is that of all
/// queries with all documents. With `max_active_dims` the number stands behind the names (`NanoMSMARCO_64`).
///
/// Source: `sparse_encoder/evaluation/sparse_nano_beir.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "SparseNanoBEIREvaluator"
/// path = "nano-beir"
/// ```
/// Without `path` the data are looked for where NanoBEIREvaluator looks.
pub struct SparseNanoBEIREvaluator {
    inner: NanoBEIREvaluator,
    settings: SparseNanoBEIRSettings,
}

/// The catalogue entry.
pub const CARD: Card =
    Card { name: "SparseNanoBEIREvaluator", model_types: &[ModelType::SparseEncoder], ..nano_beir::CARD };

/// The entry.
pub const ENTRY: Entry = Entry {
    card: &CARD,
    data: DataKind::Retrievals,
    defaults: || NanoBEIRSettings::default().to_json(),
    schema: || schemars::schema_for!(NanoBEIRSettings),
    read: |_, settings| Ok(Box::new(SparseNanoBEIRSettings::read(settings)?.0)),
    build: |_, settings, data| {
        let (settings, inner) = SparseNanoBEIRSettings::read(settings)?;
        let kind = data.kind();
        match NanoBEIREvaluator::from_data(inner, data) {
            Some(inner) => Ok(Box::new(SparseNanoBEIREvaluator { inner: inner?, settings })),
            None => Err(Error::data(format!("`{}` reads {}, got {kind}", CARD.name, DataKind::Retrievals))),
        }
    },
};

/// The settings of [`NanoBEIREvaluator`], with `max_active_dims` in names.
struct SparseNanoBEIRSettings(SparseSettings<NanoBEIRSettings>);

impl SparseNanoBEIRSettings {
    fn read(settings: &Map<String, Value>) -> Result<(Self, NanoBEIRSettings)> {
        let (mut own, mut working) = SparseSettings::<NanoBEIRSettings>::read(CARD.name, settings, Told::of(SEARCH))?;
        own.inner.max_active_dims = own.max_active_dims;
        working.max_active_dims = own.max_active_dims;
        Ok((Self(own), working))
    }

    /// Keys of how sparse embeddings are, after the name of a data set or of all.
    fn told(&self, name: &str) -> Vec<String> {
        self.0.told.keys().iter().map(|key| shared::prefixed(name, key)).collect()
    }

    /// What the means are called after.
    fn whole(&self) -> String {
        self.0.inner.whole().name
    }
}

impl Keyed for SparseNanoBEIRSettings {
    fn json(&self) -> Value {
        self.0.json()
    }

    fn name(&self) -> &str {
        Keyed::name(&self.0)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        EvaluatorSettings::primary_key(&self.0.inner, similarity_fn_name)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let mut keys = EvaluatorSettings::keys(&self.0.inner, similarity_fn_name);
        keys.extend(self.told(&self.whole()));
        keys
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let files = EvaluatorSettings::csv(&self.0.inner, similarity_fn_name).into_iter();
        files.map(|csv| self.with_told(csv, &self.whole())).collect()
    }
}

impl SparseNanoBEIRSettings {
    fn with_told(&self, csv: Csv, name: &str) -> Csv {
        let columns = self.0.told.keys().into_iter().zip(self.told(name));
        columns.fold(csv, |csv, (header, key)| csv.column(header, key))
    }
}

impl Evaluator for SparseNanoBEIREvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let sparse = sparse_of(model, &CARD)?;
        let (max_active_dims, told) = (self.settings.0.max_active_dims, self.settings.0.told);
        let mut all: Vec<Seen> = Vec::new();
        let mut metrics = self.inner.evaluate_each(model.similarity_fn_name(), &mut |search| {
            let watched = Watched { model, sparse, max_active_dims, told, groups: RefCell::default() };
            let mut metrics = search.evaluate(&watched)?;
            for (key, value) in watched.tell() {
                metrics.push(shared::prefixed(search.name(), &key), value);
            }
            let groups = watched.groups.into_inner();
            all.resize(groups.len().max(all.len()), Seen::default());
            all.iter_mut().zip(&groups).for_each(|(sum, seen)| sum.add(seen));
            Ok(metrics)
        })?;
        let whole = self.settings.whole();
        for (key, value) in tell(told, &all) {
            metrics.push(shared::prefixed(&whole, &key), value);
        }
        Ok(metrics)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        self.inner.primary_key(similarity_fn_name)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let of = |search: &crate::eval::information_retrieval::InformationRetrievalEvaluator| {
            let mut keys = search.keys(similarity_fn_name);
            keys.extend(self.settings.told(search.name()));
            keys
        };
        let mut keys: Vec<String> = self.inner.searches().iter().flat_map(of).collect();
        keys.extend(self.settings.keys(similarity_fn_name));
        keys
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let own = self.inner.searches().iter().flat_map(|search| {
            let files = search.csv(similarity_fn_name).into_iter();
            files.map(|csv| self.settings.with_told(csv, search.name())).collect::<Vec<_>>()
        });
        own.chain(self.settings.csv(similarity_fn_name)).collect()
    }
}
