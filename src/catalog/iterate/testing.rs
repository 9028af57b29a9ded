//! Runs for the tests of rules.

use serde_json::{Map, Value, json};

use super::{Facts, Past, Proposal, best, propose};
use crate::catalog::findings::Finding;
use crate::flow::ModelType;

/// A run that ended with a score.
pub fn done(run_id: &str, baseline: f64, score: f64) -> Past {
    Past {
        run_id: run_id.to_owned(),
        baseline: Some(baseline),
        score: Some(score),
        delta: Some(score - baseline),
        greater_is_better: true,
        seconds: Some(60.0),
        ..Past::default()
    }
}

/// Runs and their recipe, without data.
pub struct Case {
    pub history: Vec<Past>,
    pub recipe: Map<String, Value>,
    pub findings: Vec<Finding>,
    pub further: bool,
    pub budget_s: Option<f64>,
}

impl Case {
    fn new(recipe: Value, settings: &Value) -> Self {
        let mut first = done("first", 0.8, 0.801);
        let common = json!({
            "args.learning_rate": 2e-5, "args.per_device_train_batch_size": 32, "args.num_train_epochs": 10.0,
            "args.load_best_model_at_end": true, "model.source.base.path": "/base",
        });
        for part in [&common, settings] {
            first.settings.extend(part.as_object().cloned().unwrap_or_default());
        }
        let recipe = recipe.as_object().cloned().unwrap_or_default();
        Self { history: vec![first], recipe, findings: Vec::new(), further: false, budget_s: None }
    }

    /// Questions and answers under in-batch negatives.
    pub fn pairs() -> Self {
        let loss = "MultipleNegativesRankingLoss";
        Self::new(
            json!({"train_dataset": {"path": "p.jsonl", "columns": ["q", "a"]}, "loss": {"name": loss, "scale": 20.0}}),
            &json!({"train_dataset.0.loss.name": loss, "train_dataset.0.columns": ["q", "a"],
                    "args.batch_sampler": "batch_sampler"}),
        )
    }

    /// Scored pairs.
    pub fn scored() -> Self {
        Self::new(
            json!({"train_dataset": [{"path": "s.jsonl"}], "loss": {"name": "CoSENTLoss"}}),
            &json!({"train_dataset.0.loss.name": "CoSENTLoss", "args.batch_sampler": "batch_sampler"}),
        )
    }

    /// As asked with the best run.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            model_type: ModelType::SentenceTransformer,
            run: best(&self.history).unwrap_or(&self.history[0]),
            history: &self.history,
            recipe: &self.recipe,
            data: None,
            findings: &self.findings,
            further: self.further,
            budget_s: self.budget_s,
        }
    }

    pub fn propose(&self) -> Proposal {
        propose(&self.facts())
    }
}
