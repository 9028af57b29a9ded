//! Which route of a model's Router the columns of a data set take.

use std::collections::BTreeMap;

use super::sets::DataSet;
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

/// The task of each column of the training data; empty when all are alike.
///
/// # Errors
/// When the mapping names a column that there is not, or data sets differ in the routes of their columns.
pub fn tasks(plan: &Plan, sets: &[DataSet]) -> Result<Vec<Option<String>>> {
    let mapping = &plan.args.router_mapping;
    let known: Vec<&String> = sets.iter().flat_map(|set| set.store.columns()).collect();
    if let Some(unknown) = mapping.keys().find(|name| !known.contains(name)) {
        let known: Vec<&str> = known.iter().map(|column| column.as_str()).collect();
        return Err(Error::usage(format!("`args.router_mapping`: the training data has no column `{unknown}`"))
            .with_hint(format!("its columns are {}", known.join(", "))));
    }
    let Some(first) = sets.first().filter(|_| !mapping.is_empty()) else { return Ok(Vec::new()) };
    let tasks = of_columns(plan, &first.store);
    for (i, set) in sets.iter().enumerate().skip(1) {
        same(plan, &tasks, &set.store, &format!("train_dataset.{i}"))?;
    }
    Ok(tasks)
}

fn of_columns(plan: &Plan, store: &Store) -> Vec<Option<String>> {
    store.columns().iter().map(|column| plan.args.router_mapping.get(column).cloned()).collect()
}

/// Refuses data whose columns take other routes than `tasks`, those of the training data in their places.
///
/// # Errors
/// When they do.
pub fn same(plan: &Plan, tasks: &[Option<String>], store: &Store, key: &str) -> Result<()> {
    if plan.args.router_mapping.is_empty() || of_columns(plan, store) == tasks {
        return Ok(());
    }
    Err(Error::usage(format!("`{key}`: its columns do not take the routes of the training data's"))
        .with_hint("give its columns the same names in the same order, or list them with `columns`"))
}
