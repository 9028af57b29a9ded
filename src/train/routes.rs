//! Which route of a model's Router the columns of a data set take.

use std::collections::BTreeMap;

use crate::data::Store;
use crate::error::{Error, Result};
use crate::model::SentenceTransformer;
use crate::recipe::Plan;

/// The plan's mapping of columns, if the model can follow it.
///
/// # Errors
/// When the model has no Router, or a Router that needs the mapping there is not.
pub fn of<'a>(plan: &'a Plan, model: &SentenceTransformer) -> Result<&'a BTreeMap<String, String>> {
    let mapping = &plan.args.router_mapping;
    let routes = model.tasks();
    if routes.is_empty() && !mapping.is_empty() {
        return Err(Error::usage("`args.router_mapping`: the model has no Router").with_hint("leave it out"));
    }
    if mapping.is_empty() && !routes.is_empty() && model.tokenizer_for(None).is_err() {
        return Err(Error::usage("`args.router_mapping` is required: the model's Router has no default route")
            .with_hint(format!("say which route each column takes; there are {}", routes.join(", "))));
    }
    Ok(mapping)
}

/// The task of each column; empty when all are alike.
///
/// # Errors
/// When the mapping names a column that there is not.
pub fn tasks(plan: &Plan, columns: &[String]) -> Result<Vec<Option<String>>> {
    let mapping = &plan.args.router_mapping;
    if let Some(unknown) = mapping.keys().find(|name| !columns.contains(name)) {
        return Err(Error::usage(format!("`args.router_mapping`: the training data has no column `{unknown}`"))
            .with_hint(format!("its columns are {}", columns.join(", "))));
    }
    if mapping.is_empty() {
        return Ok(Vec::new());
    }
    Ok(columns.iter().map(|column| mapping.get(column).cloned()).collect())
}

/// Refuses evaluation data whose columns take other routes than those of the training data in their places.
///
/// # Errors
/// When they do.
pub fn same(plan: &Plan, model: &SentenceTransformer, store: &Store, i: usize) -> Result<()> {
    let mapping = &plan.args.router_mapping;
    let here: Vec<Option<String>> = store.columns().iter().map(|column| mapping.get(column).cloned()).collect();
    if mapping.is_empty() || model.column_tasks() == here {
        return Ok(());
    }
    Err(Error::usage(format!("`eval_dataset.{i}`: its columns do not take the routes of the training data's"))
        .with_hint("give its columns the same names in the same order, or list them with `columns`"))
}
