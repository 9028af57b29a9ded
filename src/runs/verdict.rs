//! Did the run help? One word, one line, the same for every run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flow::Metrics;

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Better than before training by at least 0.005.
    Win,
    /// Not worse than before training.
    Marginal,
    /// Worse than before training, or not a number.
    Regression,
    /// Nothing to judge by: the run had no score, or none from before training.
    None,
}

impl Verdict {
    /// As on the verdict line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Win => "WIN",
            Self::Marginal => "MARGINAL",
            Self::Regression => "REGRESSION",
            Self::None => "NONE",
        }
    }
}

/// An improvement from here on is a win.
const WIN: f64 = 0.005;

/// The verdict with the numbers it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The metric's key, with `eval_` in front.
    pub metric: Option<String>,
    /// The metric after training.
    pub score: Option<f64>,
    /// The metric before training.
    pub baseline: Option<f64>,
    /// The improvement: `score - baseline`, or `baseline - score` where less is better (`eval_loss`), so that a
    /// positive delta is always good news.
    pub delta: Option<f64>,
    /// Where the delta lies at 95 %, by a paired bootstrap over what the metric is made of; `None` where that is not
    /// known.
    #[serde(default)]
    pub delta_interval: Option<[f64; 2]>,
    /// What the score costs, name and value: the active dimensions of sparse embeddings.
    #[serde(default)]
    pub costs: Vec<(String, f64)>,
}

/// What the score of sparse embeddings has to be read with, where metrics have it.
const COSTS: [&str; 3] = ["query_active_dims", "corpus_active_dims", "active_dims"];

impl Judgement {
    /// Judges a score against the one before training.
    ///
    /// The difference is rounded to nine decimals first, so that 0.505 against 0.5 is the 0.005 it reads as.
    /// Without a score or a baseline the verdict is `NONE`, which no script can take for a win; a score that is
    /// not a number is a regression.
    #[must_use]
    pub fn new(metric: Option<&str>, score: Option<f64>, baseline: Option<f64>, greater_is_better: bool) -> Self {
        let delta = match (score, baseline) {
            (Some(score), Some(baseline)) => {
                let gain = if greater_is_better { score - baseline } else { baseline - score };
                // adding zero turns -0 into 0
                Some((gain * 1e9).round() / 1e9 + 0.0)
            }
            _ => None,
        };
        let verdict = match delta {
            None => Verdict::None,
            Some(d) if d >= WIN => Verdict::Win,
            Some(d) if d >= 0.0 => Verdict::Marginal,
            Some(_) => Verdict::Regression,
        };
        Self {
            verdict,
            metric: metric.map(str::to_owned),
            score,
            baseline,
            delta,
            delta_interval: None,
            costs: Vec::new(),
        }
    }

    /// With the interval of the delta. The verdict stays as it is: it is about this data, the interval about more.
    #[must_use]
    pub fn with_interval(mut self, delta_interval: Option<[f64; 2]>) -> Self {
        self.delta_interval = delta_interval;
        self
    }

    /// With the active dimensions among the metrics of the evaluator that decides.
    #[must_use]
    pub fn with_costs(mut self, metrics: &Metrics) -> Self {
        let metric = self.metric.as_deref().unwrap_or_default();
        let metric = metric.strip_prefix("eval_").unwrap_or(metric);
        for name in COSTS {
            // an evaluator's name, which may have underscores of its own, is what keys have in common
            let ours = |key: &str| {
                let evaluator = key.strip_suffix(name)?;
                let known = ["query_", "corpus_", "anchor_", "positive_", "negative_"];
                (metric.starts_with(evaluator) && !known.iter().any(|group| evaluator.ends_with(group)))
                    .then_some(evaluator.len())
            };
            let found = metrics.values.iter().filter_map(|(key, value)| Some((ours(key)?, *value)));
            // the longest name fits best; the empty one fits all
            if let Some((_, value)) = found.max_by_key(|(length, _)| *length) {
                self.costs.push((name.to_owned(), value));
            }
        }
        self
    }

    /// `95 % interval of the delta: -0.0021 to +0.0105, within noise`; `None` without an interval.
    #[must_use]
    pub fn interval_line(&self) -> Option<String> {
        let [low, high] = self.delta_interval?;
        let noise = if low <= 0.0 && high >= 0.0 { ", within noise" } else { "" };
        Some(format!("95 % interval of the delta: {low:+.4} to {high:+.4}{noise}"))
    }

    /// `VERDICT: WIN | score=0.8123 | baseline=0.8000 | delta=+0.0123`; what is missing reads `n/a`. Sparse embeddings
    /// have ` | query_active_dims=31.4 | corpus_active_dims=88.0` behind it.
    #[must_use]
    pub fn line(&self) -> String {
        let plain = |x: Option<f64>| x.map_or_else(|| "n/a".to_owned(), |x| format!("{x:.4}"));
        let signed = self.delta.map_or_else(|| "n/a".to_owned(), |d| format!("{d:+.4}"));
        let costs: String = self.costs.iter().map(|(name, value)| format!(" | {name}={value:.1}")).collect();
        format!(
            "VERDICT: {} | score={} | baseline={} | delta={signed}{costs}",
            self.verdict.name(),
            plain(self.score),
            plain(self.baseline)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(score: f64, baseline: f64, greater: bool) -> String {
        Judgement::new(Some("eval_x"), Some(score), Some(baseline), greater).line()
    }

    #[test]
    fn thresholds_and_line() {
        assert_eq!(judge(0.505, 0.5, true), "VERDICT: WIN | score=0.5050 | baseline=0.5000 | delta=+0.0050");
        assert_eq!(judge(0.5049, 0.5, true), "VERDICT: MARGINAL | score=0.5049 | baseline=0.5000 | delta=+0.0049");
        assert_eq!(judge(0.5, 0.5, true), "VERDICT: MARGINAL | score=0.5000 | baseline=0.5000 | delta=+0.0000");
        assert_eq!(judge(0.4, 0.5, true), "VERDICT: REGRESSION | score=0.4000 | baseline=0.5000 | delta=-0.1000");
    }

    #[test]
    fn intervals_that_cover_zero_are_noise() {
        let judged = |interval| Judgement::new(Some("eval_x"), Some(0.6), Some(0.5), true).with_interval(interval);
        assert_eq!(judged(None).interval_line(), None);
        let line = judged(Some([-0.1, 0.3])).interval_line().unwrap_or_default();
        assert_eq!(line, "95 % interval of the delta: -0.1000 to +0.3000, within noise");
        let line = judged(Some([0.05, 0.3])).interval_line().unwrap_or_default();
        assert_eq!(line, "95 % interval of the delta: +0.0500 to +0.3000");
    }

    #[test]
    fn active_dimensions_of_the_evaluator_that_decides() {
        let mut metrics = Metrics::default();
        for (key, value) in [
            ("a_dot_ndcg@10", 0.6),
            ("a_query_active_dims", 10.0),
            ("a_corpus_active_dims", 20.0),
            ("a_b_dot_ndcg@10", 0.6),
            ("a_b_query_active_dims", 30.0),
            ("a_b_corpus_active_dims", 40.25),
            ("sts_spearman_cosine", 0.6),
            ("sts_active_dims", 50.0),
        ] {
            metrics.push(key, value);
        }
        let line = |metric| Judgement::new(Some(metric), Some(0.6), Some(0.5), true).with_costs(&metrics).line();
        let judged = "VERDICT: WIN | score=0.6000 | baseline=0.5000 | delta=+0.1000";
        assert_eq!(line("eval_a_dot_ndcg@10"), format!("{judged} | query_active_dims=10.0 | corpus_active_dims=20.0"));
        assert_eq!(
            line("eval_a_b_dot_ndcg@10"),
            format!("{judged} | query_active_dims=30.0 | corpus_active_dims=40.2")
        );
        assert_eq!(line("eval_sts_spearman_cosine"), format!("{judged} | active_dims=50.0"));
        assert_eq!(line("eval_loss"), judged);
    }

    #[test]
    fn a_falling_loss_is_good_news() {
        assert_eq!(judge(0.4, 0.5, false), "VERDICT: WIN | score=0.4000 | baseline=0.5000 | delta=+0.1000");
        assert!(judge(0.6, 0.5, false).contains("REGRESSION"));
    }

    #[test]
    fn nothing_to_judge_by_is_never_a_win() {
        let none = Judgement::new(None, None, None, true);
        assert_eq!(none.line(), "VERDICT: NONE | score=n/a | baseline=n/a | delta=n/a");
        assert_eq!(Judgement::new(Some("eval_x"), Some(0.9), None, true).verdict, Verdict::None);
        assert!(judge(f64::NAN, 0.5, true).contains("REGRESSION"));
        assert!(judge(f64::NAN, 0.5, false).contains("REGRESSION"));
    }
}
