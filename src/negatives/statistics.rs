//! How far apart positives and negatives lie.

use schemars::JsonSchema;
use serde::Serialize;

use crate::util::numbers::thousands;

/// Scores of positives and negatives, and their differences.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Statistics {
    /// Of positives, each pair once.
    pub positive: Spread,
    /// Of negatives, once for each positive they stand beside.
    pub negative: Spread,
    /// A positive's score less the negative's.
    pub difference: Spread,
}

/// One figure of a spread.
type Figure = fn(&Spread) -> Option<f64>;

/// How values are spread; what cannot be told of so few is missing.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Spread {
    /// How many values.
    pub count: usize,
    pub mean: Option<f64>,
    /// The lower of the two in the middle, as PyTorch has it.
    pub median: Option<f64>,
    /// From the mean, divided by one less than their number.
    pub std: Option<f64>,
    pub min: Option<f64>,
    /// A quarter is below.
    #[serde(rename = "25%")]
    pub lower: Option<f64>,
    /// Half is below, between the two in the middle.
    #[serde(rename = "50%")]
    pub middle: Option<f64>,
    /// Three quarters are below.
    #[serde(rename = "75%")]
    pub upper: Option<f64>,
    pub max: Option<f64>,
}

impl Statistics {
    pub(super) fn new(positives: Vec<f32>, negatives: Vec<f32>, differences: Vec<f32>) -> Self {
        Self {
            positive: Spread::new(positives),
            negative: Spread::new(negatives),
            difference: Spread::new(differences),
        }
    }

    /// A table for people, a line a figure.
    #[must_use]
    pub fn table(&self) -> Vec<String> {
        let row = |name: &str, cells: [String; 3]| {
            format!("{name:<6} {:>14} {:>14} {:>14}", cells[0], cells[1], cells[2]).trim_end().to_owned()
        };
        let all = [&self.positive, &self.negative, &self.difference];
        let mut lines = vec![row("Metric", ["Positive", "Negative", "Difference"].map(str::to_owned))];
        let counts = [thousands(all[0].count), thousands(all[1].count), String::new()];
        lines.push(row("Count", counts));
        let figures: [(&str, Figure); 8] = [
            ("Mean", |s| s.mean),
            ("Median", |s| s.median),
            ("Std", |s| s.std),
            ("Min", |s| s.min),
            ("25%", |s| s.lower),
            ("50%", |s| s.middle),
            ("75%", |s| s.upper),
            ("Max", |s| s.max),
        ];
        for (name, of) in figures {
            lines.push(row(name, all.map(|spread| of(spread).map_or("-".to_owned(), |value| format!("{value:.4}")))));
        }
        lines
    }
}

impl Spread {
    fn new(mut values: Vec<f32>) -> Self {
        values.sort_by(f32::total_cmp);
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64);
        let std = mean.filter(|_| count > 1).map(|mean| {
            let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
            (squares / (count - 1) as f64).sqrt()
        });
        let at = |part: f64| -> Option<f64> {
            let place = part * count.saturating_sub(1) as f64;
            let low = f64::from(*values.get(place.floor() as usize)?);
            let high = f64::from(*values.get(place.ceil() as usize)?);
            Some(low + (high - low) * place.fract())
        };
        let median = values.get(count.saturating_sub(1) / 2).map(|x| f64::from(*x));
        Self { count, mean, median, std, min: at(0.0), lower: at(0.25), middle: at(0.5), upper: at(0.75), max: at(1.0) }
    }
}
