//! Days on an axis: so many bins as fit, each of one day or of several.

use chrono::{Days, NaiveDate};

/// From the first day to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    first: NaiveDate,
    days_per_bin: u64,
    pub(super) bins: usize,
}

impl Axis {
    /// At most `max_bins` bins (at least one).
    pub(super) fn over(first: NaiveDate, last: NaiveDate, max_bins: usize) -> Self {
        let days = (last - first).num_days().max(0).unsigned_abs() + 1;
        let days_per_bin = days.div_ceil(max_bins.max(1) as u64);
        let bins = usize::try_from(days.div_ceil(days_per_bin)).unwrap_or(1);
        Self { first, days_per_bin, bins }
    }

    /// What each bin holds, of values by day; a day off the axis counts at its end.
    pub(super) fn sums(&self, values: impl Iterator<Item = (NaiveDate, u64)>) -> Vec<u64> {
        let mut sums = vec![0_u64; self.bins];
        for (day, value) in values {
            let days = (day - self.first).num_days().max(0).unsigned_abs();
            let bin = usize::try_from(days / self.days_per_bin).unwrap_or(usize::MAX).min(self.bins - 1);
            if let Some(sum) = sums.get_mut(bin) {
                *sum = sum.saturating_add(value);
            }
        }
        sums
    }

    /// First and last day of a bin.
    pub(super) fn span(&self, bin: usize) -> (NaiveDate, NaiveDate) {
        let day = |days: u64| self.first.checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX);
        let start = bin as u64 * self.days_per_bin;
        (day(start), day(start + self.days_per_bin - 1))
    }

    /// A bin for people.
    pub(super) fn label(&self, bin: usize) -> String {
        match self.span(bin) {
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from} to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    #[test]
    fn bins_widen_and_every_day_counts_once() {
        let month = Axis::over(day("2026-01-01"), day("2026-01-31"), 60);
        assert_eq!((month.bins, month.label(30)), (31, "2026-01-31".into()));
        let year = Axis::over(day("2026-01-01"), day("2026-12-31"), 60);
        assert_eq!((year.bins, year.label(0)), (53, "2026-01-01 to 2026-01-07".into()));
        let ends = [(day("2026-01-07"), 1), (day("2026-01-08"), 2), (day("2026-12-31"), 4), (day("2027-01-01"), 8)];
        let sums = year.sums(ends.into_iter());
        assert_eq!((sums[0], sums[1], sums[52]), (1, 2, 12));
        assert_eq!(Axis::over(day("2026-01-02"), day("2026-01-01"), 60).bins, 1);
        let all_time = Axis::over(day("0001-01-01"), day("9999-12-31"), 60);
        assert!(all_time.bins <= 60 && all_time.sums([(day("2026-01-01"), 1)].into_iter()).contains(&1));
    }
}
