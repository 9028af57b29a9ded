//! What was asked for, and what does it come to? The recipe as written, and the plan it resolves to.
//!
//! [`load`] reads a file into a typed [`Recipe`] with the place of every key; [`Loaded::resolve`] turns it into a
//! [`Plan`], in which all is decided that can be without reading the model and the data. The trainer sees only the
//! plan.

mod builtin;
mod hints;
mod locate;
mod overrides;
mod paths;
pub mod plan;
pub mod prompts;
mod resolve;
pub mod schema;
mod shape;
mod summary;
pub mod teacher;
mod validate;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::util::files;
pub use builtin::Builtin;
pub use locate::{Locations, Problem};
pub use plan::Plan;
pub use resolve::Registry;
pub use schema::Recipe;

/// A recipe with the place of each of its keys.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The recipe file; relative paths in it are read from its directory first.
    pub path: PathBuf,
    /// What it says.
    pub recipe: Recipe,
    /// Where it says it.
    pub locations: Locations,
}

/// Reads a recipe and puts `sets` (each `key.path=value`) over it.
///
/// # Errors
/// When the file can't be read, is not TOML, or says something a recipe can't say: with line and key, all such
/// places at once.
pub fn load(path: &Path, sets: &[String]) -> Result<Loaded> {
    parse(path, &files::read_text(path)?, sets)
}

/// As [`load`], for a text that would stand in the file `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<Loaded> {
    let file = path.display().to_string();
    let mut locations = Locations::parse(&file, text)?;
    let table: toml::Table =
        toml::from_str(text).map_err(|e| Error::usage(format!("`{file}`: not TOML: {}", e.message())))?;
    let mut value = match validate::from_toml(toml::Value::Table(table)) {
        Ok(value) => value,
        Err(problems) => return Err(report(&locations, problems)),
    };
    let schema = json_schema();
    locations.set_overrides(overrides::apply(&mut value, &schema, sets)?);
    let problems = validate::check(&schema, &value);
    if !problems.is_empty() {
        return Err(report(&locations, problems));
    }
    // The schema has checked names and types; what is left are numbers too large for their type.
    let recipe = Recipe::deserialize(value).map_err(|e| Error::usage(format!("`{file}`: {e}")))?;
    Ok(Loaded { path: path.to_path_buf(), recipe, locations })
}

/// Settings from `key=value` texts, read as those of `--set` are; `schema` says which values are text.
///
/// # Errors
/// When one has no `=`, or goes through something that is no table or list.
pub fn settings(schema: &Value, sets: &[String]) -> Result<Map<String, Value>> {
    let mut table = Value::Object(Map::new());
    overrides::apply(&mut table, schema, sets)?;
    match table {
        Value::Object(table) => Ok(table),
        other => Err(Error::Internal(format!("settings are {other}"))),
    }
}

fn report(locations: &Locations, problems: Vec<Problem>) -> Error {
    locations.error(problems).unwrap_or_else(|| Error::Internal("a recipe was refused without a reason".to_owned()))
}

/// The JSON schema of recipes, with the help text of every key.
#[must_use]
pub fn json_schema() -> Value {
    schemars::schema_for!(Recipe).to_value()
}

impl Loaded {
    /// Decides everything the recipe leaves open. Returns the plan and notes for the user.
    ///
    /// # Errors
    /// When settings contradict each other or can't be had: with line, key and what to do, all such places at once.
    pub fn resolve(&self, registry: &dyn Registry) -> Result<(Plan, Vec<String>)> {
        let mut problems = Vec::new();
        let (plan, notes) = resolve::resolve(&self.recipe, &self.path, registry, &mut problems)?;
        match self.locations.error(problems) {
            Some(error) => Err(error),
            None => Ok((plan, notes)),
        }
    }
}
