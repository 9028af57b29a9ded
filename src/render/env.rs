//! The template engine: undefined variables are errors, and only HTML is escaped behind the author's back.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use super::assets;
use crate::error::{Error, Result};

/// Renders the template `name` with `context`.
///
/// Templates loop and test only: every string comes prepared (quoted, formatted) from the typed context.
///
/// # Errors
/// When there is no such template or the context lacks a variable; both are faults of the program.
pub fn render(name: &str, context: &impl Serialize) -> Result<String> {
    let environment = environment()?;
    let template = environment.get_template(name).map_err(|e| fault(name, &e))?;
    template.render(Serde(context)).map_err(|e| fault(name, &e))
}

/// Where a template's lines `key = value` come from.
pub trait Keys: Send + Sync + 'static {
    /// The line of a key, with the default where nothing else is set; an empty one for a key without a value.
    fn key(&self, path: &str, default: Value) -> String;
    /// What is set for a key, if anything is.
    fn given(&self, path: &str) -> Value;
    /// The lines of a table that were not asked for.
    fn rest(&self, table: &str) -> String;
    /// The tables that the template does not have.
    fn tables(&self) -> String;
}

/// As [`render`], of a template that asks for keys: `key("args.seed", 12)`, `given("args.seed")`, `rest("args")`,
/// `tables()`.
///
/// # Errors
/// As [`render`].
pub fn render_filled(name: &str, context: &impl Serialize, keys: impl Keys + Clone) -> Result<String> {
    let mut environment = environment()?;
    let (k, g, r) = (keys.clone(), keys.clone(), keys.clone());
    environment.add_function("key", move |path: String, default: Option<minijinja::Value>| {
        k.key(&path, default.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default())
    });
    environment.add_function("given", move |path: String| minijinja::Value::from(Serde(g.given(&path))));
    environment.add_function("rest", move |table: String| r.rest(&table));
    environment.add_function("tables", move || keys.tables());
    let template = environment.get_template(name).map_err(|e| fault(name, &e))?;
    template.render(Serde(context)).map_err(|e| fault(name, &e))
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name.ends_with(".html") {
        true => AutoEscape::Html,
        false => AutoEscape::None,
    });
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(|e| fault("syntax", &e))?);
    for (name, source) in assets::TEMPLATES {
        environment.add_template(name, source).map_err(|e| fault(name, &e))?;
    }
    Ok(environment)
}

fn fault(name: &str, error: &minijinja::Error) -> Error {
    Error::Internal(format!("template `{name}`: {error:#}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_template_compiles_and_wants_its_variables() {
        environment().unwrap();
        for (name, _) in assets::TEMPLATES {
            // those that others are made of have no variables of their own
            if name.contains("/_") {
                continue;
            }
            let error = render(name, &serde_json::json!({})).unwrap_err().to_string();
            assert!(error.contains("undefined") || error.contains("unknown function"), "{name}: {error}");
        }
        assert!(render("no such template", &()).is_err());
    }
}
