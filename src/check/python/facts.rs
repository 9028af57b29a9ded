//! What a script trains on what, as far as it is written out: the values a recipe would have them under.

use serde_json::{Map, Value};

use super::script::{Run, Script};
use super::values::Place;
use super::walk::children;

/// Enumerations of training arguments, in sentence-transformers and transformers.
const CHOICES: [&str; 5] =
    ["BatchSamplers", "MultiDatasetBatchSamplers", "SchedulerType", "IntervalStrategy", "SaveStrategy"];

impl Script {
    /// Values by the keys of a plan: `args.learning_rate`, `train_dataset.0.loss.name`, `model.source.base.hub`, `seed`.
    #[must_use]
    pub fn settings(&self) -> Map<String, Value> {
        let run = self.walk();
        let mut found = Map::new();
        let Some(trainer) = run.trainers().into_iter().next() else { return found };
        if let Some(base) = run.base(trainer) {
            found.insert("model.source.base.hub".to_owned(), base.into());
        }
        for (i, loss) in run.losses(trainer).into_iter().enumerate() {
            let key = format!("train_dataset.{i}.loss");
            found.insert(format!("{key}.name"), loss.0.into());
            for (inner, call) in run.nested(loss) {
                if inner != loss.0 {
                    found.insert(format!("{key}.settings.loss.name"), inner.into());
                }
                for (name, value) in run.keywords(call) {
                    found.entry(format!("{key}.settings.{name}")).or_insert(value);
                }
            }
        }
        for (name, value) in run.arguments(trainer).map(|call| run.keywords(call)).unwrap_or_default() {
            let key = match name.as_str() {
                "output_dir" | "run_name" => continue,
                "max_steps" if value.as_f64().is_some_and(|steps| steps < 0.0) => continue,
                "seed" => name,
                _ => format!("args.{name}"),
            };
            found.insert(key, value);
        }
        found
    }
}

impl<'s> Run<'s> {
    /// The name or folder of the model that is trained.
    fn base(&self, trainer: Place<'s>) -> Option<String> {
        let (_, call) = self.made(self.argument_of(trainer, "model", Some(0))?)?;
        self.string(self.argument_of(call, "model_name_or_path", Some(0))?)
    }

    /// The keyword arguments of a call whose values are written out.
    fn keywords(&self, call: Place<'s>) -> Vec<(String, Value)> {
        let arguments = call.node.child_by_field_name("arguments").map(children).unwrap_or_default();
        let named = arguments.into_iter().filter(|argument| argument.kind() == "keyword_argument");
        named
            .filter_map(|argument| {
                let name = self.text(argument.child_by_field_name("name")?).to_owned();
                let value = self.plain(call.with(argument.child_by_field_name("value")?))?;
                Some((name, value))
            })
            .collect()
    }

    /// A number, text or truth; of a choice that a smoke test decides what holds without it.
    fn plain(&self, place: Place<'s>) -> Option<Value> {
        let place = self.resolve(place);
        let parts = children(place.node);
        if let ("conditional_expression", [_, condition, otherwise]) = (place.node.kind(), parts.as_slice())
            && self.by_smoke(*condition)
        {
            return self.plain(place.with(*otherwise));
        }
        if let Some(truth) = self.boolean(place) {
            return Some(truth.into());
        }
        if let Some(number) = self.number(place) {
            let whole = number.fract() == 0.0 && number.abs() < 1e15 && !self.text(place.node).contains(['.', 'e']);
            return Some(if whole { (number as i64).into() } else { number.into() });
        }
        // the values of enumerations are the names in small letters
        let chosen = || {
            let text = self.text(place.node);
            let parts = text.split_once('.').filter(|(class, _)| CHOICES.contains(class));
            parts.map(|_| self.word(place))
        };
        self.string(place).or_else(chosen).map(Value::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_out_is_found() {
        let text = "BASE = \"tiny\"\nSMOKE = os.environ.get(\"SMOKE_TEST\") == \"1\"\n\
                    def load():\n    return SentenceTransformer(BASE)\n\
                    def main():\n    model = load()\n    rate = 2e-5\n    loss = CoSENTLoss(model, scale=20.0)\n    \
                    arguments = SentenceTransformerTrainingArguments(output_dir=\"x\", seed=12, learning_rate=rate, \
                    max_steps=1 if SMOKE else 30, bf16=True, warmup_steps=unknown(), \
                    batch_sampler=BatchSamplers.NO_DUPLICATES, eval_strategy=\"steps\", data_seed=Mine.SEED)\n    \
                    trainer = SentenceTransformerTrainer(model=model, args=arguments, loss=loss)\n    trainer.train()\n\
                    main()\n";
        let found = Script::parse(Path::new("t.py"), text).unwrap().settings();
        let want = json!({
            "model.source.base.hub": "tiny", "train_dataset.0.loss.name": "CoSENTLoss",
            "train_dataset.0.loss.settings.scale": 20.0, "seed": 12, "args.learning_rate": 2e-5, "args.max_steps": 30,
            "args.bf16": true, "args.batch_sampler": "no_duplicates", "args.eval_strategy": "steps",
        });
        assert_eq!(Value::Object(found), want);
        assert!(Script::parse(Path::new("t.py"), "x = 1\n").unwrap().settings().is_empty());
    }
}
