//! What is there to choose from? The cards of all losses, samplers, modules and evaluators in one place.
//!
//! `references/catalogue.md` is this, written out; a test fails when they differ.

pub mod bases;
pub mod choose;
pub mod findings;
pub mod fit;
pub mod iterate;
pub mod recommend;
pub mod reshape;
pub mod trackers;

use std::fmt::Write as _;

use crate::flow::{Card, LabelKind, ModelType};
use crate::model::backbone::SUPPORTED;
use crate::optim::schedule::SchedulerType;
use crate::{data, eval, loss, model};

/// Things of one kind.
#[derive(Debug, Clone)]
pub struct Section {
    /// What they are called together.
    pub title: &'static str,
    /// Where in a recipe they are chosen.
    pub place: &'static str,
    pub cards: Vec<&'static Card>,
}

/// Everything there is, by kind.
#[must_use]
pub fn sections() -> Vec<Section> {
    let losses = loss::LOSSES.iter().map(|entry| entry.card).collect();
    let wrappers = loss::wrap::WRAPPERS.iter().map(|wrapper| wrapper.card).collect();
    vec![
        Section { title: "Losses", place: "`[loss]` with `name`", cards: losses },
        Section {
            title: "Losses of a CrossEncoder",
            place: "`[loss]` with `name` where `model_type = \"CrossEncoder\"`",
            cards: loss::cross_encoder::LOSSES.iter().map(|entry| entry.card).collect(),
        },
        Section {
            title: "Losses of a SparseEncoder",
            place: "`[loss]` with `name` where `model_type = \"SparseEncoder\"`, and a table `[loss.splade]` or `[loss.csr]`",
            cards: loss::sparse_encoder::LOSSES.iter().map(|entry| entry.card).collect(),
        },
        Section {
            title: "Losses of a MultiVectorEncoder",
            place: "`[loss]` with `name` where `model_type = \"MultiVectorEncoder\"`",
            cards: loss::multi_vector::LOSSES.iter().map(|entry| entry.card).collect(),
        },
        Section { title: "Losses around losses", place: "a table under `[loss]`", cards: wrappers },
        Section {
            title: "Samplers",
            place: "`args.batch_sampler`, and `args.multi_dataset_batch_sampler` for several data sets",
            cards: data::sampler::cards().collect(),
        },
        Section {
            title: "Evaluators",
            place: "`[[evaluator]]` with `type`",
            cards: evaluators(ModelType::SentenceTransformer),
        },
        Section {
            title: "Evaluators of a CrossEncoder",
            place: "`[[evaluator]]` with `type` where `model_type = \"CrossEncoder\"`",
            cards: evaluators(ModelType::CrossEncoder),
        },
        Section {
            title: "Evaluators of a SparseEncoder",
            place: "`[[evaluator]]` with `type` where `model_type = \"SparseEncoder\"`",
            cards: evaluators(ModelType::SparseEncoder),
        },
        Section {
            title: "Evaluators of a MultiVectorEncoder",
            place: "`[[evaluator]]` with `type` where `model_type = \"MultiVectorEncoder\"`",
            cards: evaluators(ModelType::MultiVectorEncoder),
        },
        Section { title: "Modules", place: "`modules.json` of a model", cards: model::module::CARDS.iter().collect() },
    ]
}

/// The evaluators of models of a type.
fn evaluators(model_type: ModelType) -> Vec<&'static Card> {
    eval::cards().filter(|card| card.model_types.contains(&model_type)).collect()
}

/// The reference page.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Catalogue\n\nEverything a recipe can name, from the cards in the code. Settings, defaults and papers stand in \
         each one's documentation (`cargo doc`).\n",
    );
    for section in sections() {
        let _ = write!(page, "\n## {}\n\nChosen by {}.\n\n", section.title, section.place);
        page.push_str("| name | what it does | takes | labels | mind |\n|---|---|---|---|---|\n");
        for card in section.cards {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                card.name,
                card.summary,
                card.inputs.join("; "),
                labels(card.labels),
                card.gotchas.join(" ")
            );
        }
    }
    page.push_str("\n## Schedules\n\nChosen by `args.lr_scheduler_type`.\n\n| name | the learning rate |\n|---|---|\n");
    for schedule in SchedulerType::ALL {
        let _ = writeln!(page, "| `{}` | {} |", schedule.name(), schedule.schedule().card().summary);
    }
    page.push_str(
        "\n## Trackers\n\nChosen by `args.report_to`.\n\n| name | where metrics go | needs |\n|---|---|---|\n",
    );
    for tracker in trackers::TRACKERS {
        let _ = writeln!(page, "| `{}` | {} | {} |", tracker.name, tracker.summary, tracker.needs);
    }
    page.push_str(
        "\n## Networks\n\nChosen by `model_type` in the config.json of `model.base`, or in `[model.config]` for a new one.\n\n\
         | name | classes in transformers | here |\n|---|---|---|\n",
    );
    for network in SUPPORTED {
        let here = if network.is_trained() { "trained" } else { "teacher, guide, encoder: it is not trained" };
        let _ = writeln!(page, "| `{}` | `{}...` | {here} |", network.model_type, network.class);
    }
    page
}

fn labels(kind: LabelKind) -> &'static str {
    match kind {
        LabelKind::None => "none",
        LabelKind::Float => "a score",
        LabelKind::Int => "a class",
        LabelKind::Matrix => "a list of numbers",
        LabelKind::Lists => "a score for each text of the list",
        LabelKind::Any => "any",
    }
}
