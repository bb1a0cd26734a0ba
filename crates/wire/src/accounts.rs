//! certman's accounts at CAs, for operators.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The answer of `GET /v1/accounts` at certman: its account at each CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountList {
    /// The accounts, that of the preferred CA first.
    pub accounts: Vec<AccountReport>,
}

/// An account at a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountReport {
    /// The CA, by its directory.
    pub directory: String,
    /// The account's URL, once the CA has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The thumbprint of its key (RFC 7638), once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbprint: Option<String>,
    /// Whether it can be used.
    pub state: AccountState,
    /// Whether the signed list has the thumbprint, so that edges answer challenges for the account.
    pub is_vouched_for: bool,
    /// Keys that it had before, and for which edges still answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerKey>,
}

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AccountState {
    /// It can.
    Active,
    /// It gets no orders any more; the CA has not confirmed its end yet.
    Deactivating,
    /// It has ended.
    Deactivated,
}

impl AccountState {
    /// The name as in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivating => "deactivating",
            Self::Deactivated => "deactivated",
        }
    }
}

/// A key that an account had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FormerKey {
    /// Its thumbprint (RFC 7638).
    pub thumbprint: String,
    /// When edges stop to answer for it.
    pub until: Timestamp,
}

/// The body of `POST /v1/accounts/rollover` at certman: the account gets another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountRollover {
    /// The CA, by its directory.
    pub directory: String,
}

/// The body of `POST /v1/accounts/deactivation` at certman: the account ends, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountDeactivation {
    /// The CA, by its directory.
    pub directory: String,
    /// The account's URL, which says that it is this one that is meant.
    pub account: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_the_same_name_in_json_and_in_text() {
        for state in [AccountState::Active, AccountState::Deactivating, AccountState::Deactivated] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.as_str()));
        }
    }
}
