//! The model's part of the plan.

use super::Resolver;
use crate::flow::ModelType;
use crate::model::backbone::prune;
use crate::model::lora::LoraOptions;
use crate::model::{MultiVectorOptions, TokenizerAlgorithm, TokenizerTraining, punctuation};
use crate::recipe::plan::{Location, ModelPlan, ModelSource, SparseAutoEncoderPlan, SparseStaticEmbeddingPlan};
use crate::recipe::schema::ModelConfig;

impl Resolver<'_> {
    pub(super) fn model(&mut self, model: &ModelConfig, model_type: ModelType) -> ModelPlan {
        self.check_model(model, model_type);
        let source = self.source(model);
        if model.revision.is_some() && !matches!(source, ModelSource::Base(Location::Hub(_))) {
            self.problem(
                "model.revision",
                "is for a base on the Hub, and the model comes from elsewhere",
                "leave it out, or give an id (`owner/name`) as `model.base`",
            );
        }
        ModelPlan {
            source,
            revision: model.revision.clone(),
            sparse_static_embedding: self.static_queries(model, model_type),
            sparse_auto_encoder: self.autoencoder(model, model_type),
            keep_layers: self.keep_layers(model),
            lora: model.lora.as_ref().map(|lora| self.lora(model, lora)),
            max_seq_length: model.max_seq_length,
            pooling_mode: model.pooling_mode.clone().unwrap_or_default().0,
            normalize: model.normalize,
            truncate_dim: model.truncate_dim,
            prompts: model.prompts.clone(),
            default_prompt_name: model.default_prompt_name.clone(),
            dropout: model.dropout,
            similarity_fn_name: model.similarity_fn_name,
            num_labels: model.num_labels,
            activation_fn: model.activation_fn,
            multi_vector: MultiVectorOptions {
                embedding_dim: model.embedding_dim,
                query_length: model.query_length,
                document_length: model.document_length,
                query_expansion: model.query_expansion.clone(),
                skiplist_words: model.skiplist_words.as_ref().map(|words| match words.0.as_slice() {
                    [word] if word == "punctuation" => punctuation(),
                    words => words.to_vec(),
                }),
                ..MultiVectorOptions::default()
            },
        }
    }

    fn static_queries(&mut self, model: &ModelConfig, model_type: ModelType) -> Option<SparseStaticEmbeddingPlan> {
        let given = model.sparse_static_embedding.as_ref()?;
        let key = "model.sparse_static_embedding";
        if model_type != ModelType::SparseEncoder {
            self.problem(
                key,
                format!("has no meaning for a {model_type}"),
                "it is for `model_type = \"SparseEncoder\"`",
            );
        }
        let corpus = given.corpus.as_ref().map_or(&[][..], |files| &files.0);
        if given.idf.is_some() && !corpus.is_empty() {
            let why = "can't be combined with `corpus`: weights come from one place";
            self.problem(format!("{key}.idf"), why, "leave one of them out");
        }
        let mut find = |name: &str, text: &String| match self.bases.find(&format!("{key}.{name}"), text) {
            Ok(path) => Some(path),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        };
        Some(SparseStaticEmbeddingPlan {
            idf: given.idf.as_ref().and_then(|text| find("idf", text)),
            corpus: corpus.iter().filter_map(|text| find("corpus", text)).collect(),
            frozen: given.frozen.unwrap_or(false),
        })
    }

    fn autoencoder(&mut self, model: &ModelConfig, model_type: ModelType) -> Option<SparseAutoEncoderPlan> {
        let given = model.sparse_auto_encoder.as_ref()?;
        let key = "model.sparse_auto_encoder";
        if model_type != ModelType::SparseEncoder {
            self.problem(
                key,
                format!("has no meaning for a {model_type}"),
                "it is for `model_type = \"SparseEncoder\"`",
            );
        }
        if model.sparse_static_embedding.is_some() {
            let why = "can't be combined with `model.sparse_static_embedding`, whose dimensions are words";
            self.problem(key, why, "leave one of them out");
        }
        for (name, value) in [("hidden_dim", given.hidden_dim), ("k", given.k)] {
            if value == Some(0) {
                self.problem(format!("{key}.{name}"), "must be 1 or more, found 0", "leave it out for the usual size");
            }
        }
        Some(SparseAutoEncoderPlan {
            hidden_dim: given.hidden_dim,
            k: given.k,
            k_aux: given.k_aux,
            normalize: given.normalize,
            dead_threshold: given.dead_threshold,
        })
    }

    fn keep_layers(&mut self, model: &ModelConfig) -> Option<Vec<usize>> {
        let keep = model.keep_layers.as_ref()?;
        let key = "model.keep_layers";
        if model.base.is_none() {
            let why = "chooses among the layers of a trained network, and the model is new";
            self.problem(key, why, "start from `model.base`, or leave it out");
        }
        if model.lora.is_some() {
            let why = "can't be combined with `model.lora`: an adapter belongs to a base model as it is published";
            self.problem(key, why, "make the smaller model first with `tallow distill MODEL --keep-layers 0,3,6,9`");
        }
        if let Some((what, hint)) = prune::problem(keep) {
            self.problem(key, what, hint);
        }
        Some(keep.clone())
    }

    fn lora(&mut self, model: &ModelConfig, lora: &LoraOptions) -> LoraOptions {
        if model.base.is_none() {
            let why = "needs a trained network to adapt, and the model is new";
            self.problem("model.lora", why, "start from `model.base`, or leave it out");
        }
        if model.sparse_static_embedding.is_some() {
            let why = "can't be combined with `model.sparse_static_embedding`";
            self.problem("model.lora", why, "train the whole model: leave it out");
        }
        if let Some((name, message, hint)) = lora.problem() {
            self.problem(format!("model.lora.{name}"), message, hint);
        }
        let mut lora = lora.clone();
        if let Some(adapter) = lora.adapter.take() {
            match self.bases.find("model.lora.adapter", &adapter) {
                Ok(path) => lora.adapter = Some(path.display().to_string()),
                Err(problem) => self.problems.push(problem),
            }
        }
        lora
    }

    fn source(&mut self, model: &ModelConfig) -> ModelSource {
        let given = [
            ("base", model.base.is_some()),
            ("static_embedding", model.static_embedding.is_some()),
            ("config", model.config.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        match given.as_slice() {
            [] => self.problem(
                "model.base",
                "is required but missing",
                "give a model directory or Hub id, or make a new model with `[model.static_embedding]`",
            ),
            [_] => {}
            [first, second, ..] => self.problem(
                format!("model.{second}"),
                format!("can't be combined with `model.{first}`: a model comes from one place"),
                "leave one of them out",
            ),
        }
        if model.tokenizer.is_some() && model.config.is_none() {
            self.problem(
                "model.tokenizer",
                "is only for models made from `[model.config]`",
                "leave it out, or put it into `[model.static_embedding]`",
            );
        }
        if let Some(embedding) = &model.static_embedding {
            return self.static_embedding(embedding);
        }
        if let Some(config) = &model.config {
            return match &model.tokenizer {
                Some(text) => {
                    ModelSource::Config { config: config.clone(), tokenizer: self.locate("model.tokenizer", text) }
                }
                None => {
                    // the network gets as many words as the tokenizer turns out to have
                    let mut config = config.clone();
                    let most = config.shift_remove("vocab_size").and_then(|n| n.as_u64()).unwrap_or(30_000);
                    let training = TokenizerTraining {
                        vocab_size: usize::try_from(most).unwrap_or(usize::MAX),
                        algorithm: TokenizerAlgorithm::WordPiece,
                        lowercase: true,
                        framed: true,
                    };
                    ModelSource::ConfigAndTokenizer { config, training }
                }
            };
        }
        let base = model.base.as_deref().map_or(Location::Hub(String::new()), |text| self.locate("model.base", text));
        if let Location::Path(path) = &base
            && !path.is_dir()
        {
            let shown = path.display().to_string();
            self.problem("model.base", format!("`{shown}` is not a directory"), "give the directory the model is in");
        }
        ModelSource::Base(base)
    }

    pub(super) fn locate(&mut self, key: &str, text: &str) -> Location {
        self.bases.find_or_hub(key, text).unwrap_or_else(|problem| {
            self.problems.push(problem);
            Location::Hub(text.to_owned())
        })
    }

    /// What only models with a vector for each token have, and what they have not.
    fn check_multi_vector(&mut self, model: &ModelConfig, model_type: ModelType) {
        let wanted = model_type == ModelType::MultiVectorEncoder;
        let own = [
            ("embedding_dim", model.embedding_dim.is_some()),
            ("query_length", model.query_length.is_some()),
            ("document_length", model.document_length.is_some()),
            ("query_expansion", model.query_expansion.is_some()),
            ("skiplist_words", model.skiplist_words.is_some()),
        ];
        let others = [("pooling_mode", model.pooling_mode.is_some()), ("truncate_dim", model.truncate_dim.is_some())];
        for (key, given) in own.into_iter().filter(|_| !wanted).chain(others.into_iter().filter(|_| wanted)) {
            if given {
                self.problem(format!("model.{key}"), format!("has no meaning for a {model_type}"), "leave it out");
            }
        }
        if let Some(function) = model.similarity_fn_name
            && function.late() != wanted
            && model_type != ModelType::CrossEncoder
        {
            let (why, hint) = match wanted {
                true => ("compares single vectors", "a MultiVectorEncoder has `maxsim` or `meanmaxsim`"),
                false => ("compares texts that have a vector for each token", "`cosine` and `dot` are usual"),
            };
            self.problem("model.similarity_fn_name", format!("is {}, which {why}", function.name()), hint);
        }
        if model.embedding_dim.is_some_and(|dim| dim == 0 || dim > 65_536) {
            self.problem("model.embedding_dim", "must be from 1 to 65536", "128 is usual");
        }
    }

    fn check_model(&mut self, model: &ModelConfig, model_type: ModelType) {
        if model.max_seq_length == Some(0) {
            self.problem("model.max_seq_length", "must be 1 or more, found 0", "leave it out for no limit");
        }
        if let Some(dropout) = model.dropout.filter(|p| !(0.0..1.0).contains(p)) {
            self.problem(
                "model.dropout",
                format!("must be 0 or more and below 1, found {dropout}"),
                "0.1 is usual, 0.0 switches it off",
            );
        }
        if model.static_embedding.is_some() {
            if model.pooling_mode.is_some() {
                self.problem(
                    "model.pooling_mode",
                    "has no meaning for a static embedding, which is always the mean of its tokens",
                    "leave it out",
                );
            }
            if model.dropout.is_some_and(|p| p > 0.0) {
                self.problem("model.dropout", "a static embedding has no dropout", "leave it out");
            }
        }
        if model.pooling_mode.as_ref().is_some_and(|modes| modes.0.is_empty()) {
            self.problem("model.pooling_mode", "is an empty list", "name one, as `pooling_mode = \"mean\"`");
        }
        self.check_multi_vector(model, model_type);
        if model_type == ModelType::CrossEncoder {
            for (key, given) in [
                ("pooling_mode", model.pooling_mode.is_some()),
                ("normalize", model.normalize.is_some()),
                ("truncate_dim", model.truncate_dim.is_some()),
                ("similarity_fn_name", model.similarity_fn_name.is_some()),
            ] {
                if given {
                    let why = "has no meaning for a CrossEncoder, which has no embeddings";
                    self.problem(format!("model.{key}"), why, "leave it out");
                }
            }
            if model.num_labels == Some(0) {
                self.problem("model.num_labels", "must be 1 or more, found 0", "1 for a reranker, else the classes");
            }
        } else {
            if model_type == ModelType::SparseEncoder && model.truncate_dim.is_some() {
                let why = "is for dense embeddings: the first words of a vocabulary are no better than the last";
                self.problem("model.truncate_dim", why, "leave it out; regulariser weights make embeddings small");
            }
            for (key, given) in
                [("num_labels", model.num_labels.is_some()), ("activation_fn", model.activation_fn.is_some())]
            {
                if given {
                    self.problem(format!("model.{key}"), format!("has no meaning for a {model_type}"), "leave it out");
                }
            }
        }
        if let (Some(name), Some(prompts)) = (&model.default_prompt_name, &model.prompts)
            && !prompts.contains_key(name)
        {
            let known: Vec<&str> = prompts.keys().map(String::as_str).collect();
            self.known("model.default_prompt_name", "prompt", name, &known);
        }
    }
}
