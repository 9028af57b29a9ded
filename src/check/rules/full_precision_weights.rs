//! Weights and the optimizer's state stay in f32; half precision is for the arithmetic.

use super::{Finding, OfRecipes, Rule, Script};

pub(in crate::check) const RULE: Rule = Rule {
    id: "full-precision-weights",
    summary: "The trained weights are f32: half precision is `bf16=True` or `fp16=True` of the training arguments.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    // frozen weights may be of any precision: adapters beside them are f32
    if run.calls().any(|seen| ["add_adapter", "get_peft_model", "LoraConfig"].contains(&run.name(seen))) {
        return Vec::new();
    }
    let half = |text: &str| {
        ["bfloat16", "float16", "\"fp16\"", "\"bf16\"", "torch.half"].iter().any(|name| text.contains(name))
    };
    let mut findings = Vec::new();
    for trainer in run.trainers() {
        let Some((_, call)) = run.argument_of(trainer, "model", Some(0)).and_then(|model| run.made(model)) else {
            continue;
        };
        let Some(options) = run.argument_of(call, "model_kwargs", None) else { continue };
        for key in ["torch_dtype", "dtype"] {
            if let Some(value) = run.entry(options, key).filter(|value| half(run.text(run.resolve(*value).node))) {
                findings.push(Finding::new(
                    value.line(),
                    "the weights are loaded in half precision, and the optimizer's small steps are lost in it",
                    format!("leave out `{key}`, and set `bf16=True` in the training arguments"),
                ));
            }
        }
    }
    findings
}
