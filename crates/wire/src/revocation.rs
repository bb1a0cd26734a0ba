//! Revocations that people ask for, and their reasons.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// Why a certificate is revoked: those reasons of RFC 5280, 5.3.1 that the holder of a certificate may give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RevocationReason {
    /// Others may have its private key.
    #[default]
    KeyCompromise,
    /// Another certificate took its place.
    Superseded,
    /// Its names are not used any more.
    CessationOfOperation,
    /// What it says of its holder is not so any more.
    AffiliationChanged,
    /// No reason is given.
    Unspecified,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::KeyCompromise,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::AffiliationChanged,
        Self::Unspecified,
    ];

    /// The name as in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCompromise => "key-compromise",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Unspecified => "unspecified",
        }
    }

    /// Whether others may have the key. Records leave this reason out: earlier releases know no other.
    pub fn is_key_compromise(&self) -> bool {
        *self == Self::KeyCompromise
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RevocationReason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        found.ok_or_else(|| {
            let expected =
                "a reason: key-compromise, superseded, cessation-of-operation, affiliation-changed or unspecified";
            ParseError::new(expected, text)
        })
    }
}

/// The body of `POST /v1/sites/NAME/revocation` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevocationRequest {
    /// The reason that the CA is told.
    pub reason: RevocationReason,
    /// The version of the stored bundle, which must be the newest; whichever that is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Revoke at once, without another certificate first: the site is served with a revoked one until it leaves. For
    /// `cessation-of-operation` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_replacement: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_the_same_name_in_json_and_in_text() {
        for reason in RevocationReason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        for other in ["keyCompromise", "certificate-hold", "1", ""] {
            let error = other.parse::<RevocationReason>().unwrap_err().to_string();
            assert!(error.contains("cessation-of-operation"), "{error}");
        }
    }
}
