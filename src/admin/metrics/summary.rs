//! Counts and distributions that many threads add to without a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Each power of two is split into so many buckets: a quantile is off by 3 % at most.
const SPLIT: u64 = 16;
/// Values below have a bucket each.
const EXACT: u64 = 2 * SPLIT;
/// Powers of two above `EXACT` that are told apart; greater values fall into the last bucket. In µs: 19 hours.
const OCTAVES: u64 = 31;
const BUCKETS: usize = (EXACT + OCTAVES * SPLIT) as usize;
/// Windows that the quantiles for Prometheus reach back.
const WINDOWS: usize = 5;

/// A count that only grows, until it is reset.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

impl metrics::CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }
}

/// A distribution. Its buckets take 4 KiB, from the first value on.
#[derive(Debug)]
pub(super) struct Summary {
    /// Parts of one that are told apart.
    scale: f64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    buckets: OnceLock<Box<[AtomicU64]>>,
    /// What the buckets held at the last few ends of a window.
    earlier: Mutex<VecDeque<Box<[u64]>>>,
}

/// What a summary has come to, since the last reset.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// In the order in which they were asked for; NaN where there is no value.
    pub(super) quantiles: Vec<f64>,
}

impl Figures {
    /// To four decimals; 0 where there is no value.
    pub(super) fn average(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            super::super::java::four_decimals(self.sum / self.count as f64)
        }
    }
}

impl Summary {
    /// A summary that tells `1 / scale` apart.
    pub(super) fn new(scale: u32) -> Summary {
        Summary {
            scale: f64::from(scale),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            buckets: OnceLock::new(),
            earlier: Mutex::default(),
        }
    }

    fn add(&self, value: f64, times: u64) {
        // Casting takes negative values and NaN to 0, and what is too great to the greatest.
        let parts = (value * self.scale).round() as u64;
        self.sum.fetch_add(parts.saturating_mul(times), Relaxed);
        if parts < self.min.load(Relaxed) {
            self.min.fetch_min(parts, Relaxed);
        }
        if parts > self.max.load(Relaxed) {
            self.max.fetch_max(parts, Relaxed);
        }
        let buckets = self
            .buckets
            .get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        buckets[bucket_of(parts)].fetch_add(times, Relaxed);
    }

    fn counts(&self) -> Option<Box<[u64]>> {
        let buckets = self.buckets.get()?;
        Some(buckets.iter().map(|bucket| bucket.load(Relaxed)).collect())
    }

    /// Everything since the last reset.
    pub(super) fn figures(&self, quantiles: &[f64]) -> Figures {
        let Some(counts) = self.counts() else {
            return Figures {
                quantiles: vec![f64::NAN; quantiles.len()],
                ..Figures::default()
            };
        };
        let count: u64 = counts.iter().sum();
        let least = if count == 0 { 0 } else { self.min.load(Relaxed) };
        Figures {
            count,
            sum: self.sum.load(Relaxed) as f64 / self.scale,
            min: least as f64 / self.scale,
            max: self.max.load(Relaxed) as f64 / self.scale,
            quantiles: quantiles.iter().map(|q| self.quantile(&counts, *q)).collect(),
        }
    }

    /// The same, but quantiles over the last few windows.
    pub(super) fn recent_figures(&self, quantiles: &[f64]) -> Figures {
        let mut figures = self.figures(quantiles);
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        // Before so many windows have ended, everything is recent.
        if earlier.len() == WINDOWS
            && let (Some(mut counts), Some(before)) = (self.counts(), earlier.front())
        {
            for (count, before) in counts.iter_mut().zip(before.iter()) {
                *count = count.saturating_sub(*before);
            }
            figures.quantiles = quantiles.iter().map(|q| self.quantile(&counts, *q)).collect();
        }
        figures
    }

    /// A window ends.
    pub(super) fn end_window(&self) {
        let Some(counts) = self.counts() else { return };
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        if earlier.len() == WINDOWS {
            earlier.pop_front();
        }
        earlier.push_back(counts);
    }

    /// Begins anew. What is added meanwhile may be counted in part.
    pub(super) fn reset(&self) {
        self.sum.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
        for bucket in self.buckets.get().into_iter().flatten() {
            bucket.store(0, Relaxed);
        }
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn quantile(&self, counts: &[u64], quantile: f64) -> f64 {
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return f64::NAN;
        }
        let wanted = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut passed = 0;
        for (place, count) in counts.iter().enumerate() {
            passed += count;
            if passed >= wanted {
                let (least, most) = (self.min.load(Relaxed), self.max.load(Relaxed));
                return middle_of(place).max(least).min(most) as f64 / self.scale;
            }
        }
        f64::NAN
    }
}

impl metrics::HistogramFn for Summary {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.add(value, count as u64);
    }
}

fn bucket_of(parts: u64) -> usize {
    if parts < EXACT {
        return parts as usize;
    }
    // At least 5, since EXACT is 2^5.
    let exponent = u64::from(parts.ilog2());
    let octave = exponent - u64::from(EXACT.ilog2());
    let within = (parts >> (exponent - u64::from(SPLIT.ilog2()))) - SPLIT;
    ((EXACT + octave * SPLIT + within) as usize).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let octave = (bucket - EXACT) / SPLIT;
    let within = (bucket - EXACT) % SPLIT;
    let width = 2 << octave;
    (SPLIT + within) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::HistogramFn as _;

    #[test]
    fn a_bucket_is_near_what_falls_into_it() {
        for value in (0..100_000_u64).chain([1 << 20, 123_456_789, (1 << 35) + 12_345]) {
            let middle = middle_of(bucket_of(value));
            assert!(middle.abs_diff(value) * 31 <= value.max(1), "{value}: {middle}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn figures_are_of_what_was_recorded() {
        let summary = Summary::new(1000);
        assert!(summary.figures(&[0.5]).quantiles[0].is_nan());
        for value in 1..=99 {
            summary.record(f64::from(value));
        }
        summary.record_many(100.0, 1);
        let figures = summary.figures(&[0.5, 0.99]);
        assert_eq!(
            (figures.count, figures.sum, figures.min, figures.max),
            (100, 5050.0, 1.0, 100.0)
        );
        assert_eq!(figures.average(), 50.5);
        assert!((figures.quantiles[0] - 50.0).abs() < 2.0, "{figures:?}");
        assert!((figures.quantiles[1] - 99.0).abs() < 4.0, "{figures:?}");
        summary.reset();
        assert_eq!(summary.figures(&[]).count, 0);
        assert_eq!(summary.figures(&[]).min, 0.0);
    }

    #[test]
    fn recent_quantiles_forget_what_is_long_past() {
        let summary = Summary::new(1);
        summary.record_many(1000.0, 100);
        assert!(summary.recent_figures(&[0.5]).quantiles[0] > 900.0);
        for _ in 0..WINDOWS {
            assert!(summary.recent_figures(&[0.5]).quantiles[0] > 900.0);
            summary.end_window();
        }
        assert!(summary.recent_figures(&[0.5]).quantiles[0].is_nan());
        summary.record(3.0);
        let figures = summary.recent_figures(&[0.5]);
        assert_eq!((figures.quantiles[0], figures.count), (3.0, 101));
    }
}
