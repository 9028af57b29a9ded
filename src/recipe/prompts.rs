//! `args.prompts`: what is put in front of which texts in training.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::data::CommonPrompts;

/// In the reference's four forms: one prompt for all texts, or by column, or by data set, or by column within data
/// sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompts {
    /// For every text; empty for none, on purpose.
    One(String),
    /// By column or data set.
    Each(BTreeMap<String, Part>),
}

/// What belongs to a column or to a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Part {
    /// A column's prompt, or that of all columns of a data set.
    One(String),
    /// By column, of a data set.
    Columns(BTreeMap<String, String>),
}

impl Prompts {
    /// The prompts of a data set, of one of `several` or the only one to train on. A key that names a data set means
    /// it; of an only data set, texts belong to columns, as there is nothing to tell it from.
    #[must_use]
    pub fn of(&self, dataset: &str, several: bool) -> CommonPrompts {
        let map = match self {
            Self::One(all) => return CommonPrompts { all: Some(all.clone()), ..CommonPrompts::default() },
            Self::Each(map) => map,
        };
        match map.get(dataset) {
            Some(Part::Columns(columns)) => {
                return CommonPrompts { columns: columns.clone(), ..CommonPrompts::default() };
            }
            Some(Part::One(all)) if several => {
                return CommonPrompts { all: Some(all.clone()), ..CommonPrompts::default() };
            }
            _ => {}
        }
        if self.nested() {
            return CommonPrompts::default();
        }
        let columns = self.texts().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        CommonPrompts { columns, ..CommonPrompts::default() }
    }

    /// Whether some key has a table, so that keys are data sets.
    #[must_use]
    pub fn nested(&self) -> bool {
        matches!(self, Self::Each(map) if map.values().any(|part| matches!(part, Part::Columns(_))))
    }

    /// Keys with a text of their own, and the text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let map = match self {
            Self::One(_) => None,
            Self::Each(map) => Some(map),
        };
        map.into_iter().flatten().filter_map(|(name, part)| match part {
            Part::One(text) => Some((name.as_str(), text.as_str())),
            Part::Columns(_) => None,
        })
    }

    /// In one line, as a recipe has it.
    #[must_use]
    pub fn describe(&self) -> String {
        let texts = |map: &BTreeMap<String, String>| {
            let texts: Vec<String> = map.iter().map(|(name, text)| format!("{name}: {text:?}")).collect();
            texts.join(", ")
        };
        match self {
            Self::One(all) => format!("{all:?}"),
            Self::Each(map) => {
                let parts = map.iter().map(|(name, part)| match part {
                    Part::One(text) => format!("{name}: {text:?}"),
                    Part::Columns(columns) => format!("{name} ({})", texts(columns)),
                });
                parts.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl JsonSchema for Prompts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Prompts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let columns = json_schema!({ "type": "object", "additionalProperties": { "type": "string" } });
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "object", "additionalProperties": { "anyOf": [{ "type": "string" }, columns] } }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(toml: &str) -> Result<Prompts, toml::de::Error> {
        #[derive(Deserialize)]
        struct Holder {
            prompts: Prompts,
        }
        toml::from_str::<Holder>(toml).map(|holder| holder.prompts)
    }

    fn of(toml: &str, dataset: &str, several: bool) -> (Option<String>, Vec<String>) {
        let found = prompts(toml).map(|prompts| prompts.of(dataset, several)).unwrap_or_default();
        (found.all, found.columns.into_iter().map(|(name, text)| format!("{name}={text}")).collect())
    }

    #[test]
    fn the_four_forms_mean_what_they_do_in_the_reference() {
        let columns = |all: &[&str]| (None, all.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
        let all = |text: &str| (Some(text.to_owned()), Vec::new());
        assert_eq!(of("prompts = 'p: '", "a", false), all("p: "));
        let flat = "prompts = {anchor = 'q: ', positive = 'd: '}";
        assert_eq!(of(flat, "a", false), columns(&["anchor=q: ", "positive=d: "]));
        assert_eq!(of(flat, "a", true), columns(&["anchor=q: ", "positive=d: "]));
        // of an only data set the key is a column, of several it is the data set
        assert_eq!(of("prompts = {anchor = 'q: '}", "anchor", false), columns(&["anchor=q: "]));
        assert_eq!(of("prompts = {anchor = 'q: '}", "anchor", true), all("q: "));
        let nested = "prompts = {a = {anchor = 'q: '}, b = 'p: '}";
        assert_eq!(of(nested, "a", true), columns(&["anchor=q: "]));
        assert_eq!(of(nested, "b", true), all("p: "));
        assert_eq!(of(nested, "c", true), columns(&[]), "a data set that is not named has none");
    }
}
