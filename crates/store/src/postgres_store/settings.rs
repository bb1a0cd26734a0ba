//! A PostgreSQL database as configuration files name it.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::options::PostgresOptions;
use crate::StoreError;

/// A PostgreSQL database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// libpq's connection string, without a password; with several hosts the one that accepts writes is used.
    pub url: String,
    /// A file with the password alone, readable by its owner only.
    pub password_file: Option<PathBuf>,
    /// The CA of the servers' certificates, PEM. Needed unless the database is on this machine.
    pub ca: Option<PathBuf>,
    /// Our certificate for the database, PEM, if it asks for one.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Sessions for reading.
    pub pool_size: Option<usize>,
    /// How long a request tries again during a failover, in seconds.
    pub give_up_seconds: Option<u64>,
}

impl PostgresSettings {
    /// The options that follow from them.
    ///
    /// # Errors
    /// When a certificate comes without its key, or a key without its certificate.
    pub fn options(&self) -> Result<PostgresOptions, StoreError> {
        if self.certificate.is_some() != self.key.is_some() {
            let problem = "expected certificate and key of [postgres] together, came one of them: add the other one";
            return Err(StoreError::Options { problem: problem.to_owned() });
        }
        let mut options = PostgresOptions::new(&self.url);
        options.password_file.clone_from(&self.password_file);
        options.ca.clone_from(&self.ca);
        options.identity = self.certificate.clone().zip(self.key.clone());
        options.pool_size = self.pool_size.unwrap_or(options.pool_size);
        options.give_up = self.give_up_seconds.map_or(options.give_up, Duration::from_secs);
        Ok(options)
    }
}
