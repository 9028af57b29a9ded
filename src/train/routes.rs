//! Which route of a model's Router the columns of a data set take.

use std::collections::BTreeMap;

use super::sets::DataSet;
use crate::data::Store;
use crate::error::{Error, Result};
use crate::flow::ModelType;
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
    if plan.model_type == ModelType::MultiVectorEncoder
        && let Some((column, task)) = mapping.iter().find(|(_, task)| !routes.contains(task))
    {
        return Err(Error::usage(format!("`args.router_mapping.{column}`: there is no task `{task}`"))
            .with_hint(format!("a MultiVectorEncoder has {}", routes.join(" and "))));
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
/// When the mapping names a column that there is not or leaves one out that needs a route, or data sets differ in the
/// routes of their columns.
pub fn tasks(plan: &Plan, model: &SentenceTransformer, sets: &[DataSet]) -> Result<Vec<Option<String>>> {
    let mapping = &plan.args.router_mapping;
    let known: Vec<&String> = sets.iter().flat_map(|set| set.store.columns()).collect();
    if let Some(unknown) = mapping.keys().find(|name| !known.contains(name)) {
        let known: Vec<&str> = known.iter().map(|column| column.as_str()).collect();
        return Err(Error::usage(format!("`args.router_mapping`: the training data has no column `{unknown}`"))
            .with_hint(format!("its columns are {}", known.join(", "))));
    }
    if mapping.is_empty() && plan.model_type != ModelType::MultiVectorEncoder {
        return Ok(Vec::new());
    }
    if model.tokenizer_for(None).is_err()
        && let Some(column) = known.iter().find(|column| !mapping.contains_key(column.as_str()))
    {
        return Err(Error::usage(format!(
            "`args.router_mapping`: column `{column}` has no route, and the model's Router no default"
        ))
        .with_hint(format!("say which it takes; there are {}", model.tasks().join(", "))));
    }
    let longest = sets.iter().max_by_key(|set| set.store.columns().len());
    let tasks = longest.map_or_else(Vec::new, |set| of_columns(plan, &set.store));
    for (i, set) in sets.iter().enumerate() {
        same(plan, &tasks, &set.store, &format!("train_dataset.{i}"))?;
    }
    Ok(tasks)
}

fn of_columns(plan: &Plan, store: &Store) -> Vec<Option<String>> {
    // as the losses of late interaction read them: the first column are queries, all others documents
    let default = |i: usize| match plan.model_type {
        ModelType::MultiVectorEncoder => Some(if i == 0 { "query" } else { "document" }.to_owned()),
        _ => None,
    };
    let task = |(i, column): (usize, &String)| plan.args.router_mapping.get(column).cloned().or_else(|| default(i));
    store.columns().iter().enumerate().map(task).collect()
}

/// Refuses data whose columns take other routes than `tasks`, those of the training data in their places.
///
/// # Errors
/// When they do.
pub fn same(plan: &Plan, tasks: &[Option<String>], store: &Store, key: &str) -> Result<()> {
    let here = of_columns(plan, store);
    if plan.args.router_mapping.is_empty() || tasks.starts_with(&here) {
        return Ok(());
    }
    Err(Error::usage(format!("`{key}`: its columns do not take the routes of the training data's"))
        .with_hint("give its columns the same names in the same order, or list them with `columns`"))
}
