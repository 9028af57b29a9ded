//! A run that did not come to its end is mended before anything is compared.

use super::learning_rate::{rounded, shown};
use super::{Change, Ended, Facts, Rule, Step};

/// A run whose loss is no number learns too fast: half the rate, before anything else. Other failures say what stopped
/// them, and a run that was stopped goes on.
pub(super) const RULE: Rule = Rule {
    id: "after-failure",
    summary: "A run that failed is mended first: half the learning rate where the loss was no number; one that was stopped \
              is resumed.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let message = match &facts.run.ended {
        Ended::Done => return Vec::new(),
        Ended::Cancelled => {
            let what = format!("go on with it: `tallow run --resume {}`", facts.run.run_id);
            return vec![Step::Change(Change::by_hand(
                what,
                "it was stopped before its end, and ends at the same bits",
            ))];
        }
        Ended::Failed(message) => message,
    };
    let lower = message.to_lowercase();
    let words = || lower.split(|c: char| !c.is_alphanumeric());
    let diverged = words().any(|word| matches!(word, "nan" | "infinite" | "inf")) || lower.contains("not finite");
    let change = match facts.run.number("args.learning_rate").filter(|_| diverged) {
        Some(rate) => {
            let half = rounded(rate / 2.0);
            let what = format!("half the learning rate: {}", shown(half));
            Change::setting(what, "the loss was no number", "args.learning_rate", half).because(message.as_str())
        }
        None => Change::by_hand(format!("see to what stopped the run: {message}"), "it has no score to compare"),
    };
    vec![Step::Change(change)]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn a_loss_that_is_no_number_halves_the_rate() {
        let mut case = Case::scored();
        case.history[0].score = None;
        case.history[0].ended = Ended::Failed("the loss is NaN at step 3".into());
        let proposal = case.propose();
        assert_eq!((proposal.rule.as_str(), &proposal.set["args.learning_rate"]), (RULE.id, &1e-5.into()));
        case.history[0].ended = Ended::Failed("the finance column is missing".into());
        let proposal = case.propose();
        assert!(proposal.set.is_empty() && proposal.what.contains("finance"), "{proposal:?}");
        case.history[0].ended = Ended::Cancelled;
        assert!(case.propose().what.contains("--resume first"));
    }
}
