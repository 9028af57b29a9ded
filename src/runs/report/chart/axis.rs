//! Where do an axis' marks stand, and what is written at them?

/// Round numbers from `low` to `high`, at most `most` of them, with a step of 1, 2 or 5 times a power of ten.
#[must_use]
pub fn ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    if !(low.is_finite() && high.is_finite()) || high <= low || most < 2 {
        return if low.is_finite() { vec![low] } else { Vec::new() };
    }
    let mut step = step((high - low) / most as f64);
    loop {
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        let count = last - first + 1.0;
        if count <= most as f64 {
            return (0..count.max(0.0) as usize).map(|i| (first + i as f64) * step + 0.0).collect();
        }
        step = self::step(step * 1.01);
    }
}

/// The smallest of 1, 2 and 5 times powers of ten that is not below `size`.
#[must_use]
pub fn step(size: f64) -> f64 {
    if !size.is_finite() || size <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(size.log10().floor());
    // the power itself may be off by a bit
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= size * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A range around values, a little wider than they are; from 0 to 1 without a finite one.
#[must_use]
pub fn around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    if low > high {
        return (0.0, 1.0);
    }
    let spread = high - low;
    let margin = if spread > 1e-12 * high.abs().max(low.abs()) { 0.06 * spread } else { 0.05 * high.abs().max(1e-3) };
    // what is never negative does not look as if it could be
    (if low >= 0.0 { (low - margin).max(0.0) } else { low - margin }, high + margin)
}

/// The numbers at ticks, all with as many decimals as the distance between them asks for.
#[must_use]
pub fn labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let step = if step.is_finite() { step } else { ticks.first().map_or(1.0, |x| x.abs().max(1e-12)) };
    let most = ticks.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    ticks.iter().map(|value| label(*value, step, most)).collect()
}

fn label(value: f64, step: f64, most: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e9).contains(&most) {
        let power = most.log10().floor();
        return format!("{}e{power:.0}", trimmed(value / 10f64.powf(power), step / 10f64.powf(power)));
    }
    if most >= 1e6 {
        return format!("{}M", trimmed(value / 1e6, step / 1e6));
    }
    if most >= 10_000.0 {
        return format!("{}k", trimmed(value / 1e3, step / 1e3));
    }
    trimmed(value, step)
}

fn trimmed(value: f64, step: f64) -> String {
    let decimals = (0..8).find(|d| {
        let scaled = step * 10f64.powi(*d);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled.round() >= 1.0
    });
    format!("{value:.*}", decimals.unwrap_or(8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(low: f64, high: f64, most: usize) -> Vec<String> {
        labels(&ticks(low, high, most))
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(shown(0.0, 100.0, 6), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(shown(0.31, 0.74, 5), ["0.4", "0.5", "0.6", "0.7"]);
        assert_eq!(shown(0.712, 0.7186, 5), ["0.712", "0.714", "0.716", "0.718"]);
        assert_eq!(shown(-0.3, 0.3, 4), ["-0.2", "0.0", "0.2"].map(|x| if x == "0.0" { "0" } else { x }));
        assert_eq!(shown(0.0, 2.1e-5, 5), ["0", "0.5e-5", "1.0e-5", "1.5e-5", "2.0e-5"]);
        assert_eq!(shown(0.0, 42_000.0, 5), ["0", "10k", "20k", "30k", "40k"]);
        assert_eq!(shown(0.0, 3.0, 5), ["0", "1", "2", "3"]);
        assert_eq!(shown(0.97e30, 1.05e30, 5), ["0.98e30", "1.00e30", "1.02e30", "1.04e30"]);
        assert_eq!(shown(1e6, 3e6, 5), ["1.0M", "1.5M", "2.0M", "2.5M", "3.0M"]);
    }

    #[test]
    fn what_is_no_range_has_no_ticks_that_matter() {
        assert_eq!(ticks(1.0, 1.0, 5), [1.0]);
        assert!(ticks(f64::NAN, 1.0, 5).is_empty());
        assert_eq!(around([f64::NAN].into_iter()), (0.0, 1.0));
        let (low, high) = around([0.5, 0.5].into_iter());
        assert!(low < 0.5 && high > 0.5);
        assert_eq!(around([0.0, 1.0].into_iter()).0, 0.0, "no loss below nothing");
        for (low, high) in [(0.0, 1e-300), (-1e300, 1e300), (1.0, 1.0 + 1e-15)] {
            let ticks = ticks(low, high, 5);
            assert!(ticks.len() <= 5 && labels(&ticks).len() == ticks.len());
        }
    }
}
