//! The model of a script, and what finds hard negatives for it.

use serde_json::Value;

use super::load::load_files;
use super::{Argument, Writer, argument, literal, quoted, refused};
use crate::error::Result;
use crate::flow::ModelType;
use crate::negatives::Settings;

/// Keyword arguments, where there is something at all, and two names that go with them.
type Parts = (Option<Vec<Argument>>, Option<String>, Option<String>);

impl Writer<'_> {
    /// The table for hard negatives: arguments, the model that finds them, and the one that scores them anew.
    pub(super) fn mining(&mut self) -> Result<Parts> {
        let table = self.table("train_dataset.0.hard_negatives");
        if table.is_empty() {
            return Ok((None, None, None));
        }
        let settings: Settings = serde_json::from_value(Value::Object(table.clone())).unwrap_or_default();
        if settings.bm25 {
            return Err(refused("train_dataset.0.hard_negatives.bm25", "a script looks for negatives with a model"));
        }
        let given = settings.model.clone().or_else(|| self.wanted.teacher.clone());
        let base = self.text("model.base").filter(|_| self.model_type != ModelType::CrossEncoder);
        let retriever =
            given.or_else(|| base.map(str::to_owned)).or_else(|| self.draft.variant.teacher.map(str::to_owned));
        let mut arguments = Vec::new();
        for (key, value) in &table {
            match key.as_str() {
                "model" | "cross_encoder" | "seed" | "bf16" => {}
                "corpus" => {
                    let column = settings.corpus_column.as_deref().unwrap_or("text");
                    let value = format!("list({}[{}])", load_files(value, None)?, quoted(column));
                    arguments.push(Argument { name: key.clone(), value });
                }
                "corpus_column" => {}
                _ => arguments.push(argument(key, value)),
            }
        }
        Ok((Some(arguments), retriever.as_deref().map(quoted), settings.cross_encoder.as_deref().map(quoted)))
    }

    /// Keyword arguments of the model, and what is set on it afterwards.
    pub(super) fn model(&mut self) -> Result<(Vec<Argument>, Vec<Argument>)> {
        let (mut arguments, mut set) = (Vec::new(), Vec::new());
        let reranker = self.model_type == ModelType::CrossEncoder;
        let mut identity = self
            .draft
            .losses()
            .iter()
            .any(|loss| !["BinaryCrossEntropyLoss", "CrossEntropyLoss"].contains(&loss.as_str()));
        for (key, value) in self.table("model") {
            let given = value.as_str().unwrap_or_default();
            match key.as_str() {
                "base" | "static_embedding" | "lora" | "normalize" | "keep_layers" => {}
                "max_seq_length" if reranker => arguments.push(argument("max_length", &value)),
                "max_seq_length" => set.push(argument("model.max_seq_length", &value)),
                "num_labels" if reranker => arguments.push(argument("num_labels", &value)),
                "activation_fn" if given.ends_with("Sigmoid") => {
                    identity = false;
                    arguments.push(Argument { name: key, value: "torch.nn.Sigmoid()".to_owned() });
                }
                "activation_fn" => identity = true,
                "truncate_dim" | "prompts" | "default_prompt_name" | "similarity_fn_name" => {
                    arguments.push(argument(&key, &value));
                }
                "query_length" | "document_length" | "query_expansion" => {
                    set.push(argument(&format!("model[0].{key}"), &value));
                }
                "embedding_dim" if value == 128 => {}
                _ => return Err(refused(&format!("model.{key}"), "a script has no counterpart of it")),
            }
        }
        if reranker && identity {
            arguments.push(Argument { name: "activation_fn".to_owned(), value: "torch.nn.Identity()".to_owned() });
        }
        if reranker
            && !arguments.iter().any(|argument| argument.name == "num_labels")
            && !self.draft.losses().contains(&"CrossEntropyLoss".to_owned())
        {
            arguments.insert(0, Argument { name: "num_labels".to_owned(), value: "1".to_owned() });
        }
        Ok((arguments, set))
    }

    pub(super) fn static_embedding(&mut self) -> Result<Parts> {
        let table = self.table("model.static_embedding");
        if table.is_empty() {
            return Ok((None, None, None));
        }
        self.import("StaticEmbedding", "modules");
        let distilled = table.get("distill_from").map(literal);
        let tokenizer = table.get("tokenizer").map(literal);
        if distilled.is_none() && tokenizer.is_some() {
            self.plain.push("from tokenizers import Tokenizer".to_owned());
        } else if distilled.is_none() {
            return Err(refused("model.static_embedding", "a script learns no tokenizer: name one with `tokenizer`"));
        }
        let known = ["embedding_dim", "pca_dims", "sif_coefficient", "token_remove_pattern"];
        let mut arguments = Vec::new();
        for (key, value) in table.iter().filter(|(key, _)| !["distill_from", "tokenizer"].contains(&key.as_str())) {
            if !known.contains(&key.as_str()) {
                return Err(refused(&format!("model.static_embedding.{key}"), "a script has no counterpart of it"));
            }
            arguments.push(argument(key, value));
        }
        Ok((Some(arguments), distilled, tokenizer))
    }

    pub(super) fn lora(&mut self) -> Result<Option<Vec<Argument>>> {
        let table = self.table("model.lora");
        if table.is_empty() {
            return Ok(None);
        }
        self.import("LoraConfig", "peft");
        let mut arguments = Vec::new();
        for (key, value) in &table {
            let name = match key.as_str() {
                "alpha" => "lora_alpha",
                "dropout" => "lora_dropout",
                "r" | "target_modules" | "use_rslora" | "use_dora" => key,
                _ => return Err(refused(&format!("model.lora.{key}"), "a script has no counterpart of it")),
            };
            arguments.push(argument(name, value));
        }
        Ok(Some(arguments))
    }
}
