//! What is simulated.

use std::collections::BTreeMap;

use certseal_issuance::{
    Staging,
    budget::{Limit, LimitName, Limits},
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::clock::DAY;

/// A fleet, a CA, and what happens to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Sites in all.
    pub sites: u32,
    /// Days that are simulated.
    pub days: u32,
    /// Sites that are added in a day; 0 for all of them at the start.
    pub sites_per_day: u32,
    /// The sites are added in steps, each once the one before went well. Without it they are added as `sites_per_day` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging: Option<Staging>,
    /// The part of sites whose validation always fails.
    pub broken: f64,
    /// The part of sites that lie under one registered domain, the platform's own.
    pub under_platform: f64,
    /// The lifetime of certificates, in days.
    pub lifetime_days: f64,
    /// What the CA allows: `letsencrypt`, `letsencrypt-staging` or `unlimited`.
    pub limits: String,
    /// Limits that the CA raised.
    pub overrides: BTreeMap<LimitName, Override>,
    /// The CA advises when to renew (RFC 9773).
    pub advice: bool,
    /// Orders that certman can place in a second.
    pub orders_per_second: f64,
    /// When the CA cannot be reached.
    pub outages: Vec<Outage>,
    /// When the CA has to revoke many certificates.
    pub revocations: Vec<Revocation>,
    /// The seed of chance.
    pub seed: u64,
}

/// A limit as a CA granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// How often at once.
    pub burst: u32,
    /// How often in a period.
    pub count: u32,
    /// The period, in seconds.
    pub period_seconds: u32,
}

/// A time without the CA.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// The day that it begins on, counted from 0.
    pub day: f64,
    /// How long it lasts.
    pub hours: f64,
}

/// A mass revocation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The day that the CA tells of it, counted from 0.
    pub day: f64,
    /// The part of certificates that it concerns.
    pub part: f64,
    /// Hours until they are revoked (Baseline Requirements, 4.9.1.1: 24, or 120).
    pub hours: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            sites: 10_000,
            days: 90,
            sites_per_day: 0,
            staging: None,
            broken: 0.0,
            under_platform: 0.0,
            lifetime_days: 90.0,
            limits: "letsencrypt".to_owned(),
            overrides: BTreeMap::new(),
            advice: true,
            orders_per_second: 50.0,
            outages: Vec::new(),
            revocations: Vec::new(),
            seed: 1,
        }
    }
}

/// Why a scenario cannot be simulated.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScenarioError(pub String);

impl std::fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// The end in milliseconds.
    pub(crate) fn end(&self) -> i64 {
        i64::from(self.days) * DAY
    }

    /// Milliseconds that each certificate is valid for.
    pub(crate) fn lifetime(&self) -> i64 {
        (self.lifetime_days * DAY as f64) as i64
    }

    /// The limits that certman goes by.
    ///
    /// # Errors
    /// When there is no such preset, or no bucket can hold an override.
    pub fn limits(&self) -> Result<Limits, ScenarioError> {
        let mut limits: Limits = self.limits.parse().map_err(|error| ScenarioError(format!("limits: {error}")))?;
        for (name, Override { burst, count, period_seconds }) in &self.overrides {
            let limit = Limit::new(*burst, *count, SignedDuration::from_secs((*period_seconds).into()));
            let limit = limit.ok_or_else(|| ScenarioError(format!("overrides.{name}: no bucket can hold it")))?;
            limits = limits.with(*name, limit);
        }
        Ok(limits)
    }

    /// Whether all of it can be simulated.
    ///
    /// # Errors
    /// What is expected, and what came.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let within = |what: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ScenarioError(format!("expected {what} between {low} and {high}, got {value}")))
        };
        within("sites", self.sites.into(), 1.0, 10_000_000.0)?;
        within("days", self.days.into(), 1.0, 3_650.0)?;
        within("broken", self.broken, 0.0, 1.0)?;
        within("under_platform", self.under_platform, 0.0, 1.0)?;
        within("lifetime_days", self.lifetime_days, 0.1, 825.0)?;
        within("orders_per_second", self.orders_per_second, 0.001, 1_000_000.0)?;
        if let Some(Staging { batch, may_fail }) = self.staging {
            within("staging.batch", batch.into(), 1.0, 10_000_000.0)?;
            within("staging.may_fail", may_fail, 0.0, 1.0)?;
            if self.sites_per_day > 0 {
                return Err(ScenarioError("expected either staging or sites_per_day, got both".to_owned()));
            }
        }
        for Outage { day, hours } in &self.outages {
            within("an outage's day", *day, 0.0, self.days.into())?;
            within("an outage's hours", *hours, 0.0, 24.0 * 365.0)?;
        }
        for Revocation { day, part, hours } in &self.revocations {
            within("a revocation's day", *day, 0.0, self.days.into())?;
            within("a revocation's part", *part, 0.0, 1.0)?;
            within("a revocation's hours", *hours, 1.0, 24.0 * 365.0)?;
        }
        self.limits().map(drop)
    }
}
