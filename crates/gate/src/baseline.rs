//! The committed baseline of instruction counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{GateError, Limit, Machine, Verdict};

/// Instructions that one run of each operation took, and where that was counted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The machine that it holds for. On another one the counts differ where aws-lc chooses other code, and with other
    /// compilers.
    pub measured_on: Machine,
    /// For each operation.
    pub instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// Reads the baseline.
    ///
    /// # Errors
    /// [`GateError::Baseline`].
    pub fn parse(json: &str) -> Result<Self, GateError> {
        serde_json::from_str(json).map_err(GateError::Baseline)
    }

    /// Compares counts with the baseline.
    ///
    /// # Errors
    /// [`GateError::Operations`] when they are not about the same operations.
    pub fn judge(&self, counts: &BTreeMap<String, u64>, machine: &Machine) -> Result<Vec<Verdict>, GateError> {
        let known_to_one = |name: &&String| counts.contains_key(*name) != self.instructions.contains_key(*name);
        if let Some(name) = self.instructions.keys().chain(counts.keys()).find(known_to_one) {
            return Err(GateError::Operations(name.clone()));
        }
        let verdict = |((name, count), baseline): ((&String, &u64), &u64)| {
            let (count, baseline) = (*count as f64, *baseline as f64);
            let verdict =
                Verdict::new(format!("instructions: {name}"), vec![count], Limit::AtMost(baseline * TOLERANCE));
            if !verdict.passed() && self.measured_on != *machine {
                let Machine { cpu, rustc, valgrind } = &self.measured_on;
                verdict.with_note(format!("the baseline is of another machine: {cpu}, {rustc}, {valgrind}"))
            } else if count * TOLERANCE < baseline {
                verdict.with_note("far below the baseline: keep it with cargo gate --bless")
            } else {
                verdict
            }
        };
        Ok(counts.iter().zip(self.instructions.values()).map(verdict).collect())
    }
}

/// How many times the baseline an operation may take. Counts of one build differ by well under 1 %.
const TOLERANCE: f64 = 1.05;

/// The sum in a file that callgrind wrote: the instructions that it collected.
///
/// # Errors
/// [`GateError::Totals`].
pub fn instructions_collected(callgrind: &str) -> Result<u64, GateError> {
    let total = callgrind.lines().find_map(|line| line.strip_prefix("totals:"));
    total.and_then(|total| total.trim().parse().ok()).ok_or(GateError::Totals)
}

/// Instructions of one operation, from what two numbers of repeats took: their common part cancels out.
///
/// # Errors
/// [`GateError::NoDifference`].
pub fn instructions_per_operation(fewer: (u64, u64), more: (u64, u64)) -> Result<u64, GateError> {
    let repeats = more.0.checked_sub(fewer.0).filter(|repeats| *repeats > 0);
    let instructions = more.1.checked_sub(fewer.1).filter(|instructions| *instructions > 0);
    match (repeats, instructions) {
        (Some(repeats), Some(instructions)) => Ok(instructions / repeats),
        _ => Err(GateError::NoDifference { fewer: fewer.0, more: more.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn baseline() -> Baseline {
        Baseline { measured_on: Machine::default(), instructions: counts(&[("open", 1000), ("seal", 4000)]) }
    }

    #[test]
    fn an_operation_may_take_a_twentieth_more() {
        let passed = |open: u64| {
            let verdicts = baseline().judge(&counts(&[("open", open), ("seal", 4000)]), &Machine::default()).unwrap();
            assert!(verdicts[1].passed());
            verdicts[0].passed()
        };
        assert!(passed(10) && passed(1000) && passed(1050));
        assert!(!passed(1051) && !passed(2000));
    }

    #[test]
    fn an_operation_that_only_one_side_knows_is_no_pass() {
        for of in [&[("open", 1)][..], &[("open", 1), ("seal", 1), ("sign", 1)], &[("open", 1), ("sign", 1)]] {
            let judged = baseline().judge(&counts(of), &Machine::default());
            assert!(matches!(judged, Err(GateError::Operations(_))));
        }
    }

    #[test]
    fn setting_up_cancels_out() {
        assert_eq!(instructions_per_operation((10, 5_000 + 10 * 70), (60, 5_000 + 60 * 70)).unwrap(), 70);
    }

    #[test]
    fn counting_nothing_is_no_pass() {
        assert!(matches!(instructions_per_operation((10, 0), (60, 0)), Err(GateError::NoDifference { .. })));
        assert!(matches!(instructions_per_operation((10, 9), (10, 90)), Err(GateError::NoDifference { .. })));
    }

    #[test]
    fn callgrinds_sum_is_found() {
        let text = "# callgrind format\nevents: Ir\nfn=(1) main\n1 20\n\ntotals: 123456\n";
        assert_eq!(instructions_collected(text).unwrap(), 123_456);
        assert!(matches!(instructions_collected("events: Ir\n"), Err(GateError::Totals)));
    }

    #[test]
    fn the_committed_baseline_is_one() {
        let baseline = Baseline::parse(include_str!("../../../benches/instructions.json")).unwrap();
        assert_eq!(baseline.instructions.len(), 6);
    }
}
