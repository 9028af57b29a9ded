//! Three changes in a row that brought nothing.

use super::{Facts, Past, Rule, Step, best, noise};

/// Runs in a row.
const PATIENCE: usize = 3;

/// When the last three runs brought no gain above noise over the best before them, a fourth seldom does.
pub(super) const RULE: Rule = Rule {
    id: "stop-no-gain",
    summary: "Three runs in a row without a gain above noise over the best before them end the series.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let scored: Vec<Past> =
        facts.history.iter().filter(|past| past.merit().is_some() && !past.is_dense()).cloned().collect();
    let Some((before, last)) = scored.len().checked_sub(PATIENCE).and_then(|at| scored.split_at_checked(at)) else {
        return Vec::new();
    };
    let Some(best) = best(before) else { return Vec::new() };
    let gains = |past: &Past| noise::gain(best, past).is_some_and(|found| found.gain >= found.noise);
    if last.iter().any(gains) {
        return Vec::new();
    }
    let names: Vec<String> = last.iter().map(|past| format!("`{}`", past.run_id)).collect();
    vec![Step::Stop(format!(
        "the last {PATIENCE} runs ({}) brought nothing over `{}`: other data are what is left",
        names.join(", "),
        best.run_id
    ))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, done};
    use super::*;

    #[test]
    fn three_without_gain_above_noise() {
        let mut case = Case::scored();
        case.history = vec![done("a", 0.5, 0.6)];
        for (name, score) in [("b", 0.602), ("c", 0.59), ("d", 0.604)] {
            assert!(look(&case.facts()).is_empty());
            case.history.push(done(name, 0.5, score));
        }
        assert!(matches!(&look(&case.facts())[..], [Step::Stop(why)] if why.contains("over `a`")));
        // one of the three was better: the series goes on
        case.history[2] = done("c", 0.5, 0.61);
        assert!(look(&case.facts()).is_empty());
    }
}
