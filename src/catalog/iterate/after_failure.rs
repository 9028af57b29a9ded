//! A run that did not come to its end is mended before anything is compared.

use super::learning_rate::{rounded, shown};
use super::{Change, Ended, Facts, Rule, Step, best};

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
    let change = match facts.run.number("args.learning_rate").filter(|_| diverged(message)) {
        Some(rate) => {
            let half = rounded(rate / 2.0);
            let what = format!("half the learning rate: {}", shown(half));
            Change::setting(what, "the loss was no number", "args.learning_rate", half).because(message.as_str())
        }
        None => Change::by_hand(format!("see to what stopped the run: {message}"), "it has no score to compare"),
    };
    let change = if change.tried(facts.history) { from_best(facts, message) } else { change };
    vec![Step::Change(change)]
}

/// Whether training made the loss no number. What comes of the first batch comes before the first update: no rate
/// changes it.
fn diverged(message: &str) -> bool {
    let lower = message.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    let first = lower.contains("the first batch") || lower.starts_with("step 1:");
    !first && (words.any(|word| matches!(word, "nan" | "infinite" | "inf")) || lower.contains("not finite"))
}

/// What is left where half the rate was tried.
fn from_best(facts: &Facts<'_>, message: &str) -> Change {
    let known = best(facts.history).filter(|past| past.merit().is_some() && past.run_id != facts.run.run_id);
    let what = match known {
        Some(past) => format!("go on from the best run: `tallow experiments propose {}`", past.run_id),
        None => "go on from the best run, or see to the rows that the message names".to_owned(),
    };
    Change::by_hand(what, "half the learning rate was tried").because(message)
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

    #[test]
    fn the_first_batch_is_no_matter_of_the_rate() {
        let mut case = Case::scored();
        case.history[0].score = None;
        for message in
            ["the first batch (loss NaN) gives a gradient that is not finite in `w`", "step 1: the loss is NaN"]
        {
            case.history[0].ended = Ended::Failed(message.into());
            let proposal = case.propose();
            assert!(proposal.rule == RULE.id && proposal.set.is_empty(), "{proposal:?}");
        }
    }

    #[test]
    fn a_rate_that_was_tried_is_not_tried_again() {
        let mut case = Case::scored();
        let mut half = case.history[0].clone();
        (half.run_id, half.score) = ("half".into(), Some(0.82));
        half.settings.insert("args.learning_rate".into(), 1e-5.into());
        (case.history[0].score, case.history[0].delta) = (None, None);
        case.history[0].ended = Ended::Failed("step 9: the loss is NaN".into());
        case.history.push(half);
        let about = |case: &Case| super::super::propose(&Facts { run: &case.history[0], ..case.facts() });
        let proposal = about(&case);
        assert!(
            proposal.rule == RULE.id && proposal.set.is_empty() && proposal.what.contains("propose half"),
            "{proposal:?}"
        );
        (case.history[1].score, case.history[1].delta) = (None, None);
        let proposal = about(&case);
        assert!(proposal.set.is_empty() && proposal.what.starts_with("go on from the best run, or"), "{proposal:?}");
    }
}
