//! Where the vectors and the tokens of a new static embedding come from.

use super::Resolver;
use crate::model::distill::Distillation;
use crate::model::{SMALLEST_VOCABULARY, TokenizerTraining};
use crate::recipe::plan::{Location, ModelSource};
use crate::recipe::schema::{PcaDims, StaticEmbeddingConfig};

/// The widest static embedding: far above any in use, and a table of it still has a size that can be computed.
const WIDEST: usize = 65_536;
/// Tokens of a tokenizer that is learnt, as the trainers of the `tokenizers` library have it.
const VOCABULARY: usize = 30_000;
fn key(name: &str) -> String {
    format!("model.static_embedding.{name}")
}

impl Resolver<'_> {
    pub(super) fn static_embedding(&mut self, from: &StaticEmbeddingConfig) -> ModelSource {
        let learnt = [
            ("vocab_size", from.vocab_size.is_some()),
            ("tokenizer_algorithm", from.tokenizer_algorithm.is_some()),
            ("lowercase", from.lowercase.is_some()),
        ];
        let random = [("embedding_dim", from.embedding_dim.is_some()), ("tokenizer", from.tokenizer.is_some())];
        let distilled = [
            ("pca_dims", from.pca_dims.is_some()),
            ("sif_coefficient", from.sif_coefficient.is_some()),
            ("token_remove_pattern", from.token_remove_pattern.is_some()),
            ("pooling", from.pooling.is_some()),
        ];
        if let Some(teacher) = &from.distill_from {
            for (name, _) in random.iter().chain(&learnt).filter(|(_, given)| *given) {
                let hint = if *name == "embedding_dim" {
                    "leave it out; `pca_dims` says how wide distilled vectors are"
                } else {
                    "leave it out; the tokens are the teacher's"
                };
                self.problem(key(name), "can't be combined with `distill_from`", hint);
            }
            let teacher = self.locate(&key("distill_from"), teacher);
            if let Location::Path(path) = &teacher
                && !path.is_dir()
            {
                let text = format!("`{}` is not a directory", path.display());
                self.problem(key("distill_from"), text, "give the directory of a transformer");
            }
            return ModelSource::Distilled { teacher, how: self.distillation(from) };
        }
        for (name, _) in distilled.iter().filter(|(_, given)| *given) {
            self.problem(
                key(name),
                "is only for vectors that are distilled",
                "leave it out, or name a teacher with `distill_from`",
            );
        }
        let embedding_dim = match from.embedding_dim {
            None => {
                let hint = "256 to 1024 is usual; without it, name a teacher with `distill_from`";
                self.problem(key("embedding_dim"), "is required but missing", hint);
                1
            }
            Some(dim) => dim,
        };
        if !(1..=WIDEST).contains(&embedding_dim) {
            let text = format!("must be 1 to {WIDEST}, found {embedding_dim}");
            self.problem(key("embedding_dim"), text, "256 to 1024 is usual");
        }
        if let Some(tokenizer) = &from.tokenizer {
            for (name, _) in learnt.iter().filter(|(_, given)| *given) {
                let hint = "leave it out, or leave out `tokenizer`";
                self.problem(key(name), "is only for a tokenizer that is learnt, and `tokenizer` names one", hint);
            }
            let tokenizer = self.locate(&key("tokenizer"), tokenizer);
            return ModelSource::StaticEmbedding { embedding_dim, tokenizer };
        }
        let vocab_size = from.vocab_size.unwrap_or(VOCABULARY);
        if vocab_size < SMALLEST_VOCABULARY {
            let text = format!("must be {SMALLEST_VOCABULARY} or more, found {vocab_size}");
            self.problem(key("vocab_size"), text, "30000 is usual");
        }
        ModelSource::StaticEmbeddingAndTokenizer {
            embedding_dim,
            training: TokenizerTraining {
                framed: false,
                vocab_size,
                algorithm: from.tokenizer_algorithm.unwrap_or_default(),
                lowercase: from.lowercase.unwrap_or(true),
            },
        }
    }

    fn distillation(&mut self, from: &StaticEmbeddingConfig) -> Distillation {
        let default = Distillation::default();
        if let Some(sif) = from.sif_coefficient.filter(|sif| !(0.0..1.0).contains(sif)) {
            self.problem(
                key("sif_coefficient"),
                format!("must be 0 or more and below 1, found {sif}"),
                "1e-4 is usual, 0 gives all tokens the same weight",
            );
        }
        let components = from.pca_dims.as_ref().map(PcaDims::components).transpose().unwrap_or_else(|text| {
            self.problem(
                key("pca_dims"),
                text,
                "256 is usual; `auto` keeps all components, `none` the teacher's own values",
            );
            None
        });
        let given = from.token_remove_pattern.as_ref();
        if let Some((pattern, Err(error))) = given.map(|pattern| (pattern, regex::Regex::new(pattern))) {
            let text = format!("`{pattern}` is not a regular expression: {}", last_line(&error.to_string()));
            self.problem(key("token_remove_pattern"), text, r"write it in single quotes, as '\[unused\d+\]'");
        }
        Distillation {
            components: components.unwrap_or(default.components),
            sif_coefficient: from.sif_coefficient.or(default.sif_coefficient).filter(|sif| *sif > 0.0),
            token_remove_pattern: given.cloned().or(default.token_remove_pattern).filter(|pattern| !pattern.is_empty()),
            pooling: from.pooling.unwrap_or_default().mode(),
        }
    }
}

/// A regular expression's error is a picture; its last line says what is wrong.
fn last_line(text: &str) -> &str {
    text.lines().last().map_or(text, |line| line.trim_start_matches("error: "))
}
