//! The comparisons of the release gate: measurements in, verdicts out. No clock, no processes, no files.
//!
//! ```text
//!   benches --ratios within one run--> bars::judge      <-- benches/bars.toml
//!   harness under valgrind --counts--> baseline::judge  <-- benches/instructions.json
//!                                          |
//!                                          +--> verdicts: a table for people, JSON for machines
//! ```
//!
//! No bar is a time: on another machine, or on this one with a neighbour, times mean nothing.
//!
//! ```
//! use certseal_gate::{Bars, Ratio};
//!
//! let bars = Bars::parse(
//!     r#"
//!     [[bar]]
//!     bench = "sealing"
//!     numerator = "new"
//!     denominator = "old"
//!     at_most = 1.2
//!     "#,
//! )?;
//! let run = Ratio::parse_lines(r#"{"bench":"sealing","numerator":"new","denominator":"old","value":1.3}"#)?;
//! let verdicts = bars.judge("sealing", &[run])?;
//! assert!(!verdicts[0].passed());
//! # Ok::<(), certseal_gate::GateError>(())
//! ```

mod bars;
mod baseline;
mod error;
mod machine;
mod verdict;

pub use bars::{Bars, Ratio};
pub use baseline::{Baseline, instructions_collected, instructions_per_operation};
pub use error::GateError;
pub use machine::Machine;
pub use verdict::{Limit, Report, Verdict};
