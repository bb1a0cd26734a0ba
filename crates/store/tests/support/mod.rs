//! The backends that tests of the contract run over.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod cluster;
pub mod postgres;

use std::sync::Arc;

use certseal_store::{PostgresOptions, PostgresStore, SledOptions, SledStore, Storage};

use postgres::{Database, Server};

/// A place for one store, which can be opened again and again.
pub trait Backend {
    fn open(&self) -> Box<dyn Storage>;

    /// Does what may happen at any time while a store is open; `how` chooses what.
    fn disturb(&self, how: u8);
}

pub struct SledBackend(tempfile::TempDir);

impl SledBackend {
    pub fn scratch() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Backend for SledBackend {
    fn open(&self) -> Box<dyn Storage> {
        Box::new(SledStore::open(self.0.path(), SledOptions::default()).unwrap())
    }

    fn disturb(&self, _: u8) {}
}

pub struct PostgresBackend(Database);

impl PostgresBackend {
    pub fn scratch() -> Self {
        Self(Server::shared().database())
    }

    /// On a server that may crash, since nobody else's test needs it.
    pub fn on(server: &Arc<Server>) -> Self {
        Self(Arc::clone(server).database())
    }
}

impl Backend for PostgresBackend {
    fn open(&self) -> Box<dyn Storage> {
        Box::new(PostgresStore::open(PostgresOptions::new(self.0.url())).unwrap())
    }

    fn disturb(&self, how: u8) {
        match how {
            0 => self.0.server.crash(),
            _ => self.0.terminate_sessions(),
        }
    }
}
