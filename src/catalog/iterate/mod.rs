//! What is worth trying after a run, or is it time to stop? One change at a time, by rules in a fixed order.
//!
//! A rule is a file here and one line in [`RULES`]. It sees facts alone: the run that is gone on from, the runs before it
//! that were measured the same way, the recipe, and the data where they were looked at. Stopping comes first, then what is
//! wrong with the data, negatives, the loss, batch size, learning rate, length and base model. A change that an earlier
//! run has had is not proposed again; the next one is.

mod after_failure;
mod data_findings;
mod dense_embeddings;
mod hard_negatives;
mod in_batch_duplicates;
mod keep_best;
mod label_weight;
mod larger_batch;
mod learning_rate;
mod longer_training;
mod no_verdict;
pub mod noise;
mod other_base;
mod other_loss;
mod past;
mod stop_budget;
mod stop_ceiling;
mod stop_no_gain;
mod stop_win;
#[cfg(test)]
mod testing;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::findings::{Finding, Severity};
use crate::data::inspect::Inspection;
use crate::flow::{Card, ModelType};
use crate::loss;
pub use past::{Ended, Past};

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub model_type: ModelType,
    /// The run that is gone on from.
    pub run: &'a Past,
    /// Every run with the same metric on the same held-out data, the oldest first; `run` is among them.
    pub history: &'a [Past],
    /// The recipe of `run` with all that was set over it, as its tables; empty where there is none.
    pub recipe: &'a Map<String, Value>,
    /// The training data, where they were looked at.
    pub data: Option<&'a Inspection>,
    /// What is wrong with them.
    pub findings: &'a [Finding],
    /// Whether a clear win is no reason to stop.
    pub further: bool,
    /// Seconds that all runs together may take.
    pub budget_s: Option<f64>,
}

/// What a rule has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// No further run, and why.
    Stop(String),
    /// A run with one thing changed.
    Change(Change),
}

/// One thing that is changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// The change in words.
    pub what: String,
    pub why: String,
    /// What in the runs and the data speaks for it.
    pub evidence: Vec<String>,
    /// Keys of the recipe and their values; empty where people have to do it.
    pub set: Vec<(String, Value)>,
    /// Keys of a plan and their values by which an earlier run is seen to have had it.
    pub marks: Vec<(String, Value)>,
}

impl Change {
    /// A key that is called the same in recipe and plan.
    fn setting(what: impl Into<String>, why: impl Into<String>, key: &str, value: impl Into<Value>) -> Self {
        let set = vec![(key.to_owned(), value.into())];
        Self { what: what.into(), why: why.into(), evidence: Vec::new(), marks: set.clone(), set }
    }

    /// Something that no key of a recipe does.
    fn by_hand(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), ..Self::default() }
    }

    /// With what speaks for it.
    fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    fn tried(&self, history: &[Past]) -> bool {
        !self.marks.is_empty() && history.iter().any(|past| self.marks.iter().all(|(key, value)| past.has(key, value)))
    }
}

/// One reason to go on, or to stop.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Stable: pages and answers name it.
    pub id: &'static str,
    /// What it says, in one sentence.
    pub summary: &'static str,
    /// Its steps, the best first.
    pub look: fn(&Facts<'_>) -> Vec<Step>,
}

macro_rules! rules {
    ($($name:ident),* $(,)?) => {
        /// Every rule, in the order they are asked.
        pub static RULES: &[Rule] = &[$($name::RULE),*];
    };
}

rules! {
    after_failure,
    no_verdict,
    stop_budget,
    dense_embeddings,
    stop_win,
    stop_ceiling,
    stop_no_gain,
    data_findings,
    keep_best,
    in_batch_duplicates,
    hard_negatives,
    label_weight,
    other_loss,
    larger_batch,
    learning_rate,
    longer_training,
    other_base,
}

/// The id of what is said when no rule has anything left.
pub const EXHAUSTED: &str = "stop-exhausted";

/// The next run, or that there should be none.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Proposal {
    /// The rule it comes from.
    pub rule: String,
    /// Whether no further run is worth its time.
    pub stop: bool,
    /// What to change; why to stop.
    pub what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What in the runs and the data speaks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Keys of the recipe and their new values; none where people have to do it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub set: Map<String, Value>,
    /// What to mind in the data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mind: Vec<String>,
}

/// Notes about the data that go with a proposal.
const MINDED: usize = 3;

/// What the rules say: the first reason to stop or the first change that no earlier run has had.
#[must_use]
pub fn propose(facts: &Facts<'_>) -> Proposal {
    let steps = RULES.iter().flat_map(|rule| (rule.look)(facts).into_iter().map(move |step| (rule.id, step)));
    let first = steps.into_iter().find(|(_, step)| match step {
        Step::Stop(_) => true,
        Step::Change(change) => !change.tried(facts.history),
    });
    let minded = facts.findings.iter().filter(|finding| finding.severity == Severity::Warning).take(MINDED);
    match first {
        Some((rule, Step::Change(change))) => Proposal {
            rule: rule.to_owned(),
            stop: false,
            what: change.what,
            why: change.why,
            evidence: change.evidence,
            set: change.set.into_iter().collect(),
            mind: minded.map(|finding| format!("{}: {}", finding.what, finding.fix)).collect(),
        },
        Some((rule, Step::Stop(why))) => stop(rule, why),
        None => stop(
            EXHAUSTED,
            "every change that the rules know was tried: more or better data, or another held-out set, is what is left"
                .to_owned(),
        ),
    }
}

fn stop(rule: &str, what: String) -> Proposal {
    Proposal {
        rule: rule.to_owned(),
        stop: true,
        what,
        why: String::new(),
        evidence: Vec::new(),
        set: Map::new(),
        mind: Vec::new(),
    }
}

/// The run to go on from where none is named: of those that ended with a score the best (of equals the first, for what came
/// later brought nothing), sparse ones before dense ones where they should be sparse; else the last.
#[must_use]
pub fn best(history: &[Past]) -> Option<&Past> {
    // of equals `max_by` takes the last
    let scored = history.iter().rev().filter(|past| past.merit().is_some());
    let by = |a: &&Past, b: &&Past| {
        let merit = |past: &Past| past.merit().unwrap_or(f64::MIN);
        b.is_dense().cmp(&a.is_dense()).then(merit(a).total_cmp(&merit(b)))
    };
    scored.max_by(by).or(history.last())
}

impl Facts<'_> {
    /// The card of the run's loss, where it trains one data set.
    fn loss(&self) -> Option<&'static Card> {
        if self.run.text("train_dataset.1.name").is_some() {
            return None;
        }
        let name = self.run.text("train_dataset.0.loss.name")?;
        loss::cards_for(self.model_type).find(|card| card.name == name)
    }

    /// Whether other rows of a batch serve as negatives.
    fn in_batch_negatives(&self) -> bool {
        self.loss().is_some_and(|card| card.in_batch_negatives)
    }

    /// A value of the recipe by dotted key; entries of lists by number, a lone table standing for a list of one.
    #[must_use]
    pub fn written(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let mut value = self.recipe.get(parts.next()?)?;
        for part in parts {
            value = match value {
                Value::Object(table) if part == "0" && !table.contains_key(part) => value,
                Value::Object(table) => table.get(part)?,
                Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Case, done};
    use super::*;

    #[test]
    fn ids_are_stable_and_unique() {
        let ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(
            ids,
            [
                "after-failure",
                "no-verdict",
                "stop-budget",
                "dense-embeddings",
                "stop-win",
                "stop-ceiling",
                "stop-no-gain",
                "data-findings",
                "keep-best",
                "in-batch-duplicates",
                "hard-negatives",
                "label-weight",
                "other-loss",
                "larger-batch",
                "learning-rate",
                "longer-training",
                "other-base",
            ]
        );
    }

    #[test]
    fn one_thing_after_the_other_until_three_runs_brought_nothing() {
        let mut case = Case::pairs();
        let mut rules = Vec::new();
        for i in 0..6 {
            let proposal = case.propose();
            rules.push(proposal.rule.clone());
            if proposal.stop {
                break;
            }
            assert!(!proposal.set.is_empty(), "{proposal:?}");
            let mut next = case.history[0].clone();
            next.run_id = format!("run-{i}");
            for (key, value) in &proposal.set {
                next.settings.insert(key.clone(), value.clone());
            }
            case.history.push(next);
        }
        assert_eq!(rules, ["in-batch-duplicates", "hard-negatives", "larger-batch", "stop-no-gain"]);
    }

    #[test]
    fn the_best_run_is_gone_on_from() {
        let history = [done("a", 0.5, 0.51), done("b", 0.5, 0.53), done("c", 0.5, 0.52)];
        assert_eq!(best(&history).map(|past| past.run_id.as_str()), Some("b"));
        assert_eq!(best(&[]), None);
        let mut sparse = history.clone();
        sparse[1].costs = vec![("corpus_active_dims".into(), 20_000.0)];
        assert_eq!(best(&sparse).map(|past| past.run_id.as_str()), Some("c"));
    }

    #[test]
    fn when_all_was_tried_it_says_so() {
        let mut case = Case::scored();
        for rate in [1e-5, 4e-5] {
            let mut other = case.history[0].clone();
            other.settings.insert("args.learning_rate".to_owned(), rate.into());
            other.run_id = rate.to_string();
            case.history.push(other);
        }
        let proposal = case.propose();
        assert_eq!((proposal.rule.as_str(), proposal.stop), (EXHAUSTED, true), "{proposal:?}");
    }
}
