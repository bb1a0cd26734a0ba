//! The machine on which something was counted.

use serde::{Deserialize, Serialize};

/// The parts of a machine that instruction counts depend on.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// The compiler's version.
    pub rustc: String,
    /// The version of valgrind, whose processor aws-lc sees in place of the machine's.
    pub valgrind: String,
}
