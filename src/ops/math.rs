//! exp, erf and tanh in f32 as branch-free polynomials, so that loops over them vectorise.

/// e^x, relative error below 2e-7 (Cephes' range reduction and polynomial); 0 below -87.3, finite above 88.
#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.336_54, 88.376_26);
    let n = (clamped * LOG2E + ROUND) - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 5.000_000_3e-1;
    let y = p * r * r + r + 1.0;
    // SAFETY-free trick: n is an integer between -126 and 128, shifted into the exponent in two halves.
    let k = n as i32;
    let half = k >> 1;
    let scale = f32::from_bits(((half + 127) << 23) as u32) * f32::from_bits(((k - half + 127) << 23) as u32);
    let y = y * scale;
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

/// erf(x), absolute error below 5e-7: the rational approximation on [-4, 4] that Eigen and XLA use.
#[inline(always)]
pub fn erf_f32(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_4e-10;
    p = p * s + 2.770_681_5e-8;
    p = p * s - 2.101_024_1e-6;
    p = p * s - 5.692_506_4e-5;
    p = p * s - 7.349_906_5e-4;
    p = p * s - 2.954_6e-3;
    p = p * s - 1.609_603_3e-2;
    let mut q = -1.456_607_2e-5;
    q = q * s - 2.133_740_6e-4;
    q = q * s - 1.682_827e-3;
    q = q * s - 7.373_329e-3;
    q = q * s - 1.426_473_9e-2;
    x * p / q
}

/// tanh(x) through e^(2x); absolute error below 4e-7.
#[inline(always)]
pub fn tanh_f32(x: f32) -> f32 {
    let magnitude = x.abs().min(15.0);
    // Near zero 1 - 2/(e+1) cancels, so a short series serves there.
    let e = exp_f32(2.0 * magnitude);
    let far = 1.0 - 2.0 / (e + 1.0);
    let s = magnitude * magnitude;
    let near = magnitude * (1.0 - s * (1.0 / 3.0 - s * (2.0 / 15.0)));
    let value = if magnitude < 0.06 { near } else { far };
    if x.is_nan() { x } else { value.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| low + (high - low) * i as f32 / 200_000.0)
    }

    #[test]
    fn exp_is_close() {
        for x in grid(-87.0, 88.0) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp_f32(x)) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}): relative error {error}");
        }
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert!(exp_f32(f32::NAN).is_nan());
        assert!(exp_f32(100.0) > 1e38);
    }

    #[test]
    fn erf_is_close() {
        for x in grid(-6.0, 6.0) {
            let error = (f64::from(erf_f32(x)) - libm::erf(f64::from(x))).abs();
            assert!(error < 5e-7, "erf({x}): error {error}");
        }
        assert!(erf_f32(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_close() {
        for x in grid(-20.0, 20.0).chain(grid(-0.1, 0.1)) {
            let error = (f64::from(tanh_f32(x)) - f64::from(x).tanh()).abs();
            assert!(error < 4e-7, "tanh({x}): error {error}");
        }
    }
}
