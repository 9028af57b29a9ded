//! Numbers of steps as recipes give them: whole numbers, or below 1 a fraction of the run.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of steps, or a fraction of all steps; in recipes a number, below 1 a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interval {
    /// So many optimizer steps.
    Steps(u64),
    /// This part of all optimizer steps, in `0.0..1.0`.
    Fraction(f64),
}

impl Interval {
    /// From a number as recipes have it.
    ///
    /// # Errors
    /// The text says what is wrong with the number: negative, not finite, or above 1 and not whole.
    pub fn from_number(number: f64) -> std::result::Result<Self, &'static str> {
        if !number.is_finite() {
            Err("must be a finite number")
        } else if number < 0.0 {
            Err("must not be negative")
        } else if number == 0.0 {
            Ok(Self::Steps(0))
        } else if number < 1.0 {
            Ok(Self::Fraction(number))
        } else if number.fract() != 0.0 || number > 1e15 {
            Err("must be a whole number of steps, or a fraction below 1")
        } else {
            Ok(Self::Steps(number as u64))
        }
    }

    /// In optimizer steps, for a run of `total`: fractions are rounded up, as the Trainer does.
    #[must_use]
    pub fn resolve(self, total: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Fraction(fraction) => (total as f64 * fraction).ceil() as u64,
        }
    }

    /// As the number recipes have.
    #[must_use]
    pub fn number(self) -> f64 {
        match self {
            Self::Steps(steps) => steps as f64,
            Self::Fraction(fraction) => fraction,
        }
    }

    /// Whether it is no step at all.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.number() == 0.0
    }

    /// Whether this is `other` times a whole number, both being steps or both fractions; the Trainer's test for
    /// `save_steps` and `eval_steps`.
    #[must_use]
    pub fn is_multiple_of(self, other: Self) -> bool {
        self.ratio(other).is_some()
    }

    /// How many times `other` this is, where that is a whole number and both are steps or both fractions.
    #[must_use]
    pub fn ratio(self, other: Self) -> Option<u64> {
        match (self, other) {
            (Self::Steps(a), Self::Steps(b)) => (b > 0 && a > 0 && a % b == 0).then(|| a / b),
            (Self::Fraction(a), Self::Fraction(b)) => {
                let ratio = (a / b).round();
                (b > 0.0 && ratio >= 1.0 && (a / b - ratio).abs() < 1e-6).then_some(ratio as u64)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => steps.fmt(f),
            Self::Fraction(fraction) => fraction.fmt(f),
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps),
            Self::Fraction(fraction) => serializer.serialize_f64(*fraction),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_number(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// When something is done: `"no"`, `"epoch"`, or every so many steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Every {
    /// Never, but see [`super::steps::Cadence::due_at`] for the end of the run.
    No,
    /// At the end of each epoch, and where the run ends.
    Epoch,
    /// Every so many optimizer steps, and where the run ends.
    Steps(Interval),
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::Epoch => f.write_str("each epoch"),
            Self::Steps(Interval::Steps(n)) => write!(f, "every {n} steps"),
            Self::Steps(Interval::Fraction(x)) => write!(f, "every {x} of all steps"),
        }
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_str("no"),
            Self::Epoch => serializer.serialize_str("epoch"),
            Self::Steps(interval) => interval.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl Of {
            fn number<E: de::Error>(number: f64) -> Result<Every, E> {
                Interval::from_number(number).map(Every::Steps).map_err(E::custom)
            }
        }
        impl Visitor<'_> for Of {
            type Value = Every;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`no`, `epoch` or a number of steps")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Every, E> {
                match text {
                    "no" => Ok(Every::No),
                    "epoch" => Ok(Every::Epoch),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Every, E> {
                Self::number(number as f64)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Every, E> {
                Self::number(number as f64)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Every, E> {
                Self::number(number)
            }
        }
        deserializer.deserialize_any(Of)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn every(number: f64) -> Every {
        Every::Steps(Interval::from_number(number).unwrap())
    }

    #[test]
    fn fractions_round_up() {
        let f = |x: f64, total| Interval::from_number(x).unwrap().resolve(total);
        assert_eq!([f(0.1, 25), f(0.05, 125), f(0.1, 100), f(7.0, 100), f(0.0, 9)], [3, 7, 10, 7, 0]);
        assert_eq!(f(1.0, 100), 1);
        for bad in [-1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Interval::from_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn multiples_compare_like_with_like() {
        let i = |x| Interval::from_number(x).unwrap();
        assert!(i(0.3).is_multiple_of(i(0.1)));
        assert!(i(100.0).is_multiple_of(i(50.0)));
        assert!(!i(0.25).is_multiple_of(i(0.1)));
        assert!(!i(100.0).is_multiple_of(i(0.1)));
        assert!(!i(50.0).is_multiple_of(i(100.0)));
    }

    #[test]
    fn intervals_are_numbers_in_files() {
        for (value, text) in
            [(every(0.1), "0.1"), (every(50.0), "50"), (Every::No, "\"no\""), (Every::Epoch, "\"epoch\"")]
        {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<Every>(text).unwrap(), value);
        }
        assert!(serde_json::from_str::<Every>("\"often\"").is_err());
        assert!(serde_json::from_str::<Interval>("-3").is_err());
    }
}
