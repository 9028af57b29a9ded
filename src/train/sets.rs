//! The data a run reads: each set with its loss, and the other models that a loss has: a guide, a twin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{prompts, routes};
use crate::data::{DatasetSpec, Feed, Store};
use crate::error::{Error, Result};
use crate::flow::{Arrangement, Batch, Classify, Labels, PackedBatch, Preprocess};
use crate::loss::{self, Balance, Loss, Setup};
use crate::model::backbone::Decoder;
use crate::model::{ModelOptions, SentenceTransformer};
use crate::ops::{Context, Param};
use crate::recipe::Plan;
use crate::recipe::plan::{DatasetPlan, LossPlan};
use crate::util::progress::Progress;
use crate::util::seed::Rng;

/// Rows whose labels are looked at together.
const LABELS_AT_ONCE: usize = 65_536;

/// A data set and what is minimised on it.
pub struct DataSet {
    pub store: Arc<Store>,
    /// What the store was made by.
    pub spec: DatasetSpec,
    /// Makes batches of the store's rows.
    pub feed: Feed,
    pub loss: Arc<dyn Loss>,
    /// The second model of losses that train one.
    pub twin: Option<Arc<SentenceTransformer>>,
    /// The decoder of losses that have one.
    pub decoder: Option<Arc<dyn Decoder>>,
    /// For losses that want a guide's embeddings.
    pub guide: Option<Guide>,
}

impl DataSet {
    /// What the set trains beside the model: its loss's parameters, and those of the second model or the decoder.
    pub fn own_params(&self) -> Vec<Arc<Param>> {
        let twin = self.twin.iter().flat_map(|twin| twin.params());
        let decoder = self.decoder.iter().flat_map(|decoder| decoder.own_params());
        self.loss.params().into_iter().chain(twin).chain(decoder).collect()
    }
}

/// A model that is not trained and sees the texts of a data set.
pub struct Guide {
    model: Arc<SentenceTransformer>,
    /// The texts as the guide's own tokenizer reads them; `None` where it reads them as the model does.
    store: Option<Arc<Store>>,
}

impl Guide {
    /// One that reads texts as the model does.
    #[cfg(test)]
    pub fn alike(model: SentenceTransformer) -> Self {
        Self { model: Arc::new(model), store: None }
    }

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

/// The losses of data sets, each once, in the order of these.
pub fn losses(sets: &[DataSet]) -> Vec<&Arc<dyn Loss>> {
    let mut losses: Vec<&Arc<dyn Loss>> = Vec::new();
    for set in sets {
        if !losses.iter().any(|known| Arc::ptr_eq(known, &set.loss)) {
            losses.push(&set.loss);
        }
    }
    losses
}

/// Opens data sets for one model. Sets whose loss is the same share it, with what it has to learn.
pub struct Opener<'a> {
    plan: &'a Plan,
    model: &'a SentenceTransformer,
    device: &'a Device,
    /// Loads the model once more, with something before its parameters' names: the copies of losses that train two.
    again: &'a dyn Fn(&str) -> Result<SentenceTransformer>,
    losses: Vec<Known>,
    guides: Vec<(String, Arc<SentenceTransformer>)>,
    /// Of losses that learn: which data set they were first used on, and its labels' names.
    classes: Vec<(Arc<dyn Loss>, String, Vec<String>)>,
    /// What losses had to say of the model.
    pub warnings: Vec<String>,
}

/// A loss that is in use.
#[derive(Clone)]
struct Known {
    plan: LossPlan,
    loss: Arc<dyn Loss>,
    twin: Option<Arc<SentenceTransformer>>,
    decoder: Option<Arc<dyn Decoder>>,
}

impl<'a> Opener<'a> {
    pub fn new(
        plan: &'a Plan,
        model: &'a SentenceTransformer,
        device: &'a Device,
        again: &'a dyn Fn(&str) -> Result<SentenceTransformer>,
    ) -> Self {
        let (losses, guides, classes, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { plan, model, device, again, losses, guides, classes, warnings }
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
        let trained = self.losses.iter().any(|known| known.plan == set.loss);
        let opened = self.open(set, key)?;
        if !trained && !opened.own_params().is_empty() {
            return Err(Error::usage(format!(
                "`{key}`: {} has parameters of its own, and no training data set trains them",
                set.loss.name
            ))
            .with_hint("give it the loss of a training data set, with the same settings"));
        }
        Ok(opened)
    }

    fn open(&mut self, set: &DatasetPlan, key: &str) -> Result<DataSet> {
        let Known { loss, twin, decoder, .. } = self.loss(&set.loss)?;
        let store =
            Arc::new(open_store(self.plan, set, loss.as_ref(), self.model, routes::of(self.plan, self.model)?, key)?);
        if let Some(range) = loss.label_range(self.model.dimension()) {
            labels_within(&store, range, &set.loss.name)?;
        }
        // labels that stand for the places of a classifier: the loss's own, or the model's, which all others share
        let own = !loss.params().is_empty();
        if own || loss.label_range(self.model.dimension()).is_some() {
            let names = store.report().label.as_ref().map(|label| label.names.clone()).unwrap_or_default();
            let shares = |known: &Arc<dyn Loss>| {
                if own { Arc::ptr_eq(known, &loss) } else { known.params().is_empty() }
            };
            let other = self.classes.iter().find(|(known, _, _)| shares(known));
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
                if self.model.looks_up() && !model.tokenizer().same_vocabulary(self.model.tokenizer()) {
                    return Err(Error::usage(format!(
                        "`{key}`: {} compares a static embedding with a guide that has other tokens",
                        set.loss.name
                    ))
                    .with_hint("choose a guide with the tokenizer of the model, or train a network"));
                }
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
        let arrangement = loss.arrangement(store.columns().len());
        if arrangement != Arrangement::AsIs && !self.plan.args.router_mapping.is_empty() {
            return Err(Error::usage(format!("`{key}`: {} makes two columns of one", set.loss.name))
                .with_hint("with `args.router_mapping` both columns have to be in the data"));
        }
        if matches!(arrangement, Arrangement::Pairs { ratio } if ratio > 1)
            && self.plan.args.per_device_train_batch_size < 2
        {
            return Err(Error::usage(format!(
                "`args.per_device_train_batch_size` must be 2 or more with {} on single texts (`{key}`): the first pair of \
                 a batch is a text with itself",
                set.loss.name
            ))
            .with_hint("8 and more is usual, a multiple of `pos_neg_ratio`"));
        }
        let pieces = match arrangement {
            Arrangement::Damaged { .. } => self.model.tokenizer().pieces(),
            _ => Vec::new(),
        };
        let feed = Feed::new(Arc::clone(&store), arrangement, pieces, self.plan.seed);
        let spec = spec(self.plan, set, loss.as_ref());
        Ok(DataSet { feed, store, spec, loss, twin, decoder, guide })
    }

    fn loss(&mut self, plan: &LossPlan) -> Result<Known> {
        /// Keeps the losses' parameters apart from other things drawn from the same seed.
        const STREAM: u64 = 0x1055_0000;
        if let Some(known) = self.losses.iter().find(|known| known.plan == *plan) {
            return Ok(known.clone());
        }
        let mut loss = loss::build_for(self.model.kind(), &plan.name, &plan.table())?;
        if self.model.looks_up() && loss.micro_batch().is_some() {
            return Err(Error::usage(format!(
                "{} takes a batch in parts, and the model is a static embedding, whose memory parts would not lower",
                loss.base_card().name
            ))
            .with_hint(
                "take the loss of the same name without `Cached`; of MegaBatchMarginLoss set `use_mini_batched_version \
                 = false`",
            ));
        }
        if loss.autoencodes() && self.model.autoencoder().is_none() {
            return Err(loss::wrap::csr::no_autoencoder());
        }
        let number = self.losses.len();
        let name = if number == 0 { "loss".to_owned() } else { format!("loss.{number}") };
        loss.prepare(&Setup {
            name: name.clone(),
            dim: self.model.dimension(),
            layers: self.model.layers(),
            dtype: DType::F32,
            device: self.device.clone(),
            rng: Rng::new(self.plan.seed).fork(STREAM + number as u64),
        })?;
        let queries = loss.check_queries().filter(|_| self.model.network_for(Some("query")));
        for warning in loss.check_dim(self.model.dimension())?.into_iter().chain(queries) {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        if loss.wants_balance() {
            loss.see_labels(self.balance(plan, loss.as_ref())?).map_err(|e| e.within(plan.name.clone()))?;
        }
        let twin = match loss.views() {
            Some(views) if views.iter().any(|view| view.twin) => {
                Some(Arc::new((self.again)(&format!("{name}.twin."))?))
            }
            _ => None,
        };
        let decoder = match loss.decoder() {
            None => None,
            Some(wanted) => {
                let decoder = self.decoder(wanted.model, &format!("{name}.decoder."), number);
                Some(decoder.map_err(|e| e.within(format!("the decoder of {}", plan.name)))?)
            }
        };
        let known = Known { plan: plan.clone(), loss: Arc::from(loss), twin, decoder };
        self.losses.push(known.clone());
        Ok(known)
    }

    /// How the labels of all training data sets with that loss are spread.
    fn balance(&self, plan: &LossPlan, loss: &dyn Loss) -> Result<Balance> {
        let mut balance = Balance::default();
        for (i, set) in self.plan.train_dataset.iter().enumerate().filter(|(_, set)| set.loss == *plan) {
            let routes = routes::of(self.plan, self.model)?;
            let store = open_store(self.plan, set, loss, self.model, routes, &format!("train_dataset.{i}"))?;
            let all: Vec<u32> = (0..store.len() as u32).collect();
            for rows in all.chunks(LABELS_AT_ONCE) {
                let labels = store.labels(rows).as_ref().and_then(Labels::floats).unwrap_or_default();
                labels.into_iter().for_each(|label| balance.add(label));
            }
        }
        Ok(balance)
    }

    /// A decoder with the model's own parameters, or one that begins as another model.
    fn decoder(&self, model: Option<&str>, prefix: &str, number: usize) -> Result<Arc<dyn Decoder>> {
        /// Keeps the decoder's new parameters apart from other things drawn from the same seed.
        const STREAM: u64 = 0xDEC0_0000;
        let rng = Rng::new(self.plan.seed).fork(STREAM + number as u64);
        let fits = |width: usize| {
            let dim = self.model.dimension();
            if width == dim {
                return Ok(());
            }
            Err(Error::usage(format!("its width is {width}, the embeddings have {dim} values"))
                .with_hint("take the modules that change the width out of the model, or choose another decoder"))
        };
        let Some(model) = model else {
            let decoder = self.model.decoder(prefix, rng)?;
            fits(self.model.hidden_size())?;
            return Ok(Arc::from(decoder));
        };
        let options = ModelOptions {
            device: Some(self.device.clone()),
            dropout: self.plan.model.dropout,
            name_prefix: prefix.to_owned(),
            ..ModelOptions::default()
        };
        let other = SentenceTransformer::load_with(&locate(model)?, &options)?;
        if !other.tokenizer().same_tokens(self.model.tokenizer()) {
            return Err(Error::model(format!("`{model}` has another tokenizer than the model"))
                .with_hint("the decoder has to write the model's tokens: choose one with the same tokenizer.json"));
        }
        let decoder = other.decoder(prefix, rng)?;
        fits(other.hidden_size())?;
        Ok(Arc::new(Untied { params: other.params(), decoder }))
    }

    fn guide(&mut self, name: &str) -> Result<Arc<SentenceTransformer>> {
        if let Some((_, model)) = self.guides.iter().find(|(known, _)| known == name) {
            return Ok(Arc::clone(model));
        }
        let directory = locate(name)?;
        let options = ModelOptions { device: Some(self.device.clone()), ..ModelOptions::default() };
        let model = Arc::new(SentenceTransformer::load_with(&directory, &options)?);
        self.guides.push((name.to_owned(), Arc::clone(&model)));
        Ok(model)
    }
}

/// Refuses data with a label that the loss cannot use, before an hour is spent on those before it.
fn labels_within(store: &Store, (least, most, hint): (f64, f64, &str), loss: &str) -> Result<()> {
    let told = store.report().label.as_ref();
    if !told.is_some_and(|label| label.kind != "matrix" && (label.min < least || label.max > most)) {
        return Ok(());
    }
    let all: Vec<u32> = (0..store.len() as u32).collect();
    for rows in all.chunks(LABELS_AT_ONCE) {
        let labels = match store.labels(rows) {
            Some(labels @ (Labels::Int(_) | Labels::Float(_))) => labels.floats().unwrap_or_default(),
            _ => return Ok(()),
        };
        let outside = labels.iter().zip(rows).find(|(label, _)| !(least..=most).contains(&f64::from(**label)));
        if let Some((label, row)) = outside {
            return Err(Error::data(format!(
                "{}: the label is {label}, and {loss} takes {least} to {most}",
                store.locate(*row)
            ))
            .with_hint(hint));
        }
    }
    Ok(())
}

/// The directory of a model that a loss or a data set names: a plan has whole paths, everything else is an id.
pub(super) fn locate(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_absolute() { Ok(PathBuf::from(path)) } else { crate::hub::fetch(name, None) }
}

/// A decoder that shares nothing with the model.
struct Untied {
    /// Of the network it was made of.
    params: Vec<Arc<Param>>,
    decoder: Box<dyn Decoder>,
}

impl Decoder for Untied {
    fn cross_entropy(&self, sentence: &Tensor, texts: &PackedBatch, context: &Context) -> Result<Tensor> {
        self.decoder.cross_entropy(sentence, texts, context)
    }

    fn own_params(&self) -> Vec<Arc<Param>> {
        [self.params.clone(), self.decoder.own_params()].concat()
    }

    fn whole_tables(&self) -> Vec<Arc<Param>> {
        self.decoder.whole_tables()
    }

    fn activation_floats(&self) -> usize {
        self.decoder.activation_floats()
    }
}

/// What the sets train beside the model, each once.
pub fn own_params(sets: &[DataSet]) -> Vec<Arc<Param>> {
    let mut params: Vec<Arc<Param>> = Vec::new();
    for param in sets.iter().flat_map(DataSet::own_params) {
        if !params.iter().any(|known| Arc::ptr_eq(known, &param)) {
            params.push(param);
        }
    }
    params
}

/// What the loss of all data sets that have such a layer tells classes with; `None` where there is none, or several.
pub fn classifier(sets: &[DataSet]) -> Option<&dyn Classify> {
    let mut found = sets.iter().filter(|set| set.loss.classifier().is_some());
    let first = found.next()?;
    found.all(|set| Arc::ptr_eq(&set.loss, &first.loss)).then(|| first.loss.classifier()).flatten()
}

/// What a data set is read by.
fn spec(run: &Plan, plan: &DatasetPlan, loss: &dyn Loss) -> DatasetSpec {
    let card = loss.base_card();
    DatasetSpec {
        name: Some(plan.name.clone()),
        paths: plan.path.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
        columns: (!plan.columns.is_empty()).then(|| plan.columns.clone()),
        label: plan.label.clone(),
        limit: plan.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        on_bad_row: plan.on_bad_row,
        prompts: plan.prompts.clone(),
        common_prompts: prompts::of(run, plan),
        needs: card.labels,
        unlabelled_from: card.unlabelled_from,
    }
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
    let spec = spec(run, plan, loss);
    let progress = Progress::new("tokenising", 0);
    let preprocess = model.preprocess(routes).map_err(|e| e.within("`args.router_mapping`"))?;
    let store = Store::open_or_build(&spec, Path::new(""), &preprocess, &progress);
    progress.finish();
    let store = store?;
    prompts::within_pairs(model, &store, key)?;
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
