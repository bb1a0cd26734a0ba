//! The work of a migration, site by site.

use std::{collections::BTreeMap, path::Path};

use certseal_service::config;
use certseal_wire::DnsName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pace::Appointment;
use crate::{
    error::{Error, MigrationError},
    files::{FileError, parent, sync_dir, write_public},
};

/// The work that is to be done, site by site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "by")]
pub enum Plan {
    /// Renewals at these times.
    Renewal {
        /// When it was made.
        made_at: Timestamp,
        /// No more than so many orders within any three hours.
        orders_per_3h: u32,
        /// The first one first.
        sites: Vec<Appointment>,
        /// Sites whose renewal is under way already, or that certman does not know.
        passed_over: Vec<DnsName>,
    },
    /// Keys that are sealed anew.
    Rewrap {
        /// When it was made.
        made_at: Timestamp,
        /// Those that expire first come first.
        sites: Vec<DnsName>,
    },
}

impl Plan {
    /// Reads a plan's file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = config::read(path)?;
        Ok(serde_json::from_str(&text).map_err(|source| MigrationError::NoPlan { path: path.to_owned(), source })?)
    }

    /// Writes the plan to a new file, durably.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_public(path, &text).map_err(FileError::refused("write", path))?;
        Ok(sync_dir(parent(path))?)
    }

    /// How many renewals begin on each day (UTC), the first day first.
    pub fn days(&self) -> BTreeMap<String, u64> {
        let mut days = BTreeMap::new();
        if let Self::Renewal { sites, .. } = self {
            for one in sites {
                *days.entry(one.at.to_string().chars().take(10).collect()).or_default() += 1;
            }
        }
        days
    }

    /// How many sites it is for.
    pub fn len(&self) -> usize {
        match self {
            Self::Renewal { sites, .. } => sites.len(),
            Self::Rewrap { sites, .. } => sites.len(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
