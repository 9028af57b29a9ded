//! A recipe as rules see it: what it says, what that comes to, and where.

use crate::error::Result;
use crate::recipe::plan::LossPlan;
use crate::recipe::{Loaded, Plan};

/// A recipe and its plan.
pub(crate) struct RecipeFile<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) plan: &'a Plan,
}

impl RecipeFile<'_> {
    /// The line a key stands on, or the table around it.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.loaded.locations.line(key)
    }

    /// The losses of the data sets, with the keys they stand under.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (String, &LossPlan)> {
        self.plan.train_dataset.iter().enumerate().map(|(i, set)| {
            let own = self.loaded.recipe.train_dataset.0.get(i).is_some_and(|config| config.loss.is_some());
            (if own { format!("train_dataset.{i}.loss") } else { "loss".to_owned() }, &set.loss)
        })
    }

    /// The keys of all metrics there can be, with `eval_` in front.
    pub(crate) fn metric_keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for evaluator in &self.plan.evaluator {
            let entry = crate::eval::find(&evaluator.kind)?;
            // the model says which similarity function it has, and is not read here
            for similarity in ["cosine", "dot", "euclidean", "manhattan", "maxsim", "meanmaxsim"] {
                let own = entry.keys(&evaluator.table(), similarity).unwrap_or_default();
                keys.extend(own.iter().map(|key| crate::eval::trainer_key(key)));
            }
        }
        if let [_] = self.plan.eval_dataset.as_slice() {
            keys.push("eval_loss".to_owned());
        }
        keys.extend(self.plan.eval_dataset.iter().map(|set| format!("eval_{}_loss", set.name)));
        Ok(keys)
    }
}
