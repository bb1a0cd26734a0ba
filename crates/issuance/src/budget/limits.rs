//! The limits of a CA.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::limit::Limit;

/// The limits that a CA may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// New orders of an account.
    NewOrders,
    /// New certificates for a registered domain, of all accounts.
    CertificatesPerDomain,
    /// Certificates for exactly one set of names, of all accounts.
    CertificatesPerNameSet,
    /// Failed validations of a name by an account.
    FailedValidations,
    /// Failed validations of a name by an account without a success between them: after that the CA pauses the name, and a
    /// person has to go to a web page.
    ConsecutiveFailures,
}

impl LimitName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NewOrders,
        Self::CertificatesPerDomain,
        Self::CertificatesPerNameSet,
        Self::FailedValidations,
        Self::ConsecutiveFailures,
    ];

    /// Whether each account has its own buckets; those of the other limits are shared by all accounts at the CA.
    pub fn is_of_account(self) -> bool {
        match self {
            Self::NewOrders | Self::FailedValidations | Self::ConsecutiveFailures => true,
            Self::CertificatesPerDomain | Self::CertificatesPerNameSet => false,
        }
    }

    /// The name as in configuration files and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewOrders => "new_orders",
            Self::CertificatesPerDomain => "certificates_per_domain",
            Self::CertificatesPerNameSet => "certificates_per_name_set",
            Self::FailedValidations => "failed_validations",
            Self::ConsecutiveFailures => "consecutive_failures",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The limits of a CA; one that is not here does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits(BTreeMap<LimitName, Limit>);

impl Limits {
    /// A CA without limits.
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// Let's Encrypt's limits without an override (letsencrypt.org/docs/rate-limits, 2026-08), but for failures in a row: after
    /// 1,152 the CA pauses the name until a person visits a page of its; here a name waits after a quarter of that.
    pub fn letsencrypt() -> Self {
        let (hour, day) = (SignedDuration::from_hours(1), SignedDuration::from_hours(24));
        let limits = [
            (LimitName::NewOrders, Limit::new(300, 300, hour * 3)),
            (LimitName::CertificatesPerDomain, Limit::new(50, 50, day * 7)),
            (LimitName::CertificatesPerNameSet, Limit::new(5, 5, day * 7)),
            (LimitName::FailedValidations, Limit::new(5, 5, hour)),
            (LimitName::ConsecutiveFailures, Limit::new(1152 / 4, 1, day)),
        ];
        Self(limits.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect())
    }

    /// The limits of Let's Encrypt's staging environment (letsencrypt.org/docs/staging-environment, 2026-09). The page tells of
    /// none on registered domains that anybody comes near.
    pub fn letsencrypt_staging() -> Self {
        let (hour, day) = (SignedDuration::from_hours(1), SignedDuration::from_hours(24));
        let limits = [
            (LimitName::NewOrders, Limit::new(1500, 1500, hour * 3)),
            (LimitName::CertificatesPerNameSet, Limit::new(30_000, 30_000, day * 7)),
            (LimitName::FailedValidations, Limit::new(200, 200, hour)),
            (LimitName::ConsecutiveFailures, Limit::new(3600 / 4, 3600, hour * 6)),
        ];
        Self(limits.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect())
    }

    /// Whether there are none.
    pub fn is_unlimited(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    pub fn get(&self, name: LimitName) -> Option<Limit> {
        self.0.get(&name).copied()
    }

    /// With one of them as the CA grants it to this account.
    pub fn with(mut self, name: LimitName, limit: Limit) -> Self {
        self.0.insert(name, limit);
        self
    }
}

/// A name that stands for no limits that are known here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `letsencrypt`, `letsencrypt-staging` or `unlimited`, got {0:?}")]
pub struct ParseLimitsError(String);

impl FromStr for Limits {
    type Err = ParseLimitsError;

    fn from_str(preset: &str) -> Result<Self, Self::Err> {
        match preset {
            "letsencrypt" => Ok(Self::letsencrypt()),
            "letsencrypt-staging" => Ok(Self::letsencrypt_staging()),
            "unlimited" => Ok(Self::unlimited()),
            other => Err(ParseLimitsError(other.chars().take(100).collect())),
        }
    }
}
