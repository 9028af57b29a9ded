//! Which rows does `train[:10%]+validation[5:]` mean? Those that Python's `datasets` takes.
//!
//! Source: `ReadInstruction` in `arrow_reader.py` of datasets.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::error::{Error, Result};

/// A split's name, bounds in brackets, and how percentages are rounded.
static TERM: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let bound = |name: &str| format!("(?:(?<{name}>-?[0-9][0-9_]*)(?<{name}_pct>%)?)?");
    let text =
        format!(r"^(?<split>[\w][\w.\-]*)(?<slice>\[{}:{}\])?(?:\((?<rounding>[^)]*)\))?$", bound("from"), bound("to"));
    Regex::new(&text).ok()
});

/// What splits may look like, for messages.
const FORMS: &str = "write a split's name, or some of its rows: `train[:1000]`, `train[1000:2000]`, `train[-500:]`, \
                     `train[10%:20%]`; or several with `+` between them: `train+validation[:50%]`";

/// How a percentage of rows becomes a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// To the nearest number, the even one of two.
    Closest,
    /// As many times a hundredth of the rows, rounded down, as there are percent.
    DropRemainder,
}

/// A split, or some of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The split's name.
    pub split: String,
    /// As written.
    text: String,
    from: Option<i64>,
    to: Option<i64>,
    /// Of bounds in percent.
    percent: Option<Rounding>,
}

/// The terms of a sum of splits.
///
/// # Errors
/// When it is none, with what it could be.
pub fn parse(text: &str) -> Result<Vec<Slice>> {
    let slices = text.split('+').map(|term| Slice::parse(term.trim())).collect::<Result<Vec<_>>>()?;
    let mut roundings = slices.iter().map(|slice| slice.percent);
    let first = roundings.next().flatten();
    if first.is_some() && roundings.flatten().any(|other| Some(other) != first) {
        return Err(Error::usage(format!("`{text}` rounds percentages in two ways"))
            .with_hint("write `(pct1_dropremainder)` behind all of its terms, or behind none"));
    }
    Ok(slices)
}

impl Slice {
    fn parse(term: &str) -> Result<Self> {
        let wrong = |why: &str| Error::usage(format!("`{term}` {why}")).with_hint(FORMS);
        let parts = TERM.as_ref().and_then(|term_of| term_of.captures(term)).ok_or_else(|| wrong("is no split"))?;
        let bound = |name: &str| match parts.name(name) {
            None => Ok(None),
            Some(number) => {
                let number = number.as_str().replace('_', "").parse::<i64>();
                number.map(Some).map_err(|_| wrong("has a bound that is too large"))
            }
        };
        let (from, to) = (bound("from")?, bound("to")?);
        let in_percent = parts.name("from_pct").or_else(|| parts.name("to_pct")).is_some();
        let percent = match parts.name("rounding").map(|rounding| rounding.as_str()) {
            Some(_) if !in_percent => return Err(wrong("says how to round, and has no percentage")),
            Some("pct1_dropremainder") => Some(Rounding::DropRemainder),
            Some("closest") | None => Some(Rounding::Closest).filter(|_| in_percent),
            Some(_) => return Err(wrong("is to be rounded neither `closest` nor `pct1_dropremainder`")),
        };
        if in_percent && [from, to].into_iter().flatten().any(|bound| bound.unsigned_abs() > 100) {
            return Err(wrong("goes beyond 100 %"));
        }
        Ok(Self { split: parts["split"].to_owned(), text: term.to_owned(), from, to, percent })
    }

    /// Whether it is the split as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// How many of the split's first rows it is, where it is some of its first rows.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        let to = self.to.filter(|_| self.percent.is_none() && self.from.unwrap_or(0) == 0)?;
        u64::try_from(to).ok().filter(|first| *first > 0)
    }

    /// The rows of a split that has `count`, from 0.
    ///
    /// # Errors
    /// When there are none, or too few for the way percentages are to be rounded.
    pub fn rows(&self, count: u64) -> Result<Range<u64>> {
        let all = i64::try_from(count).map_err(|_| Error::Internal(format!("{count} rows")))?;
        let place = |bound: i64| match self.percent {
            None => bound,
            // both factors are small enough for the product to be exact, as in Python
            Some(Rounding::Closest) => ((bound as f64 * all as f64) / 100.0).round_ties_even() as i64,
            Some(Rounding::DropRemainder) => bound * (all / 100),
        };
        if self.percent == Some(Rounding::DropRemainder) && all < 100 {
            return Err(Error::usage(format!(
                "`{}`: a hundredth of the {all} rows of `{}` is none",
                self.text, self.split
            ))
            .with_hint("leave `(pct1_dropremainder)` out"));
        }
        let within = |bound: i64| if bound < 0 { (all + bound).max(0) } else { bound.min(all) };
        let (from, to) = (within(self.from.map_or(0, place)), within(self.to.map_or(all, place)));
        if from >= to {
            return Err(
                Error::usage(format!("`{}` is none of the {all} rows of `{}`", self.text, self.split)).with_hint(FORMS)
            );
        }
        Ok(from.unsigned_abs()..to.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_told_from_what_is_none() {
        let one = |text: &str| parse(text).unwrap().remove(0);
        assert!(one("train").is_whole());
        assert_eq!(one("train[:1_000]").first(), Some(1000));
        assert_eq!(one("train[0:5]").first(), Some(5));
        for text in ["train[5:9]", "train[:10%]", "train[:-5]", "train[:0]", "train"] {
            assert_eq!(one(text).first(), None, "{text}");
        }
        assert_eq!(parse("train + dev[1:]").unwrap().len(), 2);
        for (text, why) in [
            ("", "is no split"),
            ("train[5]", "is no split"),
            ("train[:5", "is no split"),
            ("train[a:b]", "is no split"),
            ("train[:5] dev", "is no split"),
            ("train+", "is no split"),
            ("train[:101%]", "beyond 100 %"),
            ("train[-101%:]", "beyond 100 %"),
            ("train[:99999999999999999999]", "too large"),
            ("train[:5](closest)", "no percentage"),
            ("train[:5%](up)", "neither `closest`"),
            ("train[:5%]+dev[:5%](pct1_dropremainder)", "in two ways"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(why) && error.hint().is_some(), "{text}: {error}");
        }
        let none = one("train[60:]").rows(50).unwrap_err();
        assert_eq!(none.to_string(), "`train[60:]` is none of the 50 rows of `train`");
        assert!(one("train[:5%](pct1_dropremainder)").rows(99).unwrap_err().to_string().contains("a hundredth"));
    }
}
