//! The time that was given is used up.

use super::{Facts, Rule, Step};
use crate::util::clock;

/// Another run as long as the one it goes on from must fit into what is left.
pub(super) const RULE: Rule = Rule {
    id: "stop-budget",
    summary: "Where a budget is given, a run is proposed only while one more of the same length fits into it.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let Some(budget) = facts.budget_s else { return Vec::new() };
    let spent: f64 = facts.history.iter().filter_map(|past| past.seconds).sum();
    let next = facts.run.seconds.unwrap_or(0.0);
    if spent + next <= budget {
        return Vec::new();
    }
    vec![Step::Stop(format!(
        "the runs so far took {}, and another {} do not fit into {}",
        clock::human(spent),
        clock::human(next),
        clock::human(budget)
    ))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::RULE;

    #[test]
    fn one_more_must_fit() {
        let mut case = Case::scored();
        for (budget_s, stops) in [(None, false), (Some(120.0), false), (Some(119.0), true)] {
            case.budget_s = budget_s;
            assert_eq!(case.propose().rule == RULE.id, stops, "{budget_s:?}");
        }
    }
}
