//! The bucket of a limit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::LimitName;

/// One bucket of one account at one CA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket {
    /// The limit.
    pub limit: LimitName,
    /// The thing that the limit is for each of: a registered domain, a set of names, a name; empty for the whole account.
    pub subject: Arc<str>,
}

impl Bucket {
    /// The bucket of a limit that is one for all that the account does.
    pub fn of_account(limit: LimitName) -> Self {
        Self { limit, subject: "".into() }
    }
}
