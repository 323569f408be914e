//! Stands in for the crate of this name, in which openraft counts its batches and steps, always, for a display that nobody here
//! asks for. The original keeps tables of 27 MB for it (measured: 45 MB resident); this keeps a count. Chosen by
//! `[patch.crates-io]`; to be dropped when openraft makes its statistics optional.

use std::fmt;
use std::marker::PhantomData;

/// Counts values and forgets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    samples: u64,
    slots: PhantomData<T>,
}

/// What is known of the values: how many there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// Draws nothing.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl<T> Histogram<T> {
    /// No values.
    pub fn new() -> Histogram<T> {
        Histogram { samples: 0, slots: PhantomData }
    }

    /// One more value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// More values.
    pub fn record_n(&mut self, _value: u64, count: u64) {
        self.samples = self.samples.saturating_add(count);
    }

    /// How many values there were.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats { samples: self.samples, ..PercentileStats::default() }
    }
}

impl AsciiChart {
    /// An empty one.
    pub fn new() -> AsciiChart {
        AsciiChart
    }

    /// One more row that is not drawn.
    #[must_use]
    pub fn add(self, _name: impl Into<String>, _values: Histogram) -> AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.samples)
    }
}
