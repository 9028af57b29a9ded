//! The CSV files a run keeps of its evaluations: file names, headers and columns are the reference's.

use crate::flow::Metrics;

/// A file that gets a row at each evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csv {
    /// The file's name.
    pub file: String,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    header: String,
    key: String,
    negated: bool,
}

impl Csv {
    /// A file without columns; `None` where the setting `write_csv` says so.
    #[must_use]
    pub fn new(write_csv: Option<bool>, file: String) -> Option<Self> {
        // A name may hold what is no file name.
        let file = file.replace(['/', '\\'], "_");
        write_csv.unwrap_or(true).then_some(Self { file, columns: Vec::new() })
    }

    /// Appends the column `header`, which holds the metric `key`.
    #[must_use]
    pub fn column(mut self, header: impl Into<String>, key: impl Into<String>) -> Self {
        self.columns.push(Column { header: header.into(), key: key.into(), negated: false });
        self
    }

    /// Appends the column `header`, which holds the metric `key` with the other sign.
    #[must_use]
    pub fn negated(mut self, header: impl Into<String>, key: impl Into<String>) -> Self {
        self.columns.push(Column { header: header.into(), key: key.into(), negated: true });
        self
    }

    /// The first line, without its end.
    #[must_use]
    pub fn header(&self) -> String {
        let columns = self.columns.iter().map(|column| quoted(&column.header));
        ["epoch".to_owned(), "steps".to_owned()].into_iter().chain(columns).collect::<Vec<_>>().join(",")
    }

    /// The line of an evaluation, without its end.
    #[must_use]
    pub fn row(&self, epoch: f64, steps: u64, metrics: &Metrics) -> String {
        let values = self.columns.iter().map(|column| {
            let detail = || metrics.details.iter().find(|(key, _)| *key == column.key).map(|(_, value)| *value);
            let value = metrics.get(&column.key).or_else(detail).unwrap_or(f64::NAN);
            number(if column.negated { -value } else { value })
        });
        [number(epoch), steps.to_string()].into_iter().chain(values).collect::<Vec<_>>().join(",")
    }
}

fn number(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:?}") }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_the_header() {
        let csv = Csv::new(None, "mse_evaluation_a/b_results.csv".to_owned()).unwrap();
        let csv = csv.negated("MSE", "negative_mse").column("x", "x");
        assert_eq!(csv.file, "mse_evaluation_a_b_results.csv");
        let mut metrics = Metrics::default();
        metrics.push("negative_mse", -1.0);
        metrics.push("x", f64::NAN);
        assert_eq!(csv.header(), "epoch,steps,MSE,x");
        assert_eq!(csv.row(0.5, 20, &metrics), "0.5,20,1.0,nan");
        assert_eq!(Csv::new(Some(false), String::new()), None);
    }
}
