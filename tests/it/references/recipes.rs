//! What a page shows of a recipe can be put into one.

use tallow::flow::ModelType;
use tallow::recipe::{self, Builtin};
use toml::{Table, Value};

use super::pages;
use super::place::Place;

/// A recipe that lacks nothing, of a type.
fn least(model_type: ModelType) -> Table {
    let (base, loss) = match model_type {
        ModelType::SentenceTransformer => ("base-model", "name = \"MultipleNegativesRankingLoss\""),
        ModelType::CrossEncoder => ("reranker-model", "name = \"BinaryCrossEntropyLoss\""),
        ModelType::SparseEncoder => (
            "splade-model",
            "name = \"SparseMultipleNegativesRankingLoss\"\nsplade = { document_regularizer_weight = 3e-3 }",
        ),
        ModelType::MultiVectorEncoder => ("colbert-model", "name = \"MultiVectorMultipleNegativesRankingLoss\""),
    };
    let text = format!(
        "model_type = \"{model_type}\"\n[model]\nbase = \"{base}\"\n[train_dataset]\npath = \"pairs.jsonl\"\n[eval_dataset]\n\
         path = \"dev.jsonl\"\n[loss]\n{loss}\n[args]\nmax_steps = 2\n"
    );
    toml::from_str(&text).unwrap()
}

/// Puts tables into tables, and everything else in place of what was there.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Evaluators that fetch their data read a folder, so that nothing is fetched.
fn stay_here(recipe: &mut Table) {
    for evaluator in recipe.get_mut("evaluator").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(table) = evaluator.as_table_mut() {
            table.entry("path").or_insert_with(|| "dev".into());
        }
    }
}

/// What a page shows takes the place of what it cannot be combined with.
fn make_room(recipe: &mut Table, shown: &Table) {
    let has = |table: &str, key: &str| shown.get(table).is_some_and(|t| t.get(key).is_some());
    if let Some(model) = recipe["model"].as_table_mut()
        && (has("model", "static_embedding") || has("model", "config"))
    {
        model.remove("base");
    }
    if let Some(model) = recipe["model"].as_table_mut()
        && has("model", "sparse_auto_encoder")
    {
        model.insert("base".to_owned(), "base-model".into());
    }
    // the arguments of a loss belong to its name
    if has("loss", "name") || has("loss", "csr") || has("loss", "splade") {
        let kept = if has("loss", "name") { None } else { recipe["loss"].get("name").cloned() };
        let mut loss = Table::new();
        if has("loss", "name") && !has("loss", "csr") && !has("loss", "splade") {
            loss.extend(recipe["loss"].get("splade").map(|splade| ("splade".to_owned(), splade.clone())));
        }
        loss.extend(kept.map(|name| ("name".to_owned(), name)));
        recipe.insert("loss".to_owned(), Value::Table(loss));
    }
}

fn resolve(place: &Place, model_type: ModelType, shown: &str) -> Result<(), String> {
    let shown: Table = toml::from_str(shown).map_err(|e| e.to_string())?;
    let mut recipe = least(model_type);
    make_room(&mut recipe, &shown);
    merge(&mut recipe, shown);
    stay_here(&mut recipe);
    let text = toml::to_string(&recipe).map_err(|e| e.to_string())?;
    let told = |e: tallow::Error| format!("{e}\nhint: {}\n{text}", e.hint().unwrap_or_default());
    let loaded = recipe::parse(&place.path().join("shown.toml"), &text, &[]).map_err(told)?;
    loaded.resolve(&Builtin).map(drop).map_err(told)
}

#[test]
fn recipes_shown_can_be_resolved() {
    let place = Place::new();
    let mut failed = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "toml") {
            seen += 1;
            if let Err(why) = resolve(&place, page.model_type(), &block.text) {
                failed.push(format!("{}: {why}\nof\n{}", page.name, block.text));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(seen >= 30, "{seen} recipes were found");
}

/// `args.max_steps = 10` and the like in prose.
#[test]
fn settings_in_prose_can_be_read() {
    let place = Place::new();
    let mut failed = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for span in page.spans() {
            let is_setting =
                ["args.", "model.", "hub."].iter().any(|table| span.starts_with(table)) && span.contains(" = ");
            if is_setting {
                seen += 1;
                let text = format!("{span}\n");
                let shown: Result<Table, _> = toml::from_str(&text);
                let mut recipe = least(page.model_type());
                match shown {
                    Ok(shown) => merge(&mut recipe, shown),
                    Err(e) => failed.push(format!("{}: `{span}`: {e}", page.name)),
                }
                let text = toml::to_string(&recipe).unwrap();
                if let Err(e) = recipe::parse(&place.path().join("shown.toml"), &text, &[]) {
                    failed.push(format!("{}: `{span}`: {e}", page.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(seen >= 10, "{seen} settings were found");
}
