//! Which losses take the data as they are, and why do the others not? Told by the cards.

use crate::data::inspect::{Inspection, LabelFacts, LabelReport, Shape};
use crate::flow::{Card, LabelKind, ModelType};
use crate::loss;

/// The losses of models of a type that take the data as they are.
pub fn fitting(model_type: ModelType, data: &Inspection) -> impl Iterator<Item = &'static Card> {
    plain(model_type).filter(move |card| refusal(card, data).is_none())
}

/// The losses of models of a type, without those that wrap others and without the forms with cached gradients.
pub fn plain(model_type: ModelType) -> impl Iterator<Item = &'static Card> {
    loss::entries(model_type).iter().map(|entry| entry.card).filter(|card| !card.name.starts_with(CACHED))
}

/// What names of losses that cache gradients begin with.
const CACHED: &str = "Cached";

/// The form of a loss with cached gradients, which takes large batches in small parts; `None` where there is none.
#[must_use]
pub fn cached(model_type: ModelType, name: &str) -> Option<&'static str> {
    let names = loss::entries(model_type).iter().map(|entry| entry.card.name);
    names.into_iter().find(|known| known.strip_prefix(CACHED) == Some(name))
}

/// Why a loss does not take the data as they are; `None` where it does.
#[must_use]
pub fn refusal(card: &Card, data: &Inspection) -> Option<String> {
    let texts = data.columns.len();
    let (least, most) = card.columns;
    if card.name == "GlobalOrthogonalRegularizationLoss" {
        return Some("it only spreads embeddings out".to_owned());
    }
    if data.shape == Shape::Lists && card.labels != LabelKind::Lists {
        return Some("it takes no lists of texts".to_owned());
    }
    if texts < least || texts > most {
        let wanted = if least == most { least.to_string() } else { format!("{least} or more") };
        let columns = if (least, most) == (1, 1) { "column" } else { "columns" };
        return Some(format!("it takes {wanted} {columns} of texts, the data have {texts}"));
    }
    let Some(label) = &data.label else {
        let needs = card.labels != LabelKind::None && texts < card.unlabelled_from;
        return needs.then(|| format!("it needs {}", wanted_label(card)));
    };
    match (card.labels, label.kind) {
        (LabelKind::None, _) => Some("it reads no labels".to_owned()),
        (LabelKind::Float, LabelFacts::Binary | LabelFacts::Scores | LabelFacts::Classes) => range(card, label),
        (LabelKind::Int, LabelFacts::Binary | LabelFacts::Classes | LabelFacts::Names) => None,
        (LabelKind::Matrix, LabelFacts::Lists) => listed(card, texts, label),
        (LabelKind::Lists, LabelFacts::Lists) if data.shape == Shape::Lists => None,
        (LabelKind::Any, kind) => any(card, texts, kind, label),
        _ => Some(format!("it needs {}", wanted_label(card))),
    }
}

fn wanted_label(card: &Card) -> &'static str {
    match card.labels {
        LabelKind::Int => "a class a row",
        LabelKind::Matrix => "a teacher's embedding or scores, a list a row",
        LabelKind::Lists => "a list of texts and one of labels a row",
        LabelKind::Any if card.columns.0 > 2 => "a teacher's margin or scores",
        LabelKind::Any if classifies(card) => "a class a row",
        LabelKind::None | LabelKind::Float | LabelKind::Any => "a number a row",
    }
}

fn classifies(card: &Card) -> bool {
    matches!(card.name, "SoftmaxLoss" | "CrossEntropyLoss")
}

/// Numbers have to lie where the loss compares them.
fn range(card: &Card, label: &LabelReport) -> Option<String> {
    let (low, high) = match card.name.trim_start_matches("Sparse") {
        "CosineSimilarityLoss" => (-1.0, 1.0),
        "BinaryCrossEntropyLoss" | "ContrastiveTensionLoss" => (0.0, 1.0),
        "ContrastiveLoss" | "OnlineContrastiveLoss" if label.kind != LabelFacts::Binary => {
            return Some("it needs 0 and 1".to_owned());
        }
        _ => return None,
    };
    let fits = label.min >= low && label.max <= high;
    (!fits).then(|| format!("labels go from {} to {}, it needs {low} to {high}", label.min, label.max))
}

/// A list is a score for each document, or an embedding, which is longer than rows have columns.
fn listed(card: &Card, texts: usize, label: &LabelReport) -> Option<String> {
    let Some(length) = label.per_list else { return Some("the lists differ in length".to_owned()) };
    let scores = card.name.contains("DistillKLDiv");
    match (scores, length + 1 == texts) {
        (true, false) => {
            Some(format!("it needs a score for each of {} documents, lists have {length}", texts.max(1) - 1))
        }
        (false, true) if texts > 1 => Some("it needs a teacher's embedding, not scores".to_owned()),
        _ => None,
    }
}

fn any(card: &Card, texts: usize, kind: LabelFacts, label: &LabelReport) -> Option<String> {
    let needs = || Some(format!("it needs {}", wanted_label(card)));
    match kind {
        LabelFacts::Names if classifies(card) => None,
        LabelFacts::Names => needs(),
        LabelFacts::Lists if classifies(card) || texts < 3 => needs(),
        LabelFacts::Lists => {
            let fits = label.per_list.is_some_and(|length| length + 1 == texts || length + 2 == texts);
            (!fits).then(|| format!("it needs {} margins or {} scores a row", texts - 2, texts - 1))
        }
        LabelFacts::Scores if classifies(card) => needs(),
        _ => None,
    }
}
