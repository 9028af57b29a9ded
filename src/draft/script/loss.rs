//! Losses of a script: the calls that make them, wrappers around.

use serde_json::{Map, Value};

use super::{Writer, literal, quoted, refused};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::loss;

impl Writer<'_> {
    pub(super) fn loss(&mut self, loss: &Value) -> Result<String> {
        let (name, mut settings) = match loss {
            Value::String(name) => (name.clone(), Map::new()),
            Value::Object(table) => {
                let mut table = table.clone();
                let name =
                    table.shift_remove("name").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
                (name, table)
            }
            _ => (String::new(), Map::new()),
        };
        if name.is_empty() {
            return Err(Error::usage("no loss is named").with_hint("`--set loss.name=MultipleNegativesRankingLoss`"));
        }
        let model_type = self.model_type;
        if !loss::names_for(model_type).any(|known| known == name) {
            // the recipe's own words for it
            loss::settings_for(model_type, &name, &settings)?;
        }
        self.import(&name, "losses");
        let mut around: Vec<(&str, Map<String, Value>)> = Vec::new();
        let wrappers = [
            ("matryoshka", "MatryoshkaLoss"),
            ("adaptive_layer", "AdaptiveLayerLoss"),
            ("splade", "SpladeLoss"),
            ("cached_splade", "CachedSpladeLoss"),
            ("csr", "CSRLoss"),
        ];
        for (key, class) in wrappers {
            if let Some(Value::Object(table)) = settings.shift_remove(key) {
                around.push((class, table));
            }
        }
        let mut source = format!("{name}(model{})", self.loss_settings(&name, &settings)?);
        for (class, table) in around {
            self.import(class, "losses");
            if let Some(key) = table.keys().find(|key| key.starts_with("target_")) {
                return Err(refused(
                    &format!("loss.splade.{key}"),
                    "a number of active dimensions to aim at is tallow's own",
                ));
            }
            let settings: Vec<String> = table
                .iter()
                .map(|(key, value)| {
                    let key = match (class, key.as_str()) {
                        ("MatryoshkaLoss", "dims") => "matryoshka_dims",
                        ("MatryoshkaLoss", "weights") => "matryoshka_weights",
                        (_, other) => other,
                    };
                    format!(", {key}={}", literal(value))
                })
                .collect();
            source = format!("{class}(model, loss={source}{})", settings.concat());
        }
        Ok(source)
    }

    pub(super) fn loss_settings(&mut self, name: &str, settings: &Map<String, Value>) -> Result<String> {
        let mut out = String::new();
        for (key, value) in settings {
            let source = match (key.as_str(), value) {
                ("pos_weight", Value::String(_)) => "positive_weight(train_dataset)".to_owned(),
                ("pos_weight", number) => format!("torch.tensor({})", literal(number)),
                ("similarity_fct", Value::String(function)) => self.similarity(function)?,
                ("guide", Value::String(guide)) => {
                    self.import("SentenceTransformer", "sentence_transformers");
                    format!("SentenceTransformer({})", quoted(guide))
                }
                ("activation_fn", Value::String(function)) => {
                    let function = function.rsplit('.').next().unwrap_or_default();
                    if !["Identity", "Sigmoid"].contains(&function) {
                        return Err(refused("loss.activation_fn", "a script knows Identity and Sigmoid"));
                    }
                    format!("torch.nn.{function}()")
                }
                ("loss", _) => {
                    return Err(refused("loss.loss", "write the wrapper as a table, as `[loss.matryoshka]`"));
                }
                (_, Value::Object(_)) => return Err(refused(&format!("loss.{key}"), "a script has no such table")),
                (_, Value::String(_))
                    if !["reduction_log", "reduction", "compare_similarity"].contains(&key.as_str()) =>
                {
                    return Err(refused(&format!("loss.{key}"), &format!("{name} takes an object there in a script")));
                }
                _ => literal(value),
            };
            out.push_str(&format!(", {key}={source}"));
        }
        Ok(out)
    }

    pub(super) fn similarity(&mut self, name: &str) -> Result<String> {
        let (function, module) = match (self.model_type, name) {
            (ModelType::MultiVectorEncoder, "maxsim") => {
                ("colbert_scores", "sentence_transformers.multi_vector_encoder.scoring")
            }
            (ModelType::MultiVectorEncoder, "meanmaxsim") => {
                ("mean_colbert_scores", "sentence_transformers.multi_vector_encoder.scoring")
            }
            (ModelType::MultiVectorEncoder, "xtr") => {
                ("XTRScores", "sentence_transformers.multi_vector_encoder.scoring")
            }
            (_, "cosine" | "cos_sim") => ("cos_sim", "sentence_transformers.util"),
            (_, "dot" | "dot_score") => ("dot_score", "sentence_transformers.util"),
            _ => return Err(refused("loss.similarity_fct", &format!("a script has no `{name}`"))),
        };
        self.import(function, module);
        Ok(if function == "XTRScores" { "XTRScores()".to_owned() } else { function.to_owned() })
    }
}
