//! What a site has of the budget, and what it owes to the books.

use certseal_wire::DnsName;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;

/// Room that a site has reserved for its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reserved {
    /// An order may be placed with it. Not so once one was, or may have been.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// Taken for the order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<Bucket>,
    /// Taken for the certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificate: Vec<Bucket>,
}

impl Reserved {
    /// An order was placed, or may have been: another one takes room anew. The room of the certificate stays.
    pub(crate) fn placed(&mut self) {
        self.ready = false;
        self.order.clear();
    }
}

/// What became of an order and is not in the books yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settlement {
    /// Taken and not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub back: Vec<Bucket>,
    /// Names whose validation failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<DnsName>,
    /// Names whose validation succeeded, and had failed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validated: Vec<DnsName>,
}

impl Settlement {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.back.is_empty() && self.failed.is_empty() && self.validated.is_empty()
    }

    /// What is still owed after `entered` is in the books.
    pub(crate) fn without(&mut self, entered: &Self) {
        remove(&mut self.back, &entered.back);
        remove(&mut self.failed, &entered.failed);
        remove(&mut self.validated, &entered.validated);
    }
}

/// Each once: the same may be owed twice.
fn remove<T: PartialEq>(owed: &mut Vec<T>, entered: &[T]) {
    for entry in entered {
        if let Some(at) = owed.iter().position(|owed| owed == entry) {
            owed.remove(at);
        }
    }
}
