//! The data a run reads: each set with its loss, and the guide of a loss that has one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{prompts, routes};
use crate::data::{DatasetSpec, Store};
use crate::error::{Error, Result};
use crate::flow::{Batch, Preprocess};
use crate::loss::{self, Loss, Setup};
use crate::model::{ModelOptions, SentenceTransformer};
use crate::ops::{Context, Param};
use crate::recipe::Plan;
use crate::recipe::plan::{DatasetPlan, LossPlan};
use crate::util::progress::Progress;
use crate::util::seed::Rng;

/// A data set and what is minimised on it.
pub struct DataSet {
    pub store: Arc<Store>,
    pub loss: Arc<dyn Loss>,
    /// For losses that want a guide's embeddings.
    pub guide: Option<Guide>,
}

/// A model that is not trained and sees the texts of a data set.
pub struct Guide {
    model: Arc<SentenceTransformer>,
    /// The texts as the guide's own tokenizer reads them; `None` where it reads them as the model does.
    store: Option<Arc<Store>>,
}

impl Guide {
    /// Its embeddings of a batch's texts: `[columns]` of `[rows, dim]`.
    ///
    /// # Errors
    /// When a sequence does not fit the guide.
    pub fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        let embed = |batch: &Batch| self.model.embed(batch, &Context::inference());
        let columns = match &self.store {
            None => embed(batch)?,
            Some(store) => {
                let rows: Vec<u32> = batch.row_ids.iter().map(|row| *row as u32).collect();
                embed(&store.batch(&rows)?)?
            }
        };
        Ok(columns.iter().map(Tensor::detach).collect())
    }
}

/// Opens data sets for one model. Sets whose loss is the same share it, with what it has to learn.
pub struct Opener<'a> {
    plan: &'a Plan,
    model: &'a SentenceTransformer,
    device: &'a Device,
    losses: Vec<(LossPlan, Arc<dyn Loss>)>,
    guides: Vec<(String, Arc<SentenceTransformer>)>,
    /// Of losses that learn: which data set they were first used on, and its labels' names.
    classes: Vec<(Arc<dyn Loss>, String, Vec<String>)>,
    /// What losses had to say of the model.
    pub warnings: Vec<String>,
}

impl<'a> Opener<'a> {
    pub fn new(plan: &'a Plan, model: &'a SentenceTransformer, device: &'a Device) -> Self {
        Self { plan, model, device, losses: Vec::new(), guides: Vec::new(), classes: Vec::new(), warnings: Vec::new() }
    }

    /// A data set to train on, which stands in the recipe under `key`.
    ///
    /// # Errors
    /// When the loss or the data cannot be used.
    pub fn train(&mut self, set: &DatasetPlan, key: &str) -> Result<DataSet> {
        self.open(set, key)
    }

    /// A data set to measure the loss on.
    ///
    /// # Errors
    /// As [`Opener::train`], and when the loss would have to learn from data it is not trained on.
    pub fn evaluate(&mut self, set: &DatasetPlan, key: &str) -> Result<DataSet> {
        let trained = self.losses.iter().any(|(plan, _)| *plan == set.loss);
        let opened = self.open(set, key)?;
        if !trained && !opened.loss.params().is_empty() {
            return Err(Error::usage(format!(
                "`{key}`: {} has parameters of its own, and no training data set trains them",
                set.loss.name
            ))
            .with_hint("give it the loss of a training data set, with the same settings"));
        }
        Ok(opened)
    }

    fn open(&mut self, set: &DatasetPlan, key: &str) -> Result<DataSet> {
        let loss = self.loss(&set.loss)?;
        let store =
            Arc::new(open_store(self.plan, set, loss.as_ref(), self.model, routes::of(self.plan, self.model)?, key)?);
        if !loss.params().is_empty() {
            let names = store.report().label.as_ref().map(|label| label.names.clone()).unwrap_or_default();
            let other = self.classes.iter().find(|(known, _, _)| Arc::ptr_eq(known, &loss));
            if let Some((_, first, _)) = other.filter(|(_, _, theirs)| *theirs != names) {
                return Err(Error::data(format!(
                    "`{key}`: {} shares its classes with `{first}`, where labels have other names",
                    set.loss.name
                ))
                .with_hint("names are numbered in each data set by itself: write the classes as whole numbers"));
            }
            self.classes.push((Arc::clone(&loss), key.to_owned(), names));
        }
        let guide = match loss.guide() {
            None => None,
            Some(name) => {
                let model =
                    self.guide(name).map_err(|e| e.within(format!("`{key}`: the guide of {}", set.loss.name)))?;
                let same = model.tokenizer().fingerprint() == self.model.tokenizer().fingerprint()
                    && self.plan.args.router_mapping.is_empty();
                let store = if same {
                    None
                } else {
                    Some(Arc::new(open_store(self.plan, set, loss.as_ref(), &model, &BTreeMap::new(), key)?))
                };
                Some(Guide { model, store })
            }
        };
        Ok(DataSet { store, loss, guide })
    }

    fn loss(&mut self, plan: &LossPlan) -> Result<Arc<dyn Loss>> {
        /// Keeps the losses' parameters apart from other things drawn from the same seed.
        const STREAM: u64 = 0x1055_0000;
        if let Some((_, loss)) = self.losses.iter().find(|(known, _)| known == plan) {
            return Ok(Arc::clone(loss));
        }
        let mut loss = loss::build(&plan.name, &plan.table())?;
        let number = self.losses.len();
        loss.prepare(&Setup {
            name: if number == 0 { "loss".to_owned() } else { format!("loss.{number}") },
            dim: self.model.dimension(),
            layers: self.model.layers(),
            dtype: DType::F32,
            device: self.device.clone(),
            rng: Rng::new(self.plan.seed).fork(STREAM + number as u64),
        })?;
        for warning in loss.check_dim(self.model.dimension())? {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        let loss: Arc<dyn Loss> = Arc::from(loss);
        self.losses.push((plan.clone(), Arc::clone(&loss)));
        Ok(loss)
    }

    fn guide(&mut self, name: &str) -> Result<Arc<SentenceTransformer>> {
        if let Some((_, model)) = self.guides.iter().find(|(known, _)| known == name) {
            return Ok(Arc::clone(model));
        }
        // a plan has whole paths, everything else is an id
        let path = Path::new(name);
        let directory = if path.is_absolute() { PathBuf::from(path) } else { crate::hub::fetch(name)? };
        let options = ModelOptions { device: Some(self.device.clone()), ..ModelOptions::default() };
        let model = Arc::new(SentenceTransformer::load_with(&directory, &options)?);
        self.guides.push((name.to_owned(), Arc::clone(&model)));
        Ok(model)
    }
}

/// The parameters that the sets' losses have of their own, each once.
pub fn loss_params(sets: &[DataSet]) -> Vec<Arc<Param>> {
    let mut params: Vec<Arc<Param>> = Vec::new();
    for param in sets.iter().flat_map(|set| set.loss.params()) {
        if !params.iter().any(|known| Arc::ptr_eq(known, &param)) {
            params.push(param);
        }
    }
    params
}

/// The tokenised store of a data set.
fn open_store(
    run: &Plan,
    plan: &DatasetPlan,
    loss: &dyn Loss,
    model: &SentenceTransformer,
    routes: &BTreeMap<String, String>,
    key: &str,
) -> Result<Store> {
    let card = loss.base_card();
    let spec = DatasetSpec {
        name: Some(plan.name.clone()),
        paths: plan.path.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
        columns: (!plan.columns.is_empty()).then(|| plan.columns.clone()),
        label: plan.label.clone(),
        limit: plan.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        on_bad_row: plan.on_bad_row,
        prompts: plan.prompts.clone(),
        common_prompts: prompts::of(run, plan),
        needs: card.labels,
    };
    let progress = Progress::new("tokenising", 0);
    let preprocess = model.preprocess(routes).map_err(|e| e.within("`args.router_mapping`"))?;
    let store = Store::open_or_build(&spec, Path::new(""), &preprocess, &progress);
    progress.finish();
    let store = store?;
    let (least, most) = card.columns;
    let columns = store.columns().len();
    if columns < least || columns > most {
        let wanted = if most == usize::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        return Err(Error::data(format!(
            "`{key}`: {columns} input columns ({}), {} takes {wanted}",
            store.columns().join(", "),
            card.name
        ))
        .with_hint(format!(
            "name the columns it should use with `columns`; {} takes {}",
            card.name,
            card.inputs.join(" or ")
        )));
    }
    Ok(store)
}
