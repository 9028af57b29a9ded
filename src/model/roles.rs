//! How are texts of a role encoded, and texts with a prompt that a user names?

use super::SentenceTransformer;
use crate::error::{Error, Result};
use crate::flow::EncodeOptions;

/// What a text is for; sentence-transformers' `encode`, `encode_query` and `encode_document` differ in this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Any,
    Query,
    Document,
}

/// Options for encoding with a given prompt, with the model's prompt or route of a name, or with its default prompt; the
/// prompt is given with `option`, its name with that and `-name`.
///
/// # Errors
/// When there is nothing of that name, or the model's Router has no way for texts of no name.
pub fn named_options(
    model: &SentenceTransformer,
    prompt: Option<String>,
    name: Option<&str>,
    (option, what): (&str, &'static str),
) -> Result<EncodeOptions> {
    let tasks = model.tasks();
    let task = name.filter(|name| tasks.iter().any(|task| task == name));
    if task.is_none() && model.tokenizer_for(None).is_err() {
        return Err(Error::usage("the model's Router has no default route").with_hint(format!(
            "say which one these texts take with `{option}-name`: {}",
            tasks.iter().map(|task| format!("`{task}`")).collect::<Vec<_>>().join(", ")
        )));
    }
    let prompt = match (prompt, name) {
        (Some(text), _) => Some(text),
        // a route needs no prompt
        (None, Some(name)) if task.is_some() => model.prompts().get(name).cloned(),
        (None, Some(name)) => Some(model.prompt(name).map_err(|e| given_itself(e, option))?.to_owned()),
        (None, None) => model.default_prompt().map(str::to_owned),
    };
    Ok(EncodeOptions { prompt, task: task.map(str::to_owned), ..encode_options(model, Role::Any, what) })
}

/// The hint of an error with the option by which a prompt is given here.
fn given_itself(error: Error, option: &str) -> Error {
    match error.hint().map(|hint| hint.replace("`--prompt`", &format!("`{option}`"))) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Options for encoding texts of a role, with the model's prompt of the role's name. A model without one puts nothing
/// in front of queries and documents, not its default prompt, which is for texts of no role.
pub fn encode_options(model: &SentenceTransformer, role: Role, what: &'static str) -> EncodeOptions {
    let named = |name: &str| Some(model.prompts().get(name).cloned().unwrap_or_default());
    EncodeOptions {
        prompt: match role {
            Role::Any => None,
            Role::Query => named("query"),
            Role::Document => named("document"),
        },
        task: match role {
            Role::Any => None,
            Role::Query => Some("query".to_owned()),
            Role::Document => Some("document".to_owned()),
        },
        progress: Some(what),
        ..EncodeOptions::default()
    }
}
