//! A score that cannot rise says nothing about changes.

use super::noise::SEEDS;
use super::{Facts, Rule, Step};

/// Scores of at most 1 have no room above this.
const CEILING: f64 = 1.0 - SEEDS / 2.0;

/// Where the metric is near its end, no change can show: harder held-out rows are needed, not another run.
pub(super) const RULE: Rule = Rule {
    id: "stop-ceiling",
    summary: "A score of 0.9975 or more of 1 leaves nothing to measure: take harder held-out rows.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    match facts.run.score {
        Some(score) if facts.run.greater_is_better && (CEILING..=1.0).contains(&score) => {
            vec![Step::Stop(format!(
                "the score is {score:.4} of 1, so no change can show: measure on more and harder held-out rows"
            ))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, done};
    use super::*;

    #[test]
    fn only_the_end_of_the_scale_stops() {
        let mut case = Case::scored();
        for (score, stops) in [(1.0, true), (0.9976, true), (0.99, false), (37.0, false)] {
            case.history[0] = done("a", score - 0.001, score);
            assert_eq!(!look(&case.facts()).is_empty(), stops, "{score}");
        }
        case.history[0] = done("a", 1.0, 1.0);
        case.history[0].greater_is_better = false;
        assert!(look(&case.facts()).is_empty());
    }
}
