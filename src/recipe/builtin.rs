//! The losses, evaluators and samplers there are, as recipes see them.

use serde_json::{Map, Value};

use super::plan::{EvaluatorPlan, LossPlan};
use super::resolve::Registry;
use crate::data::BatchSampler;
use crate::error::Result;
use crate::flow::{Card, ModelType};
use crate::{eval, loss};

/// Everything that is built in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

impl Registry for Builtin {
    fn losses(&self, model_type: ModelType) -> Vec<&str> {
        loss::names_for(model_type).collect()
    }

    fn evaluators(&self, model_type: ModelType) -> Vec<&str> {
        eval::cards().filter(|card| card.model_types.contains(&model_type)).map(|card| card.name).collect()
    }

    fn samplers(&self) -> Vec<&str> {
        BatchSampler::NAMES.to_vec()
    }

    fn loss_card(&self, model_type: ModelType, name: &str) -> Option<&'static Card> {
        loss::cards_for(model_type).find(|card| card.name == name)
    }

    fn loss_settings(&self, model_type: ModelType, plan: &LossPlan) -> Result<Map<String, Value>> {
        // The wrapper, too, is checked now; its settings stay apart in the plan.
        loss::settings_for(model_type, &plan.name, &plan.table())?;
        loss::settings_for(model_type, &plan.name, &plan.settings)
    }

    fn evaluator_settings(&self, plan: &EvaluatorPlan) -> Result<Map<String, Value>> {
        eval::find(&plan.kind)?.settings(&plan.table())?;
        Ok(plan.settings.clone())
    }
}
