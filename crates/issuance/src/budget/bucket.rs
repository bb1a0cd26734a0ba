//! The bucket of a limit.

use serde::{Deserialize, Serialize};

use super::limits::LimitName;

/// One bucket of one account at one CA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket {
    /// The limit.
    pub limit: LimitName,
    /// The thing that the limit is for each of: a registered domain, a set of names, a name; empty for the whole account.
    pub subject: String,
}
