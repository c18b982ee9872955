//! The statistics of a figure: pure functions over repetitions.

use serde::Serialize;

/// The spread of some repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these values; none if there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { min, median, max })
    }
}

/// A number for arithmetic with measured ones.
#[allow(clippy::cast_precision_loss, reason = "numbers of objects and requests are far below 2^52")]
pub(crate) const fn float(count: usize) -> f64 {
    count as f64
}

/// Combines each repetition with the baseline that was taken beside it.
pub(crate) fn paired(measured: &[f64], baseline: &[f64], combine: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    measured.iter().zip(baseline).map(|(measured, baseline)| combine(*measured, *baseline)).collect()
}

/// The value that the share `quantile` (0 to 1) of all values does not exceed: the nearest rank. NaN if there are none.
pub(crate) fn quantile(values: &[f64], quantile: f64) -> f64 {
    let sorted = sorted(values);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank, which is at most the length")]
    let rank = (quantile * float(sorted.len())).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)]
}

/// The slope of the line that fits these points best: y for each x. 0 where no line fits.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = float(points.len());
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let (both, square) = points.iter().fold((0.0, 0.0), |(both, square), (x, y)| {
        ((x - mean_x).mul_add(y - mean_y, both), (x - mean_x).mul_add(x - mean_x, square))
    });
    if square > 0.0 { both / square } else { 0.0 }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "whole numbers, which are exact")]

    use super::*;

    #[test]
    fn a_spread_has_the_least_the_middle_and_the_most() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let of = |share| quantile(&values, share);
        assert_eq!([of(0.0), of(0.5), of(0.99), of(0.999), of(1.0)], [1.0, 500.0, 990.0, 999.0, 1000.0]);
        assert_eq!(quantile(&[7.0], 0.999), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn each_repetition_is_compared_with_its_own_baseline() {
        assert_eq!(paired(&[2.0, 9.0], &[1.0, 3.0], |measured, baseline| measured / baseline), [2.0, 3.0]);
    }

    #[test]
    fn a_slope_is_that_of_the_best_line() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 0.0), (2.0, 1.0)]), 0.0);
        assert_eq!([slope(&[]), slope(&[(1.0, 5.0)])], [0.0, 0.0]);
    }
}
