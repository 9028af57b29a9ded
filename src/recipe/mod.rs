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
use serde_json::{Map, Value, json};

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
    let mut locations = Locations::parse(&path.display().to_string(), text)?;
    match read(path, text, sets, &mut locations)? {
        Ok(loaded) => Ok(loaded),
        Err(problems) => Err(report(&locations, problems)),
    }
}

/// The tables of a recipe as it is written, with `sets` over it; names and types are looked at, nothing is resolved.
///
/// # Errors
/// As [`load`].
pub fn tables(path: &Path, text: &str, sets: &[String]) -> Result<Map<String, Value>> {
    let mut locations = Locations::parse(&path.display().to_string(), text)?;
    match value(path, text, sets, &mut locations)? {
        Ok(Value::Object(tables)) => Ok(tables),
        Ok(other) => Err(Error::Internal(format!("a recipe is {other}"))),
        Err(problems) => Err(report(&locations, problems)),
    }
}

/// What is wrong with a recipe, each with the line it stands on.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What it says, where it says what a recipe can say.
    pub loaded: Option<Loaded>,
    /// What it comes to, however wrong.
    pub plan: Option<Plan>,
    /// The problems with their lines, from 1.
    pub problems: Vec<(Option<usize>, Problem)>,
}

/// Looks at the text of a recipe as a whole: what [`parse`] and [`Loaded::resolve`] would refuse, one by one.
///
/// # Errors
/// When the text is not TOML, or numbers do not fit their types.
pub fn examine(path: &Path, text: &str, registry: &dyn Registry) -> Result<Examined> {
    let mut locations = Locations::parse(&path.display().to_string(), text)?;
    let placed = |locations: &Locations, problems: Vec<Problem>| {
        problems.into_iter().map(|problem| (locations.line(&problem.key), problem)).collect()
    };
    let loaded = match read(path, text, &[], &mut locations)? {
        Ok(loaded) => loaded,
        Err(problems) => {
            return Ok(Examined { loaded: None, plan: None, problems: placed(&locations, problems) });
        }
    };
    let mut problems = Vec::new();
    let (plan, _) = resolve::resolve(&loaded.recipe, path, registry, &mut problems)?;
    Ok(Examined { loaded: Some(loaded), plan: Some(plan), problems: placed(&locations, problems) })
}

/// The recipe, or what is wrong with its keys and types.
fn read(
    path: &Path,
    text: &str,
    sets: &[String],
    locations: &mut Locations,
) -> Result<std::result::Result<Loaded, Vec<Problem>>> {
    let value = match value(path, text, sets, locations)? {
        Ok(value) => value,
        Err(problems) => return Ok(Err(problems)),
    };
    // The schema has checked names and types; what is left are numbers too large for their type.
    let recipe = Recipe::deserialize(value).map_err(|e| Error::usage(format!("`{}`: {e}", path.display())))?;
    Ok(Ok(Loaded { path: path.to_path_buf(), recipe, locations: locations.clone() }))
}

/// What the file says with the sets over it, or what is wrong with its keys and types.
fn value(
    path: &Path,
    text: &str,
    sets: &[String],
    locations: &mut Locations,
) -> Result<std::result::Result<Value, Vec<Problem>>> {
    let file = path.display();
    let table: toml::Table =
        toml::from_str(text).map_err(|e| Error::usage(format!("`{file}`: not TOML: {}", e.message())))?;
    let mut value = match validate::from_toml(toml::Value::Table(table)) {
        Ok(value) => value,
        Err(problems) => return Ok(Err(problems)),
    };
    let schema = json_schema();
    locations.set_overrides(overrides::apply(&mut value, &schema, sets)?);
    let problems = validate::check(&schema, &value);
    Ok(if problems.is_empty() { Ok(value) } else { Err(problems) })
}

/// Puts values by dotted key over a recipe's tables.
///
/// # Errors
/// When a key is no path, or goes through something that is no table or list.
pub fn put(tables: &mut Map<String, Value>, settings: &Map<String, Value>) -> Result<()> {
    let mut target = Value::Object(std::mem::take(tables));
    for (key, value) in settings {
        overrides::put(&mut target, key, value.clone())?;
    }
    if let Value::Object(target) = target {
        *tables = target;
    }
    Ok(())
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

/// A recipe's tables from values by dotted key and `key=value` texts, the later over the earlier; lists of tables are
/// lists, also where only one was named.
///
/// # Errors
/// When a key is no path, or goes through something that is no table or list.
pub fn tree(settings: &[(String, Value)], sets: &[String]) -> Result<Map<String, Value>> {
    // one entry to begin with, so that a second can be named where the first comes from elsewhere
    let lists = ["train_dataset", "eval_dataset", "evaluator"];
    let mut tree = Value::Object(lists.iter().map(|name| ((*name).to_owned(), json!([{}]))).collect());
    for (key, value) in settings {
        overrides::put(&mut tree, key, value.clone())?;
    }
    overrides::apply(&mut tree, &json_schema(), sets)?;
    let Value::Object(mut tree) = tree else {
        return Err(Error::Internal("settings are no table".to_owned()));
    };
    for list in lists {
        match tree.get_mut(list) {
            Some(one) if one.is_object() => *one = Value::Array(vec![one.take()]),
            Some(Value::Array(items)) if !items.is_empty() && items.iter().all(|item| *item == json!({})) => {
                tree.shift_remove(list);
            }
            _ => {}
        }
    }
    Ok(tree)
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
