//! Data sets, losses and evaluators of the plan.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Resolver;
use crate::eval::nano_beir;
use crate::flow::ModelType;
use crate::hub::{self, HubDataset};
use crate::negatives::Settings;
use crate::recipe::plan::{DatasetPlan, EvaluatorPlan, Location, LossPlan, MatryoshkaPlan};
use crate::recipe::schema::{DatasetConfig, LossConfig, MatryoshkaConfig, Recipe};
use crate::recipe::teacher::Teacher;
use crate::util::files;

impl Resolver<'_> {
    /// Training and evaluation data, each with its loss.
    pub(super) fn datasets(&mut self, recipe: &Recipe) -> (Vec<DatasetPlan>, Vec<DatasetPlan>) {
        let common = recipe.loss.as_ref().map(|loss| self.loss("loss", loss));
        let train = &recipe.train_dataset.0;
        if train.is_empty() {
            self.problem("train_dataset", "is an empty list", "add a table `[[train_dataset]]` with a `path`");
        }
        if common.is_none() && train.iter().any(|d| d.loss.is_none()) {
            self.problem(
                "loss",
                "is required but missing",
                "add a table `[loss]` with `name = \"MultipleNegativesRankingLoss\"` or another loss",
            );
        }
        let own = !train.is_empty() && train.iter().all(|d| d.loss.is_some());
        if common.is_some() && own {
            self.notes.push("`[loss]` is not used: every training data set names its own".to_owned());
        }
        let train: Vec<DatasetPlan> = self.list("train_dataset", train, |_| common.clone());
        let common = common.filter(|_| !own);
        let eval = recipe.eval_dataset.as_ref().map_or(&[][..], |d| &d.0);
        let first = train.first().map(|d| d.loss.clone());
        let same = train.windows(2).all(|pair| pair[0].loss == pair[1].loss);
        let eval = self.list("eval_dataset", eval, |r| {
            if common.is_none() && !same {
                r.problem(
                    "eval_dataset",
                    "the training data sets have different losses",
                    "name the one to compute here with `loss` in `[eval_dataset]`",
                );
            }
            common.clone().or_else(|| first.clone())
        });
        (train, eval)
    }

    fn list(
        &mut self,
        table: &str,
        configs: &[DatasetConfig],
        loss: impl Fn(&mut Self) -> Option<LossPlan>,
    ) -> Vec<DatasetPlan> {
        let mut plans: Vec<DatasetPlan> = Vec::new();
        for (i, config) in configs.iter().enumerate() {
            let key = format!("{table}.{i}");
            let loss = match &config.loss {
                Some(own) => Some(self.loss(&format!("{key}.loss"), own)),
                None => loss(self),
            };
            let mut plan = self.dataset(&key, config, loss);
            if plans.iter().any(|p| p.name == plan.name) {
                if config.name.is_some() {
                    self.problem(format!("{key}.name"), format!("there are two `{}`", plan.name), "give each its own");
                } else {
                    plan.name = format!("{}-{}", plan.name, i + 1);
                }
            }
            plans.push(plan);
        }
        plans
    }

    fn dataset(&mut self, key: &str, config: &DatasetConfig, loss: Option<LossPlan>) -> DatasetPlan {
        let at = |name: &str| format!("{key}.{name}");
        let hub = self.hub_dataset(key, config);
        let path = self.data_paths(key, config);
        let columns = config.columns.clone();
        if columns.as_ref().is_some_and(Vec::is_empty) {
            self.problem(at("columns"), "is an empty list", "name the columns with texts, or leave it out for all");
        }
        if let (Some(label), Some(columns)) = (&config.label, &columns)
            && columns.contains(label)
        {
            self.problem(at("label"), format!("`{label}` is among `columns` too"), "take it out of `columns`");
        }
        if let Some(columns) = &columns {
            let known: Vec<&str> = columns.iter().map(String::as_str).collect();
            for name in config.prompts.iter().flat_map(|p| p.keys()) {
                self.known(&at(&format!("prompts.{name}")), "column", name, &known);
            }
        }
        if config.limit == Some(0) {
            self.problem(at("limit"), "must be 1 or more, found 0", "leave it out for all rows");
        }
        DatasetPlan {
            name: self.or(
                &at("name"),
                config.name.clone(),
                match &hub {
                    Some(hub) => hub.id.rsplit('/').next().unwrap_or_default().to_owned(),
                    None => name_of(path.first()),
                },
            ),
            path,
            hub,
            columns: self.or(&at("columns"), columns, Vec::new()),
            label: config.label.clone(),
            limit: config.limit,
            on_bad_row: self.or(&at("on_bad_row"), config.on_bad_row, Default::default()),
            prompts: config.prompts.clone().unwrap_or_default(),
            hard_negatives: config.hard_negatives.as_ref().map(|settings| self.hard_negatives(key, config, settings)),
            teacher: config.teacher.as_ref().map(|teacher| self.teacher(key, teacher)),
            loss: loss.unwrap_or_else(|| LossPlan {
                name: String::new(),
                settings: Default::default(),
                matryoshka: None,
            }),
        }
    }

    /// Settings for finding hard negatives, with the files they name.
    fn hard_negatives(&mut self, key: &str, config: &DatasetConfig, settings: &Settings) -> Settings {
        let at = |name: &str| format!("{key}.hard_negatives.{name}");
        if let Err(error) = settings.clone().settled() {
            self.problem(format!("{key}.hard_negatives"), error.to_string(), error.hint().unwrap_or_default());
        }
        if config.columns.as_ref().is_some_and(|columns| columns.len() != 2) {
            self.problem(
                format!("{key}.columns"),
                "must be two with `hard_negatives`: an anchor and a positive",
                "leave it out for the first two columns with texts",
            );
        }
        if config.label.is_some() {
            self.problem(
                format!("{key}.label"),
                "has no meaning with `hard_negatives`, which makes rows of pairs without labels",
                "leave it out",
            );
        }
        let mut settings = settings.clone();
        let base = self.base.clone().filter(|_| self.model_type != ModelType::CrossEncoder);
        match (&settings.model, settings.bm25) {
            (Some(model), _) => settings.model = Some(self.model_text(&at("model"), model)),
            (None, true) => {}
            (None, false) => match base {
                Some(base) => settings.model = Some(self.model_text("model.base", &base)),
                None => self.problem(
                    format!("{key}.hard_negatives"),
                    "needs a model to find candidates with, and the run starts from none that could",
                    "name a bi-encoder's folder with `model`, or set `bm25 = true`",
                ),
            },
        }
        if let Some(reranker) = settings.cross_encoder.take() {
            settings.cross_encoder = Some(self.model_text(&at("cross_encoder"), &reranker));
        }
        if let Some(corpus) = settings.corpus.take() {
            match self.bases.find(&at("corpus"), &corpus) {
                Ok(path) => settings.corpus = Some(path.display().to_string()),
                Err(problem) => self.problems.push(problem),
            }
        }
        if let Some(folder) = settings.cache_folder.take() {
            settings.cache_folder = Some(self.here(&at("cache_folder"), &folder).display().to_string());
        }
        settings
    }

    /// A teacher, with the model it names.
    fn teacher(&mut self, key: &str, teacher: &Teacher) -> Teacher {
        let key = format!("{key}.teacher");
        if let Err(error) = teacher.check() {
            self.problem(&key, error.to_string(), error.hint().unwrap_or_default());
            return teacher.clone();
        }
        Teacher { model: self.model_text(&format!("{key}.model"), &teacher.model), ..teacher.clone() }
    }

    /// A model's absolute path, or its id on the Hub.
    fn model_text(&mut self, key: &str, text: &str) -> String {
        match self.locate(key, text) {
            Location::Hub(id) => id,
            Location::Path(path) => files::absolute(&path).display().to_string(),
        }
    }

    /// A data set on the Hub.
    fn hub_dataset(&mut self, key: &str, config: &DatasetConfig) -> Option<HubDataset> {
        let id = config.id.as_ref()?;
        let split = config.split.as_deref().unwrap_or("train");
        if let Err(error) = hub::slices::parse(split) {
            self.problem(format!("{key}.split"), error.to_string(), error.hint().unwrap_or_default());
        }
        if !hub::is_id(id) {
            self.problem(
                format!("{key}.id"),
                format!("`{id}` is no id of a data set"),
                "ids look like `owner/name`; files on this machine are named with `path`",
            );
        }
        Some(HubDataset {
            id: id.clone(),
            revision: config.revision.clone(),
            subset: config.subset.clone(),
            split: split.to_owned(),
        })
    }

    fn data_paths(&mut self, key: &str, config: &DatasetConfig) -> Vec<PathBuf> {
        if config.id.is_some() {
            if config.path.is_some() {
                self.problem(format!("{key}.path"), "can't be combined with `id`", "leave one of them out");
            }
            return Vec::new();
        }
        let only_hub = [
            ("subset", config.subset.is_some()),
            ("split", config.split.is_some()),
            ("revision", config.revision.is_some()),
        ];
        for (name, given) in only_hub {
            if given {
                self.problem(
                    format!("{key}.{name}"),
                    "is only for data sets from the Hub",
                    "give the split's own `path`",
                );
            }
        }
        let texts = config.path.as_ref().map_or(&[][..], |p| &p.0);
        if texts.is_empty() {
            self.problem(format!("{key}.path"), "is required but missing", "give a file, a glob or a directory");
        }
        let mut paths = Vec::new();
        for text in texts {
            match self.bases.find(&format!("{key}.path"), text) {
                Ok(path) => paths.push(path),
                Err(problem) => self.problems.push(problem),
            }
        }
        paths
    }

    fn loss(&mut self, key: &str, config: &LossConfig) -> LossPlan {
        let matryoshka = config.matryoshka.as_ref().map(|m| self.matryoshka(&format!("{key}.matryoshka"), m));
        let mut plan = LossPlan { name: config.name.clone(), settings: config.settings.clone(), matryoshka };
        let registry = self.registry;
        let name_key = format!("{key}.name");
        if plan.name == "MatryoshkaLoss" {
            self.problem(
                name_key,
                "MatryoshkaLoss wraps another loss",
                format!(
                    "name the loss inside it here and add a table `[{key}.matryoshka]` with `dims = [384, 256, 128]`"
                ),
            );
        } else if self.known(&name_key, "loss", &plan.name, &registry.losses(self.model_type)) {
            plan.settings = self.settings(key, &config.settings, registry.loss_settings(self.model_type, &plan));
            self.required(key, &mut plan.settings);
        }
        plan
    }

    /// The settings that no loss can do without, in the loss under `key` and in those it wraps by their names.
    fn required(&mut self, key: &str, settings: &mut Map<String, Value>) {
        self.model_setting(key, "guide", settings);
        if settings.get("tie_encoder_decoder") == Some(&Value::Bool(false)) {
            self.model_setting(key, "decoder_name_or_path", settings);
        }
        if settings.get("num_labels").is_some_and(|count| *count == 0) {
            self.problem(
                format!("{key}.num_labels"),
                "is required but missing",
                "set it to the number of classes; labels are 0 to one less",
            );
        }
        if let Some(Value::Object(inner)) = settings.get_mut("loss") {
            self.required(&format!("{key}.loss"), inner);
        }
    }

    /// A loss's guide or decoder is a model, so it is found as models are.
    fn model_setting(&mut self, key: &str, name: &str, settings: &mut Map<String, Value>) {
        let key = format!("{key}.{name}");
        let Some(Value::String(model)) = settings.get_mut(name) else { return };
        if model.is_empty() {
            self.problem(
                key,
                "is required but missing",
                "give a model directory or Hub id: a good small model will do",
            );
            return;
        }
        *model = self.model_text(&key, model);
    }

    fn matryoshka(&mut self, key: &str, config: &MatryoshkaConfig) -> MatryoshkaPlan {
        let at = |name: &str| format!("{key}.{name}");
        let dims = &config.dims;
        if dims.is_empty() || dims.contains(&0) {
            self.problem(at("dims"), "must be widths of 1 or more", "widest first, as `dims = [384, 256, 128, 64]`");
        }
        if dims.iter().enumerate().any(|(i, d)| dims[..i].contains(d)) {
            self.problem(at("dims"), "has a width twice", "give each width once");
        }
        let weights = self.or(&at("weights"), config.weights.clone(), vec![1.0; dims.len()]);
        if weights.len() != dims.len() {
            let message = format!("has {} entries for {} widths", weights.len(), dims.len());
            self.problem(at("weights"), message, "give one weight a width, or leave it out for 1 each");
        }
        let n_dims_per_step = self.or(&at("n_dims_per_step"), config.n_dims_per_step, -1);
        if n_dims_per_step == 0 || n_dims_per_step < -1 {
            self.problem(
                at("n_dims_per_step"),
                format!("must be -1, or 1 or more, found {n_dims_per_step}"),
                "-1 trains all widths in each step",
            );
        }
        MatryoshkaPlan { dims: dims.clone(), weights, n_dims_per_step }
    }

    /// The evaluators.
    pub(super) fn evaluators(&mut self, recipe: &Recipe) -> Vec<EvaluatorPlan> {
        let mut plans: Vec<EvaluatorPlan> = Vec::new();
        let registry = self.registry;
        for (i, config) in recipe.evaluator.iter().flat_map(|e| &e.0).enumerate() {
            let key = format!("evaluator.{i}");
            let path = match &config.path {
                Some(text) => self.bases.find(&format!("{key}.path"), text).unwrap_or_else(|problem| {
                    self.problems.push(problem);
                    PathBuf::from(text)
                }),
                // it comes when the run begins
                None if nano_beir::on_the_hub(&config.kind, &config.settings).is_some() => PathBuf::new(),
                None => {
                    self.problem(
                        format!("{key}.path"),
                        "is required but missing",
                        "give the file or directory the evaluator reads",
                    );
                    PathBuf::new()
                }
            };
            let mut plan = EvaluatorPlan {
                kind: config.kind.clone(),
                name: self.or(&format!("{key}.name"), config.name.clone(), String::new()),
                path,
                columns: config.columns.clone().unwrap_or_default(),
                label: config.label.clone(),
                limit: config.limit,
                settings: config.settings.clone(),
            };
            if plan.limit == Some(0) {
                self.problem(format!("{key}.limit"), "must be 1 or more, found 0", "leave it out for all rows");
            }
            if self.known(&format!("{key}.type"), "evaluator", &plan.kind, &registry.evaluators(self.model_type)) {
                plan.settings = self.settings(&key, &config.settings, registry.evaluator_settings(&plan));
            }
            // The one setting that is a path.
            if let Some(text) = plan.settings.get("teacher_model").and_then(Value::as_str).map(str::to_owned) {
                match self.bases.find(&format!("{key}.teacher_model"), &text) {
                    Ok(path) => {
                        plan.settings.insert("teacher_model".to_owned(), path.to_string_lossy().into());
                    }
                    Err(problem) => self.problems.push(problem),
                }
            }
            if plans.iter().any(|p| p.name == plan.name && p.kind == plan.kind) {
                self.problem(
                    format!("{key}.name"),
                    format!("two evaluators of the type `{}` would report under the same keys", plan.kind),
                    "give each its own `name`",
                );
            }
            plans.push(plan);
        }
        plans
    }
}

/// `stsb/train.jsonl` is called after its folder, `pairs.jsonl` after itself.
fn name_of(path: Option<&PathBuf>) -> String {
    let stem = |p: &Path| p.file_stem().map(|s| s.to_string_lossy().into_owned());
    let Some(path) = path else { return "data".to_owned() };
    let own = stem(path).unwrap_or_default();
    let plain = ["train", "dev", "test", "validation", "data"].contains(&own.as_str()) || own.contains('*');
    match path.parent().and_then(stem).filter(|_| plain) {
        Some(folder) => folder,
        None if own.is_empty() => "data".to_owned(),
        None => own,
    }
}
