//! Half or twice the learning rate.

use super::{Change, Facts, Rule, Step};

/// The least of adapters and of random static vectors, and what is usual.
const ADAPTERS: [f64; 2] = [1e-4, 2e-4];
const STATIC: [f64; 2] = [5e-2, 2e-1];
/// A best model before this part of the steps says that the rate is high, one after that that it is not.
const EARLY: f64 = 0.35;
const LATE: f64 = 0.8;

/// Adapters and static vectors first get what is usual for them. Else half, where the best model came early or the run made
/// things worse, and twice where it did not; then the other.
pub(super) const RULE: Rule = Rule {
    id: "learning-rate",
    summary: "What is usual for adapters and static vectors where the rate is far below; else half where the best model came \
              early or the score fell, twice otherwise, then the other.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let key = "args.learning_rate";
    let Some(rate) = facts.run.number(key).filter(|rate| *rate > 0.0 && rate.is_finite()) else { return Vec::new() };
    let usual = if facts.run.has_table("model.lora") {
        Some((ADAPTERS, "adapters learn slowly"))
    } else if ["static_embedding", "static_embedding_and_tokenizer"]
        .iter()
        .any(|source| facts.run.has_table(&format!("model.source.{source}")))
    {
        Some((STATIC, "static vectors are each seen rarely"))
    } else {
        None
    };
    let mut steps = Vec::new();
    if let Some(([least, usual], why)) = usual
        && rate < least
    {
        let what = format!("the learning rate that is usual here: {}", shown(usual));
        steps.push(Step::Change(Change::setting(what, why, key, usual).because(format!("it was {}", shown(rate)))));
    }
    let half = Change::setting(
        format!("half the learning rate: {}", shown(rounded(rate / 2.0))),
        "a rate that is too high unlearns what the base knows",
        key,
        rounded(rate / 2.0),
    );
    let double = Change::setting(
        format!("twice the learning rate: {}", shown(rounded(rate * 2.0))),
        "a rate that is too low leaves the base as it is",
        key,
        rounded(rate * 2.0),
    );
    let early = facts.run.best_at.filter(|at| *at <= EARLY);
    let fell = facts.run.delta.is_some_and(|delta| delta < 0.0);
    let evidence = match (early, facts.run.best_at.filter(|at| *at >= LATE)) {
        (Some(at), _) => format!("the best model came at {:.0} % of the steps", at * 100.0),
        (_, Some(at)) => format!("the best model came late, at {:.0} % of the steps", at * 100.0),
        _ if fell => "the score fell".to_owned(),
        _ => "the score hardly moved".to_owned(),
    };
    let order = if early.is_some() || fell { [half, double] } else { [double, half] };
    let [first, second] = order;
    steps.push(Step::Change(first.because(evidence)));
    steps.push(Step::Change(second.because("the other direction was tried")));
    steps
}

/// To three digits, so that halves of doubles meet.
pub(super) fn rounded(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().unwrap_or(rate)
}

/// `2e-5`.
pub(super) fn shown(rate: f64) -> String {
    format!("{rate:e}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::super::testing::Case;
    use super::*;

    fn rates(case: &Case) -> Vec<f64> {
        let rate = |step: &Step| match step {
            Step::Change(change) => change.set[0].1.as_f64().unwrap_or(f64::NAN),
            Step::Stop(why) => panic!("{why}"),
        };
        look(&case.facts()).iter().map(rate).collect()
    }

    #[test]
    fn the_direction_goes_by_when_the_best_came() {
        let mut case = Case::scored();
        assert_eq!(rates(&case), [4e-5, 1e-5]);
        case.history[0].best_at = Some(0.1);
        assert_eq!(rates(&case), [1e-5, 4e-5]);
        (case.history[0].best_at, case.history[0].delta) = (None, Some(-0.1));
        assert_eq!(rates(&case), [1e-5, 4e-5]);
        case.history[0].settings.insert("model.lora.r".into(), 8.into());
        assert_eq!(rates(&case), [2e-4, 1e-5, 4e-5]);
        assert_eq!(rounded(3e-5 / 2.0), 1.5e-5);
    }
}
