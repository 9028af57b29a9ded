//! Prompts: those of the training data, and what the model that is saved and its evaluators make of them.
//!
//! A model that was trained with something in front of its texts has to be used so. Where the columns tell which texts
//! are queries and which documents, the model gets their prompts as `query` and `document`, by which evaluators and
//! `encode_query`, `encode_document` of sentence-transformers find them.

use std::collections::BTreeMap;

use crate::data::{CommonPrompts, Store};
use crate::error::{Error, Result};
use crate::model::SentenceTransformer;
use crate::recipe::Plan;
use crate::recipe::plan::DatasetPlan;
use crate::util::suggest;

const QUERY: &str = "query";
const DOCUMENT: &str = "document";
/// The name of a prompt that is in front of every text.
const EVERY: &str = "default";

/// What `args.prompts` has for a data set.
pub fn of(plan: &Plan, set: &DatasetPlan) -> CommonPrompts {
    let several = plan.train_dataset.len() > 1;
    plan.args.prompts.as_ref().map(|prompts| prompts.of(&set.name, several)).unwrap_or_default()
}

/// Refuses a key of `args.prompts` that is no column of any data set.
///
/// # Errors
/// When there is one.
pub fn check<'a>(plan: &Plan, stores: impl Iterator<Item = &'a Store>) -> Result<()> {
    let Some(prompts) = plan.args.prompts.as_ref().filter(|prompts| !prompts.nested()) else { return Ok(()) };
    let several = plan.train_dataset.len() > 1;
    let mut known: Vec<&str> = stores.flat_map(|store| store.columns()).map(String::as_str).collect();
    if several {
        known.extend(plan.train_dataset.iter().chain(&plan.eval_dataset).map(|set| set.name.as_str()));
    }
    match prompts.texts().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::usage(format!("`args.prompts.{name}`: there is no column `{name}`"))
            .with_hint(suggest::hint(name, known))),
    }
}

/// What became of the model's prompts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    pub message: Option<String>,
    pub warning: Option<String>,
}

/// Gives the model the prompts that it is trained with, as far as their roles are clear; what the recipe has under
/// `[model.prompts]` stays. Without prompts in training nothing changes: those of the base model are not put in front
/// of training texts, as in the reference, which the warning says.
pub fn adopt<'a>(plan: &Plan, model: &mut SentenceTransformer, stores: impl Iterator<Item = &'a Store>) -> Adopted {
    let columns: Vec<(String, String)> = stores
        .flat_map(|store| &store.report().columns)
        .map(|column| (column.name.clone(), column.prompt.clone().unwrap_or_default()))
        .collect();
    if columns.iter().all(|(_, prompt)| prompt.is_empty()) {
        let warning = if plan.args.prompts.is_none() { unused(model, &columns) } else { None };
        return Adopted { message: None, warning };
    }
    let given = plan.model.prompts.clone().unwrap_or_default();
    let Some(mut roles) = roles(&columns) else {
        let settled = !given.is_empty() || plan.model.default_prompt_name.is_some();
        return Adopted { message: None, warning: (!settled).then(|| unclear(&columns)) };
    };
    let everywhere = roles.contains_key(EVERY) && plan.model.default_prompt_name.is_none();
    roles.retain(|name, _| !given.contains_key(*name));
    let had = |name: &str| model.prompts().get(name).map_or("", String::as_str);
    let other: Vec<String> = roles
        .iter()
        .filter(|(name, text)| !had(name).is_empty() && had(name) != **text)
        .map(|(name, text)| format!("`{name}` from {:?} to {text:?}", had(name)))
        .collect();
    let new: Vec<String> =
        roles.iter().filter(|(name, text)| had(name) != **text).map(|(n, t)| format!("{n} {t:?}")).collect();
    model.adopt_prompts(
        roles.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
        everywhere.then_some(EVERY),
    );
    Adopted {
        message: (!new.is_empty()).then(|| {
            format!("prompts of training that evaluators use and that are saved with the model: {}", new.join(", "))
        }),
        warning: (!other.is_empty()).then(|| {
            format!(
                "training has other prompts than the base model, whose own change with it: {}; to keep them, write them \
                 into `[model.prompts]`",
                other.join(", ")
            )
        }),
    }
}

/// Of prompts of the model that training leaves out.
fn unused(model: &SentenceTransformer, columns: &[(String, String)]) -> Option<String> {
    let named = |names: &[&'static str]| {
        let prompt =
            |name: &'static str| Some((name, model.prompts().get(name).filter(|text| !text.is_empty())?.clone()));
        names.iter().find_map(|name| prompt(name))
    };
    let default = model.default_prompt().filter(|text| !text.is_empty()).map(str::to_owned);
    let (query, document) = (named(&[QUERY]), named(&[DOCUMENT, "passage", "corpus"]));
    let mut found: Vec<String> = [&query, &document].into_iter().flatten().map(|(n, t)| format!("{n} {t:?}")).collect();
    found.extend(default.as_ref().map(|text| format!("by default {text:?}")));
    if found.is_empty() {
        return None;
    }
    let text = |role: Option<Role>| match role {
        Some(Role::Query) => query.as_ref().map(|(_, text)| text),
        Some(Role::Document) => document.as_ref().map(|(_, text)| text),
        None => None,
    };
    let mut parts: Vec<String> = Vec::new();
    for (name, _) in columns {
        let part = text(Role::of(name)).or(default.as_ref()).map(|text| format!("{name} = {text:?}"));
        parts.extend(part.filter(|part| !parts.contains(part)));
    }
    let set = if parts.is_empty() {
        "`args.prompts` with a prompt for each column".to_owned()
    } else {
        format!("`args.prompts = {{ {} }}`", parts.join(", "))
    };
    Some(format!(
        "the model has prompts for when it is used ({}), and training puts none in front of its texts: set {set}, or \
         `args.prompts = \"\"` if that is wanted",
        found.join(", ")
    ))
}

fn unclear(columns: &[(String, String)]) -> String {
    let mut found: Vec<String> = Vec::new();
    for (name, prompt) in columns {
        let text = format!("{name} {prompt:?}");
        if !found.contains(&text) {
            found.push(text);
        }
    }
    format!(
        "training puts prompts in front of texts, and which belong to queries and which to documents is not clear ({}): \
         evaluators and the saved model do without, unless `[model.prompts]` has a `query` and a `document`",
        found.join(", ")
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Query,
    Document,
}

impl Role {
    /// What the texts of a column are, as far as its name says.
    fn of(column: &str) -> Option<Self> {
        const QUERIES: [&str; 4] = ["anchor", "query", "question", "queries"];
        const DOCUMENTS: [&str; 9] =
            ["positive", "negative", "document", "passage", "answer", "response", "context", "corpus", "doc"];
        // `negative_1` is a negative
        let name = column.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_').to_lowercase();
        if QUERIES.contains(&name.as_str()) {
            Some(Self::Query)
        } else if DOCUMENTS.contains(&name.as_str()) {
            Some(Self::Document)
        } else {
            None
        }
    }
}

/// The model's prompts by name, if it is clear what they are.
fn roles(columns: &[(String, String)]) -> Option<BTreeMap<&'static str, String>> {
    let (_, first) = columns.first()?;
    if columns.iter().all(|(_, prompt)| prompt == first) {
        return Some([QUERY, DOCUMENT, EVERY].into_iter().map(|name| (name, first.clone())).collect());
    }
    let mut roles = BTreeMap::new();
    for (name, prompt) in columns {
        let role = match Role::of(name)? {
            Role::Query => QUERY,
            Role::Document => DOCUMENT,
        };
        if roles.insert(role, prompt.clone()).is_some_and(|before| before != *prompt) {
            return None;
        }
    }
    Some(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(columns: &[(&str, &str)]) -> Option<String> {
        let columns: Vec<(String, String)> = columns.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
        let text = |(name, text): (&str, String)| format!("{name}={text}");
        Some(roles(&columns)?.into_iter().map(text).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn roles_are_those_of_the_columns_or_none() {
        let two = [("anchor", "q:"), ("positive", "d:"), ("negative_1", "d:")];
        assert_eq!(found(&two).as_deref(), Some("document=d: query=q:"));
        assert_eq!(found(&[("question", "q:"), ("answer", "")]).as_deref(), Some("document= query=q:"));
        assert_eq!(found(&[("text", "p:")]).as_deref(), Some("default=p: document=p: query=p:"));
        assert_eq!(found(&[("sentence1", "a:"), ("sentence2", "b:")]), None, "of no role");
        assert_eq!(found(&[("anchor", "a:"), ("positive", "d:"), ("anchor", "b:"), ("positive", "d:")]), None);
    }
}
