//! A run that was still getting better when it ended.

use super::{Change, Facts, Past, Rule, Step};

/// From this part of the steps on a best model counts as the last.
const LATE: f64 = 0.8;
/// Epochs beyond which small data are learnt by heart.
const MOST_EPOCHS: f64 = 10.0;

/// Twice as long, where the best model was the last or only the last was kept, up to ten epochs.
pub(super) const RULE: Rule = Rule {
    id: "longer-training",
    summary: "Twice the epochs or steps where the best model was among the last and the score did not fall.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let run = facts.run;
    let rising = run.delta.is_some_and(|delta| delta >= 0.0) && run.best_at.is_some_and(|at| at >= LATE);
    if !rising {
        return Vec::new();
    }
    let why = "the score was still rising when the run ended";
    let at = run.best_at.unwrap_or(1.0) * 100.0;
    let seen = format!("the best model came at {at:.0} % of the steps");
    doubled(run, why).map(|change| Step::Change(change.because(seen))).into_iter().collect()
}

/// Twice as long, while that is not more than is worth it.
pub(super) fn doubled(run: &Past, why: &str) -> Option<Change> {
    match (run.number("args.max_steps"), run.number("args.num_train_epochs")) {
        (Some(steps), _) => {
            let doubled = steps * 2.0;
            Some(Change::setting(format!("twice as many steps: {doubled}"), why, "args.max_steps", doubled as u64))
        }
        (None, Some(epochs)) if epochs * 2.0 <= MOST_EPOCHS => {
            let doubled = epochs * 2.0;
            Some(Change::setting(format!("twice as many epochs: {doubled}"), why, "args.num_train_epochs", doubled))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn only_while_it_rises() {
        let mut case = Case::scored();
        assert!(look(&case.facts()).is_empty());
        case.history[0].best_at = Some(1.0);
        assert!(look(&case.facts()).is_empty(), "ten epochs are enough");
        case.history[0].settings.insert("args.num_train_epochs".into(), 2.0.into());
        assert!(matches!(&look(&case.facts())[..], [Step::Change(c)] if c.set[0].1 == 4.0));
        case.history[0].settings.insert("args.max_steps".into(), 30.into());
        assert!(matches!(&look(&case.facts())[..], [Step::Change(c)] if c.set[0].1 == 60));
        case.history[0].delta = Some(-0.1);
        assert!(look(&case.facts()).is_empty());
    }
}
