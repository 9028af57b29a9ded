//! Small types of the schema: one or many, and tables whose other keys belong to whoever is named in them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::schema::MatryoshkaConfig;
use crate::model::distill::Components;

/// One value or a list of them: `"a"` or `["a", "b"]`, `[train_dataset]` or `[[train_dataset]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Of<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(|v| OneOrMany(vec![v]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|v| OneOrMany(vec![v]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Of(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [item, { "type": "array", "items": item }] })
    }
}

/// How many principal components: a number, a part of the variance, `auto` or `none`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct PcaDims(pub Value);

impl PcaDims {
    /// What it comes to.
    ///
    /// # Errors
    /// What is wrong with it, without its key.
    pub fn components(&self) -> Result<Components, String> {
        let components = match &self.0 {
            Value::String(text) if text == "auto" => Some(Components::All),
            Value::String(text) if text == "none" => Some(Components::Off),
            Value::Number(n) if n.is_f64() => {
                n.as_f64().filter(|part| *part > 0.0 && *part < 1.0).map(Components::Variance)
            }
            Value::Number(n) => {
                n.as_u64().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok()).map(Components::Most)
            }
            _ => None,
        };
        components.ok_or_else(|| format!("must be a number of dimensions, or above 0 and below 1, found {}", self.0))
    }
}

impl JsonSchema for PcaDims {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PcaDims".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
                { "type": "string", "enum": ["auto", "none"] }
            ]
        })
    }
}

/// A loss: its name, its own settings, and a wrapper.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Value")]
pub struct LossConfig {
    /// The loss by sentence-transformers' class name.
    pub name: String,
    /// Everything else in the table: the loss's own settings.
    pub settings: Map<String, Value>,
    /// Train every prefix of the embedding as well.
    pub matryoshka: Option<MatryoshkaConfig>,
}

impl TryFrom<Value> for LossConfig {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let mut settings = match value {
            Value::String(name) => {
                return Ok(Self { name, ..Self::default() });
            }
            Value::Object(table) => table,
            _ => return Err("expected the name of a loss or a table".to_owned()),
        };
        let name = take::<String>(&mut settings, "name")?.ok_or("`name` is missing")?;
        let matryoshka = settings.shift_remove("matryoshka").map(serde_json::from_value).transpose();
        Ok(Self { name, matryoshka: matryoshka.map_err(|e| e.to_string())?, settings })
    }
}

impl JsonSchema for LossConfig {
    fn schema_name() -> Cow<'static, str> {
        "LossConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let matryoshka = generator.subschema_for::<MatryoshkaConfig>();
        json_schema!({
            "description": "A loss: its name alone, or a table with its name and its own settings.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "name": {
                            "type": "string",
                            "description": "The loss by sentence-transformers' class name, as `CoSENTLoss`."
                        },
                        "matryoshka": matryoshka
                    },
                    "required": ["name"],
                    "additionalProperties": true
                }
            ]
        })
    }
}

/// An evaluator: its type, its name, where its data are, and its own settings.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct EvaluatorConfig {
    /// The evaluator by sentence-transformers' class name.
    pub kind: String,
    /// What its metrics are called after.
    pub name: Option<String>,
    /// The file or directory it reads.
    pub path: Option<String>,
    /// The columns with its texts, in its order.
    pub columns: Option<Vec<String>>,
    /// The column with its labels or scores.
    pub label: Option<String>,
    /// Only the first rows.
    pub limit: Option<u64>,
    /// Everything else in the table: the evaluator's own settings.
    pub settings: Map<String, Value>,
}

impl TryFrom<Map<String, Value>> for EvaluatorConfig {
    type Error = String;

    fn try_from(mut settings: Map<String, Value>) -> Result<Self, String> {
        Ok(Self {
            kind: take::<String>(&mut settings, "type")?.ok_or("`type` is missing")?,
            name: take(&mut settings, "name")?,
            path: take(&mut settings, "path")?,
            columns: take(&mut settings, "columns")?,
            label: take(&mut settings, "label")?,
            limit: take(&mut settings, "limit")?,
            settings,
        })
    }
}

impl JsonSchema for EvaluatorConfig {
    fn schema_name() -> Cow<'static, str> {
        "EvaluatorConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An evaluator: what it is, where its data are, and its own settings.",
            "type": "object",
            "properties": {
                "type": {
                    "type": "string",
                    "description": "The evaluator by sentence-transformers' class name, as `InformationRetrievalEvaluator`."
                },
                "name": {
                    "type": "string",
                    "description": "What its metrics are called after: `sts-dev` gives `eval_sts-dev_spearman_cosine`. Default: nothing."
                },
                "path": {
                    "type": "string",
                    "description": "The file or directory it reads, relative to the recipe or to the current directory."
                },
                "columns": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "The columns with its texts, in its order. Default: the reference's names, as `sentence1`, `sentence2`."
                },
                "label": {
                    "type": "string",
                    "description": "The column with its labels or scores. Default: `label`, `labels`, `score` or `scores`."
                },
                "limit": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Only the first rows. Default: all."
                }
            },
            "required": ["type"],
            "additionalProperties": true
        })
    }
}

fn take<T: DeserializeOwned>(table: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    let taken = table.shift_remove(key).map(serde_json::from_value).transpose();
    taken.map_err(|e| format!("`{key}`: {e}"))
}
