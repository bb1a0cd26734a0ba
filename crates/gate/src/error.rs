//! Why nothing could be compared.

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The table of bars is not one.
    #[error("benches/bars.toml: {0}")]
    Bars(#[from] toml::de::Error),
    /// A bar without a limit, or with two.
    #[error("benches/bars.toml: expected one of at_most and at_least for {0}")]
    Limit(String),
    /// A line of a bench's ratios is not one.
    #[error("expected a ratio as a line of JSON: {0}")]
    Ratio(#[source] serde_json::Error),
    /// A bench no longer measures what a bar is about.
    #[error("the bench printed no ratio {0}: change benches/bars.toml together with the bench")]
    NoRatio(String),
    /// The baseline is not one.
    #[error("benches/instructions.json: {0}")]
    Baseline(#[source] serde_json::Error),
    /// The baseline and the harness know different operations.
    #[error(
        "benches/instructions.json and the harness differ in {0}: measure the baseline anew with cargo gate --bless"
    )]
    Operations(String),
    /// The output of valgrind has no sum.
    #[error("expected a line \"totals:\" in what callgrind wrote")]
    Totals,
    /// More repeats took no more instructions.
    #[error("expected {more} repeats to take more instructions than {fewer}: was nothing collected?")]
    NoDifference {
        /// The smaller number of repeats.
        fewer: u64,
        /// The larger one.
        more: u64,
    },
}
