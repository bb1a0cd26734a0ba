//! Bars for ratios: how many times longer one thing may take than another in the same run.

use serde::Deserialize;

use crate::{GateError, Limit, Verdict};

/// The committed table of bars.
#[derive(Debug)]
pub struct Bars(Vec<Bar>);

#[derive(Debug)]
struct Bar {
    bench: String,
    numerator: String,
    denominator: String,
    limit: Limit,
}

impl Bars {
    /// Reads the table.
    ///
    /// # Errors
    /// [`GateError::Bars`], [`GateError::Limit`].
    pub fn parse(text: &str) -> Result<Self, GateError> {
        let table: Table = toml::from_str(text)?;
        table.bar.into_iter().map(Bar::try_from).collect::<Result<_, _>>().map(Self)
    }

    /// The benches that there are bars for, each once, in the order of the table.
    pub fn benches(&self) -> Vec<&str> {
        let mut benches: Vec<&str> = Vec::new();
        for bar in &self.0 {
            if !benches.contains(&bar.bench.as_str()) {
                benches.push(&bar.bench);
            }
        }
        benches
    }

    /// Compares what `runs` of `bench` measured with its bars. Of several runs the medians count, also for bars that were
    /// kept in the first.
    ///
    /// # Errors
    /// [`GateError::NoRatio`] when a run did not measure what a bar is about.
    pub fn judge(&self, bench: &str, runs: &[Vec<Ratio>]) -> Result<Vec<Verdict>, GateError> {
        let of_bench = self.0.iter().filter(|bar| bar.bench == bench);
        of_bench
            .map(|bar| {
                let name = format!("{} / {}", bar.numerator, bar.denominator);
                let find = |run: &Vec<Ratio>| run.iter().find(|ratio| bar.is_about(ratio)).map(|ratio| ratio.value);
                let values = runs.iter().map(find).collect::<Option<_>>();
                Ok(Verdict::new(name.clone(), values.ok_or(GateError::NoRatio(name))?, bar.limit))
            })
            .collect()
    }
}

impl Bar {
    fn is_about(&self, ratio: &Ratio) -> bool {
        self.bench == ratio.bench && self.numerator == ratio.numerator && self.denominator == ratio.denominator
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    bar: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    bench: String,
    numerator: String,
    denominator: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    #[serde(default, rename = "about")]
    _about: String,
}

impl TryFrom<Row> for Bar {
    type Error = GateError;

    fn try_from(row: Row) -> Result<Self, GateError> {
        let limit = match (row.at_most, row.at_least) {
            (Some(limit), None) => Limit::AtMost(limit),
            (None, Some(limit)) => Limit::AtLeast(limit),
            _ => return Err(GateError::Limit(format!("{} / {}", row.numerator, row.denominator))),
        };
        Ok(Self { bench: row.bench, numerator: row.numerator, denominator: row.denominator, limit })
    }
}

/// A ratio that a bench measured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ratio {
    bench: String,
    numerator: String,
    denominator: String,
    value: f64,
}

impl Ratio {
    /// Reads the file that CERTSEAL_BENCH_RATIOS names: one JSON object a line.
    ///
    /// # Errors
    /// [`GateError::Ratio`].
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, GateError> {
        text.lines().map(|line| serde_json::from_str(line).map_err(GateError::Ratio)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bench: &str, limits: &str) -> String {
        format!("[[bar]]\nbench = \"{bench}\"\nnumerator = \"new\"\ndenominator = \"old\"\n{limits}\n")
    }

    fn run(value: f64) -> Vec<Ratio> {
        let line = serde_json::json!({ "bench": "one", "numerator": "new", "denominator": "old", "value": value });
        Ratio::parse_lines(&line.to_string()).unwrap()
    }

    #[test]
    fn the_committed_table_is_one() {
        let bars = Bars::parse(include_str!("../../../benches/bars.toml")).unwrap();
        assert_eq!(bars.benches(), ["sealing", "startup", "edge_start", "groups", "migration", "store"]);
    }

    #[test]
    fn a_bar_has_one_limit() {
        assert!(Bars::parse(&row("one", "at_most = 1.0")).is_ok());
        assert!(Bars::parse(&row("one", "at_least = 1.0")).is_ok());
        assert!(matches!(Bars::parse(&row("one", "")), Err(GateError::Limit(_))));
        assert!(matches!(Bars::parse(&row("one", "at_least = 1.0\nat_most = 1.0")), Err(GateError::Limit(_))));
        assert!(matches!(Bars::parse(&row("one", "at_mots = 1.0")), Err(GateError::Bars(_))));
    }

    #[test]
    fn each_bench_is_judged_by_its_own_bars() {
        let bars = Bars::parse(&(row("one", "at_most = 1.0") + &row("two", "at_most = 9.0"))).unwrap();
        let verdicts = bars.judge("one", &[run(1.5)]).unwrap();
        assert_eq!(verdicts.len(), 1);
        assert!(!verdicts[0].passed());
        assert!(bars.judge("one", &[run(1.5), run(0.9), run(0.8)]).unwrap()[0].passed());
    }

    #[test]
    fn a_ratio_that_is_no_longer_measured_does_not_pass_unseen() {
        let bars = Bars::parse(&row("two", "at_most = 9.0")).unwrap();
        assert!(matches!(bars.judge("two", &[run(1.0)]), Err(GateError::NoRatio(_))));
        assert!(matches!(bars.judge("two", &[Vec::new()]), Err(GateError::NoRatio(_))));
    }

    #[test]
    fn a_line_that_is_no_ratio_is_refused() {
        assert!(Ratio::parse_lines("{\"bench\":\"one\"}").is_err());
        assert!(Ratio::parse_lines("1.5").is_err());
    }
}
