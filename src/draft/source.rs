//! Which rows, which loss and which evaluator a draft begins with: told by the data at hand, else the variant's own.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::shape::{Labels, Shape};
use super::variants::{Hub, Learns, Variant};
use super::{Wanted, at};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, ModelType};
use crate::loss;

/// Keys with their values, in the order they are written in.
pub(super) type Lines = Vec<(String, Value)>;

/// What was settled.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// A table a data set.
    pub(super) train: Vec<Lines>,
    /// The table of held-out rows for the loss; empty for none.
    pub(super) eval: Lines,
    pub(super) evaluators: Vec<Lines>,
    pub(super) loss: String,
    pub(super) in_batch_negatives: bool,
    /// Whether its batches need several rows of several classes.
    pub(super) compares_labels: bool,
    /// Whether negatives are looked for.
    pub(super) mines: bool,
    pub(super) notes: Vec<String>,
    pub(super) held_out: bool,
}

/// A data set as far as it is known.
struct Set {
    lines: Lines,
    shape: Option<Shape>,
    loss: String,
}

impl Sources {
    /// Settles them. `complete` says that the recipe has to do with what is there: no script makes labels or held-out rows.
    ///
    /// # Errors
    /// When data cannot be read, or do not suit the variant.
    pub(super) fn settle(
        variant: &Variant,
        wanted: &Wanted,
        tree: &Map<String, Value>,
        complete: bool,
    ) -> Result<Self> {
        let mut sources = Self::default();
        let own = tree.get("train_dataset").and_then(Value::as_array).map_or(0, Vec::len);
        let named = |i: usize, key: &str| at(tree, &format!("train_dataset.{i}.{key}"));
        let given = wanted.data.is_some() || named(0, "path").is_some() || named(0, "id").is_some();
        let sets = if given {
            (0..own.max(1)).map(|i| sources.local(variant, wanted, tree, i, complete)).collect::<Result<Vec<_>>>()?
        } else {
            let hub = if complete { variant.hub } else { variant.script_hub };
            if hub.is_empty() {
                return Err(nothing(variant));
            }
            hub.iter().map(|hub| from_hub(variant, tree, hub, complete)).collect::<Result<Vec<_>>>()?
        };
        let common = at(tree, "loss.name").or_else(|| tree.get("loss")).and_then(Value::as_str);
        let several = sets.len() > 1 && common.is_none();
        let mut pairs = false;
        for (i, set) in sets.iter().enumerate() {
            let mut lines = set.lines.clone();
            if several {
                lines.push(("loss".to_owned(), json!({ "name": set.loss })));
            }
            sources.train.push(lines);
            let card = card(variant.model_type, common.unwrap_or(&set.loss));
            sources.in_batch_negatives |= card.is_some_and(|card| card.in_batch_negatives);
            let texts = set.shape.as_ref().map_or(0, |shape| shape.texts.len());
            let unlabelled = set.shape.as_ref().is_some_and(|s| s.label.is_none() && s.list.is_none());
            sources.compares_labels |= card.is_some_and(|card| card.compares_labels);
            pairs |= i == 0 && texts == 2 && unlabelled;
        }
        sources.mines = variant.mines && pairs;
        if !several {
            sources.loss = sets.first().map(|set| set.loss.clone()).unwrap_or_default();
        }
        sources.held_out(variant, wanted, tree, given, complete)?;
        Ok(sources)
    }

    /// Rows in files: those of `--data`, or those that a setting names.
    fn local(
        &mut self,
        variant: &Variant,
        wanted: &Wanted,
        tree: &Map<String, Value>,
        i: usize,
        complete: bool,
    ) -> Result<Set> {
        let named = |key: &str| at(tree, &format!("train_dataset.{i}.{key}"));
        let path = named("path").cloned().or_else(|| wanted.data.clone().filter(|_| i == 0).map(Value::from));
        let mut lines = Lines::new();
        let Some(path) = path else {
            let loss = fallback(variant).to_owned();
            return Ok(Set { lines, shape: None, loss });
        };
        let columns = named("columns").map(names);
        let shape = Shape::of(
            &names(&path),
            &std::env::current_dir().unwrap_or_default(),
            columns.as_deref(),
            named("label").and_then(Value::as_str),
        )?;
        let teacher = match (complete, &wanted.teacher) {
            (false, _) => Asked::Script,
            (true, Some(_)) => Asked::Run,
            (true, None) => Asked::Nobody,
        };
        let chosen =
            at(tree, "loss.name").and_then(Value::as_str).or_else(|| named("loss.name").and_then(Value::as_str));
        let loss = match chosen {
            Some(loss) => loss.to_owned(),
            None => loss_for(variant, &shape, teacher)
                .map_err(|e| e.within(format!("`{}`", names(&path).join("`, `"))))?
                .to_owned(),
        };
        lines.push(("path".to_owned(), path));
        let mut all = shape.texts.clone();
        all.extend(shape.list.clone());
        if all.len() == 1 && shape.label.is_none() && loss.contains("MultipleNegatives") {
            return Err(Error::data(format!("{} alone: there is nothing to compare it with", shape.described()))
                .with_hint("`tallow recommend` says which losses train on single texts"));
        }
        self.notes.push(format!("{}: {loss}", shape.described()));
        lines.push(("columns".to_owned(), json!(all)));
        if let Some((label, _)) = &shape.label
            && card(variant.model_type, &loss).is_none_or(|card| card.labels != LabelKind::None)
        {
            lines.push(("label".to_owned(), json!(label)));
        }
        let teaches = matches!(variant.learns, Learns::Teacher | Learns::Translations) && shape.label.is_none();
        if let (Asked::Run, true, Some(model)) = (teacher, teaches, &wanted.teacher) {
            let labels = match (loss.contains("MarginMSE"), variant.model_type) {
                (true, _) => "margin",
                (false, ModelType::CrossEncoder) => "score",
                (false, _) => "embedding",
            };
            lines.push(("teacher".to_owned(), json!({ "model": model, "labels": labels })));
        }
        Ok(Set { lines, shape: Some(shape), loss })
    }

    /// What measures the model.
    fn held_out(
        &mut self,
        variant: &Variant,
        wanted: &Wanted,
        tree: &Map<String, Value>,
        given: bool,
        complete: bool,
    ) -> Result<()> {
        let own = at(tree, "evaluator.0").is_some() || tree.contains_key("eval_dataset");
        if let Some(eval) = &wanted.eval {
            let kind = at(tree, "evaluator.0.type").and_then(Value::as_str);
            self.evaluators = vec![evaluator(variant, eval, kind, &self.loss)?];
            self.held_out = true;
            return Ok(());
        }
        self.held_out = own;
        if own || !complete {
            return Ok(());
        }
        if given {
            return Err(Error::usage("a run needs held-out rows to be measured on")
                .with_hint("name them with `--eval`: rows that the model is not trained on, or a folder with corpus.jsonl, queries.jsonl and qrels"));
        }
        let Some(hub) = variant.hub.last() else { return Ok(()) };
        self.eval = hub_lines(hub, hub.eval_split);
        if let Some(loss) = hub.loss.filter(|_| variant.hub.len() > 1) {
            self.eval.push(("loss".to_owned(), json!({ "name": loss })));
        }
        self.held_out = true;
        self.notes.push("the loss on held-out rows is the score: an evaluator (`--eval`) says more".to_owned());
        Ok(())
    }
}

fn nothing(variant: &Variant) -> Error {
    let hint = match variant.learns {
        Learns::Teacher => {
            "name rows with a teacher's labels with `--data`: `tallow teach DATA --teacher MODEL --output FILE` writes them"
        }
        Learns::Translations => {
            "name rows (source, translation) with the teacher's embeddings with `--data`: `tallow teach DATA --teacher MODEL \
             --labels embedding --columns source --output FILE` writes them"
        }
        _ => "name the rows with `--data`, and others to measure with `--eval`",
    };
    Error::usage(format!("the variant `{}` of a {} has no data of its own", variant.name, variant.model_type))
        .with_hint(hint)
}

fn from_hub(variant: &Variant, tree: &Map<String, Value>, hub: &Hub, complete: bool) -> Result<Set> {
    let shape = Shape {
        texts: hub.columns.iter().map(|name| (*name).to_owned()).collect(),
        list: None,
        label: hub.label.map(|name| (name.to_owned(), Labels::Scores)),
    };
    let loss = match (at(tree, "loss.name").and_then(Value::as_str), hub.loss) {
        (Some(loss), _) | (None, Some(loss)) => loss,
        (None, None) => loss_for(variant, &shape, if complete { Asked::Nobody } else { Asked::Script })?,
    };
    Ok(Set { lines: hub_lines(hub, hub.split), shape: Some(shape), loss: loss.to_owned() })
}

fn hub_lines(hub: &Hub, split: &str) -> Lines {
    let mut lines = vec![("id".to_owned(), json!(hub.id))];
    lines.extend(hub.subset.map(|subset| ("subset".to_owned(), json!(subset))));
    lines.push(("split".to_owned(), json!(split)));
    lines.push(("columns".to_owned(), json!(hub.columns)));
    lines.extend(hub.label.map(|label| ("label".to_owned(), json!(label))));
    lines
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn card(model_type: ModelType, name: &str) -> Option<&'static Card> {
    loss::cards_for(model_type).find(|card| card.name == name)
}

/// The loss of data that cannot be looked at.
const fn fallback(variant: &Variant) -> &'static str {
    match variant.model_type {
        ModelType::SentenceTransformer => "MultipleNegativesRankingLoss",
        ModelType::CrossEncoder => "BinaryCrossEntropyLoss",
        ModelType::SparseEncoder => "SparseMultipleNegativesRankingLoss",
        ModelType::MultiVectorEncoder => "MultiVectorMultipleNegativesRankingLoss",
    }
}

/// Who asks the teacher where the rows have no labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nobody,
    /// A recipe's run, of a teacher that was named.
    Run,
    Script,
}

/// The loss a variant trains on such rows.
fn loss_for(variant: &Variant, shape: &Shape, teacher: Asked) -> Result<&'static str> {
    use Labels::{Binary, Classes, Scores, Vectors};
    use Learns::{Data, Lists, Teacher, Translations};
    use ModelType::{CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder};
    let labels = shape.labels();
    let teaches = labels.is_none() && teacher != Asked::Nobody;
    let in_run = labels.is_none() && teacher == Asked::Run;
    let number = matches!(labels, Some(Binary | Classes | Scores));
    let found = match (variant.model_type, variant.learns, shape.texts.len()) {
        _ if shape.list.is_some() && variant.learns != Lists => None,
        (SentenceTransformer, Data, 1) if matches!(labels, Some(Binary | Classes)) => Some("BatchAllTripletLoss"),
        (SentenceTransformer, Data, 2) if labels == Some(Binary) => Some("OnlineContrastiveLoss"),
        (SentenceTransformer, Data, 2) if number => Some("CoSENTLoss"),
        (SentenceTransformer, Data, 2..) if labels.is_none() => Some("MultipleNegativesRankingLoss"),
        (SentenceTransformer, Teacher, 1) if labels == Some(Vectors) => Some("MSELoss"),
        (SentenceTransformer, Teacher, 3) if in_run => Some("MarginMSELoss"),
        // every text would learn the first one's embedding
        (SentenceTransformer, Teacher, 2..) if in_run => None,
        (SentenceTransformer, Teacher, _) if teaches => Some("MSELoss"),
        (SentenceTransformer, Teacher, 3) if number => Some("MarginMSELoss"),
        (SentenceTransformer, Teacher, 3..) if labels == Some(Vectors) => Some("DistillKLDivLoss"),
        (SentenceTransformer, Translations, 2) if labels == Some(Vectors) || teaches => Some("MSELoss"),
        (CrossEncoder, Data, 2) if matches!(labels, Some(Binary | Scores)) => Some("BinaryCrossEntropyLoss"),
        (CrossEncoder, Data, 2) if labels.is_none() => Some("BinaryCrossEntropyLoss"),
        (CrossEncoder, Data, 3..) if labels.is_none() => Some("MultipleNegativesRankingLoss"),
        (CrossEncoder, Teacher, 2) if number || in_run => Some("MSELoss"),
        (CrossEncoder, Teacher, 3) if number || teaches => Some("MarginMSELoss"),
        (CrossEncoder, Lists, 1) if shape.list.is_some() && labels == Some(Vectors) => Some("LambdaLoss"),
        (CrossEncoder, Lists, 2) if labels.is_none() => Some("LambdaLoss"),
        (SparseEncoder, Data, 2) if number => Some("SparseCoSENTLoss"),
        (SparseEncoder, Data, 2..) if labels.is_none() => Some("SparseMultipleNegativesRankingLoss"),
        (SparseEncoder, Teacher, 3) if number || teaches => Some("SparseMarginMSELoss"),
        (SparseEncoder, Teacher, 3..) if labels == Some(Vectors) => Some("SparseDistillKLDivLoss"),
        (MultiVectorEncoder, Data, 2..) if labels.is_none() => Some("MultiVectorMultipleNegativesRankingLoss"),
        (MultiVectorEncoder, Data, 3) if number => Some("MultiVectorMarginMSELoss"),
        (MultiVectorEncoder, Data, 3..) if labels == Some(Vectors) => Some("MultiVectorDistillKLDivLoss"),
        _ => None,
    };
    found.ok_or_else(|| {
        let hint = match variant.learns {
            Teacher | Translations if labels.is_none() => {
                "name a teacher with `--teacher`, which the run asks about rows of one text or of a query, a positive and a negative; or `tallow teach DATA --teacher MODEL --output FILE` writes its labels beside the rows"
            }
            _ => "`tallow recommend` says which losses fit; `--set loss.name=...` takes one",
        };
        Error::data(format!(
            "{} is not what the variant `{}` of a {} trains on",
            shape.described(),
            variant.name,
            variant.model_type
        ))
        .with_hint(hint)
    })
}

/// The evaluator for held-out rows, or of the type the user names.
fn evaluator(variant: &Variant, path: &str, kind: Option<&str>, loss: &str) -> Result<Lines> {
    let mut lines = Lines::new();
    let mut put = |key: &str, value: Value| lines.push((key.to_owned(), value));
    if Path::new(path).is_dir() {
        let kind = match (kind, variant.model_type) {
            (Some(kind), _) => kind.to_owned(),
            (None, ModelType::CrossEncoder) => {
                return Err(Error::usage(format!("`{path}` is a folder, and rerankers are measured on rows"))
                    .with_hint("name a file with query, passage and label, or query, positive and negative"));
            }
            (None, model_type) => format!("{}InformationRetrievalEvaluator", prefix(model_type)),
        };
        put("type", json!(kind));
        put("name", json!("dev"));
        put("path", json!(path));
        return Ok(lines);
    }
    let shape = Shape::of(&[path.to_owned()], &std::env::current_dir().unwrap_or_default(), None, None)?;
    let (kind, columns, labelled) = match kind {
        Some(kind) => {
            let (_, columns, labelled) = measured(variant, &shape, loss).unwrap_or(("", shape.texts.len(), true));
            (kind.to_owned(), columns, labelled)
        }
        None => {
            let (kind, columns, labelled) = measured(variant, &shape, loss).ok_or_else(|| {
                Error::data(format!(
                    "`{path}`: {} is nothing to measure a {} with",
                    shape.described(),
                    variant.model_type
                ))
                .with_hint(
                    "`tallow evaluate --help` says what each evaluator reads; `--set evaluator.0.type=...` names one",
                )
            })?;
            (format!("{}{kind}", prefix(variant.model_type)), columns, labelled)
        }
    };
    put("type", json!(kind));
    put("name", json!("dev"));
    put("path", json!(path));
    if columns > 0 {
        put("columns", json!(shape.texts.iter().take(columns).collect::<Vec<_>>()));
    }
    if let Some((label, _)) = shape.label.as_ref().filter(|_| labelled) {
        put("label", json!(label));
    }
    Ok(lines)
}

/// The evaluator for rows of the training data that a script sets apart.
///
/// # Errors
/// When the rows cannot be read, or no evaluator reads such rows.
pub(super) fn held_out_rows(variant: &Variant, wanted: &Wanted, tree: &Map<String, Value>) -> Result<Lines> {
    let named = |key: &str| at(tree, &format!("train_dataset.0.{key}"));
    let path = named("path").map(names).or_else(|| wanted.data.clone().map(|path| vec![path])).unwrap_or_default();
    let columns = named("columns").map(names);
    let base = std::env::current_dir().unwrap_or_default();
    let shape = Shape::of(&path, &base, columns.as_deref(), named("label").and_then(Value::as_str))?;
    let loss = at(tree, "loss.name").and_then(Value::as_str).unwrap_or_default();
    let pairs = variant.model_type == ModelType::CrossEncoder && shape.texts.len() == 2 && shape.label.is_none();
    let found = if pairs { Some(("RerankingEvaluator", 2, false)) } else { measured(variant, &shape, loss) };
    let Some((kind, columns, labelled)) = found else {
        return Err(Error::data(format!("{} is nothing to measure a {} with", shape.described(), variant.model_type))
            .with_hint("name held-out rows of another kind with `--eval`"));
    };
    let mut lines = vec![
        ("type".to_owned(), json!(format!("{}{kind}", prefix(variant.model_type)))),
        ("name".to_owned(), json!("dev")),
        ("columns".to_owned(), json!(shape.texts.iter().take(columns).collect::<Vec<_>>())),
    ];
    if let Some((label, _)) = shape.label.filter(|_| labelled) {
        lines.push(("label".to_owned(), json!(label)));
    }
    Ok(lines)
}

const fn prefix(model_type: ModelType) -> &'static str {
    match model_type {
        ModelType::SentenceTransformer => "",
        ModelType::CrossEncoder => "CrossEncoder",
        ModelType::SparseEncoder => "Sparse",
        ModelType::MultiVectorEncoder => "MultiVector",
    }
}

/// The evaluator's name without its prefix, how many columns it reads, and whether a label beside them.
fn measured(variant: &Variant, shape: &Shape, loss: &str) -> Option<(&'static str, usize, bool)> {
    use Labels::{Binary, Classes, Scores, Vectors};
    let late = variant.model_type == ModelType::MultiVectorEncoder;
    if variant.learns == Learns::Translations && shape.texts.len() == 2 {
        return Some(("TranslationEvaluator", 2, false));
    }
    if variant.model_type == ModelType::CrossEncoder {
        return match (shape.texts.len(), shape.labels(), &shape.list) {
            (1, _, Some(_)) => Some(("RerankingEvaluator", 0, false)),
            (2, Some(Binary), None) if loss != "CrossEntropyLoss" => Some(("RerankingEvaluator", 2, true)),
            (2, Some(Binary | Classes), None) => Some(("ClassificationEvaluator", 2, true)),
            (2, Some(Scores), None) => Some(("CorrelationEvaluator", 2, true)),
            (3.., _, None) => Some(("RerankingEvaluator", 3, false)),
            _ => None,
        };
    }
    match (shape.texts.len(), shape.labels()) {
        _ if shape.list.is_some() => None,
        (2, None) => Some(("InformationRetrievalEvaluator", 2, false)),
        (2, Some(Binary)) if !late => Some(("BinaryClassificationEvaluator", 2, true)),
        (2, Some(Classes | Scores)) if !late => Some(("EmbeddingSimilarityEvaluator", 2, true)),
        (1, Some(Vectors)) if !late => Some(("MSEEvaluator", 1, true)),
        (3.., _) => Some(("TripletEvaluator", 3, false)),
        _ => None,
    }
}
