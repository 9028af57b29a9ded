//! Without a score from before and after there is nothing to improve on.

use super::{Change, Ended, Facts, Rule, Step};

/// A run without a verdict says nothing: the next one needs held-out rows and an evaluator.
pub(super) const RULE: Rule = Rule {
    id: "no-verdict",
    summary: "A run without a score before and after needs an evaluator on held-out rows before anything is changed.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    // one that did not come to its end has no score whatever is held out
    if facts.run.delta.is_some() || facts.run.ended != Ended::Done {
        return Vec::new();
    }
    let what = "hold rows out and add an `[[evaluator]]`, which `tallow recommend --eval` writes";
    vec![Step::Change(Change::by_hand(what, "there is no score from before and after training"))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn scores_come_first() {
        let mut case = Case::scored();
        assert_ne!(case.propose().rule, RULE.id);
        (case.history[0].delta, case.history[0].baseline) = (None, None);
        let proposal = case.propose();
        assert!(proposal.rule == RULE.id && !proposal.stop && proposal.set.is_empty(), "{proposal:?}");
        for ended in [Ended::Cancelled, Ended::Failed("step 9: the loss is NaN".into())] {
            case.history[0].ended = ended;
            assert!(look(&case.facts()).is_empty());
        }
    }
}
