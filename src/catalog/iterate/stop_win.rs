//! A win well above noise is what was wanted.

use super::noise::SEEDS;
use super::{Facts, Rule, Step};

/// Without an interval a win has to be this large: four times what two seeds make.
const CLEAR: f64 = 4.0 * SEEDS;

/// One run is the default; after a clear win more are for those who want to know how far it goes.
pub(super) const RULE: Rule = Rule {
    id: "stop-win",
    summary: "A WIN whose interval lies above zero (without an interval, of a score and of 0.02 or more) is enough, unless \
              more was asked for.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let Some(delta) = facts.run.delta.filter(|delta| *delta >= SEEDS && !facts.further) else { return Vec::new() };
    // whatever was tried about that
    if facts.run.is_dense() {
        return Vec::new();
    }
    let why = match facts.run.interval {
        Some([low, high]) if low > 0.0 => format!("95 % of the time between {low:+.4} and {high:+.4}"),
        // a loss has no scale of its own
        None if delta >= CLEAR && facts.run.greater_is_better => {
            format!("{:.0} times what two seeds make", delta / SEEDS)
        }
        _ => return Vec::new(),
    };
    let run = &facts.run.run_id;
    vec![Step::Stop(format!("run `{run}` is better than its base by {delta:+.4}, {why}; `--further` looks for more"))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, done};
    use super::*;

    #[test]
    fn only_a_clear_win_is_enough() {
        let mut case = Case::scored();
        let settings = case.history[0].settings.clone();
        for (score, interval, stops) in [
            (0.83, None, true),
            (0.815, None, false),
            (0.81, Some([0.002, 0.02]), true),
            (0.83, Some([-0.01, 0.07]), false),
            (0.804, Some([0.001, 0.007]), false),
        ] {
            case.history[0] = done("a", 0.8, score);
            case.history[0].settings = settings.clone();
            case.history[0].interval = interval;
            assert_eq!(case.propose().rule == RULE.id, stops, "{score} {interval:?}");
        }
        case.history[0] = done("a", 0.8, 0.9);
        assert!(case.propose().stop);
        case.history[0].greater_is_better = false;
        assert_ne!(case.propose().rule, RULE.id);
        case.history[0].greater_is_better = true;
        case.history[0].costs = vec![("active_dims".into(), 5000.0)];
        assert_ne!(case.propose().rule, RULE.id);
        case.history[0].costs.clear();
        case.further = true;
        assert_ne!(case.propose().rule, RULE.id);
    }
}
