//! The template engine: undefined variables are errors, nothing is escaped behind the author's back.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

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

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
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
            let error = render(name, &serde_json::json!({})).unwrap_err().to_string();
            assert!(error.contains("undefined"), "{error}");
        }
        assert!(render("no such template", &()).is_err());
    }
}
