//! The state of the HTTP interface.

use std::sync::Arc;

use axum::extract::FromRef;
use certseal_service::{
    admission::{Bodies, Rates},
    problem::Refusal,
};

use crate::{
    actor::Actor,
    admission::Admission,
    audit::{self, ReadLog},
    audit_note::AuditNote,
    blocking::blocking,
    feed::Feed,
    lookups::Lookups,
    snapshot::Snapshots,
    vault::Vault,
};

/// The parts of certstore that handlers work with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) vault: Arc<Vault>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) reads: ReadLog,
    pub(crate) rates: Arc<Rates>,
    pub(crate) bodies: Bodies,
}

impl Service {
    /// Notes that something was refused to a caller without a right to it. A caller that asks too often must not fill the
    /// log: it is refused all the same.
    pub(crate) async fn note_refusal(&self, actor: &Actor, note: AuditNote) -> Result<(), Refusal> {
        self.rates.admit_refusal(actor)?;
        let vault = self.vault.clone();
        blocking(move || audit::note_refusal(&vault, note)).await
    }
}

impl FromRef<Service> for Arc<Vault> {
    fn from_ref(service: &Service) -> Self {
        service.vault.clone()
    }
}
