//! Verdicts, and how they are shown.

use std::fmt;

use serde::Serialize;

use crate::Machine;

/// The limit that a value has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Limit {
    /// Whether `value` keeps to it. NaN does not.
    pub fn admits(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {}", figure(*limit)),
            Self::AtLeast(limit) => write!(f, ">= {}", figure(*limit)),
        }
    }
}

/// One bar, and how it was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    name: String,
    value: f64,
    limit: Limit,
    passed: bool,
    runs: Vec<f64>,
    note: Option<String>,
}

impl Verdict {
    /// Judges the median of what the `runs` measured; of an even number, the upper middle one.
    pub(crate) fn new(name: String, runs: Vec<f64>, limit: Limit) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let value = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let all = || runs.iter().map(|value| figure(*value)).collect::<Vec<_>>().join(", ");
        let note = (runs.len() > 1).then(|| format!("median of {} runs: {}", runs.len(), all()));
        Self { name, value, limit, passed: limit.admits(value), runs, note }
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The name of the measured value.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the limit was kept.
    pub fn passed(&self) -> bool {
        self.passed
    }
}

/// All verdicts of a run of the gate.
#[derive(Debug, Serialize)]
pub struct Report {
    passed: bool,
    machine: Machine,
    verdicts: Vec<Verdict>,
}

impl Report {
    /// A report of what `machine` was found to do.
    pub fn new(machine: Machine, verdicts: Vec<Verdict>) -> Self {
        Self { passed: verdicts.iter().all(Verdict::passed), machine, verdicts }
    }

    /// Whether every bar was kept.
    pub fn passed(&self) -> bool {
        self.passed
    }
}

/// One line for each bar: name, value, limit, `ok` or `FAIL`, and what there is to note.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.verdicts.iter().map(|v| (v, figure(v.value), v.limit.to_string())).collect();
        let width = |length: fn(&(&Verdict, String, String)) -> usize| lines.iter().map(length).max().unwrap_or(0);
        let name = width(|(verdict, _, _)| verdict.name.chars().count());
        let (value, limit) = (width(|(_, value, _)| value.len()), width(|(_, _, limit)| limit.len()));
        for (verdict, shown, bound) in &lines {
            let word = if verdict.passed { "ok" } else { "FAIL" };
            write!(f, "{:<name$}  {shown:>value$}  {bound:>limit$}  {word}", verdict.name)?;
            match &verdict.note {
                Some(note) => writeln!(f, "  ({note})")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// A count without decimals, a ratio with two.
fn figure(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(runs: &[f64], limit: Limit) -> Verdict {
        Verdict::new("a / b".to_owned(), runs.to_vec(), limit)
    }

    #[test]
    fn a_limit_is_kept_up_to_itself() {
        assert!(verdict(&[1.15], Limit::AtMost(1.15)).passed());
        assert!(!verdict(&[1.16], Limit::AtMost(1.15)).passed());
        assert!(verdict(&[6.0], Limit::AtLeast(6.0)).passed());
        assert!(!verdict(&[5.99], Limit::AtLeast(6.0)).passed());
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        for limit in [Limit::AtMost(1.0), Limit::AtLeast(1.0)] {
            assert!(!verdict(&[f64::NAN], limit).passed());
            assert!(!verdict(&[], limit).passed());
        }
    }

    #[test]
    fn the_median_of_the_repeats_decides_and_not_the_best_of_them() {
        assert!(!verdict(&[1.3, 1.0, 1.2], Limit::AtMost(1.15)).passed());
        assert!(verdict(&[1.3, 1.0, 1.1], Limit::AtMost(1.15)).passed());
    }

    #[test]
    fn the_table_is_aligned_and_says_which_bar_failed() {
        let count = Verdict::new("instructions of x".to_owned(), vec![123_456.0], Limit::AtMost(123_000.0));
        let report = Report::new(Machine::default(), vec![verdict(&[1.3, 1.0, 1.1], Limit::AtMost(1.15)), count]);
        assert!(!report.passed());
        assert_eq!(
            report.to_string(),
            "a / b                1.10    <= 1.15  ok  (median of 3 runs: 1.30, 1.00, 1.10)\n\
             instructions of x  123456  <= 123000  FAIL\n"
        );
    }
}
