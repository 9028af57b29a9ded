//! Which row of a table of distances belongs to a key so far from its query? T5's buckets, which MPNet has, too.

/// The row for a key that stands `distance` places behind its query (before it, if negative): a row for each of the
/// first few, then one for distances that grow by a factor, all from `farthest` on being one; those behind have a half
/// of their own. `buckets` is a multiple of 4.
#[must_use]
pub fn bucket(distance: i64, buckets: usize, farthest: usize) -> u32 {
    let half = (buckets / 2) as u32;
    let exact = half / 2;
    let far = distance.unsigned_abs();
    let behind = if distance > 0 { half } else { 0 };
    if far < u64::from(exact) {
        return behind + far as u32;
    }
    // in f32, as there: what falls on a border depends on it
    let part = (far as f32 / exact as f32).ln() / (farthest as f32 / exact as f32).ln() * (half - exact) as f32;
    behind + (exact + part as u32).min(half - 1)
}

/// The rows of all distances in a text of so many tokens, from the last token before the first to the reverse.
#[must_use]
pub fn rows(longest: usize, buckets: usize, farthest: usize) -> Vec<u32> {
    let reach = longest.saturating_sub(1) as i64;
    (-reach..=reach).map(|distance| bucket(distance, buckets, farthest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_a_row_each_and_far_ones_share() {
        // both sides of every border that transformers' function has
        let rows: Vec<u32> = [0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 5000]
            .map(|distance| bucket(distance, 32, 128))
            .to_vec();
        assert_eq!(rows, [0, 17, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 31]);
        let before: Vec<u32> = [-1, -7, -8, -12, -127, -128, -5000].map(|distance| bucket(distance, 32, 128)).to_vec();
        assert_eq!(before, [1, 7, 8, 9, 15, 15, 15]);
    }

    #[test]
    fn a_text_has_all_distances() {
        assert_eq!(rows(3, 32, 128), [2, 1, 0, 17, 18]);
        assert_eq!(rows(0, 32, 128), [0]);
    }
}
