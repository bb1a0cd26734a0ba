//! Certificate authorities: an ACME CA, or one in this process. Both walk the same steps of an order.

mod acme;
mod local;

use certseal_wire::NameSet;

pub(crate) use acme::AcmeAuthority;
pub(crate) use local::LocalAuthority;

use crate::site::{Answer, Failure, SealedKey};

/// Who signs the certificates.
pub(crate) enum Authority {
    Acme(AcmeAuthority),
    Local(LocalAuthority),
}

/// What a CA says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderState {
    /// Some name is not authorized yet.
    Pending,
    /// It waits for the CSR.
    Ready,
    /// It has the CSR.
    Finalized,
}

impl Authority {
    /// What must be done once before the first order: an account, say. Answers the account's thumbprint.
    pub(crate) async fn prepare(&self) -> Result<Option<String>, Failure> {
        match self {
            Self::Acme(acme) => acme.thumbprint().await.map(Some),
            Self::Local(_) => Ok(None),
        }
    }

    /// Opens an order: its URL.
    pub(crate) async fn open_order(&self, names: &NameSet) -> Result<String, Failure> {
        match self {
            Self::Acme(acme) => acme.open_order(names).await,
            Self::Local(local) => Ok(local.open_order()),
        }
    }

    /// The challenges of those of `names` that are not authorized yet. A CA that asks for another one is refused.
    pub(crate) async fn challenges(&self, order_url: &str, names: &NameSet) -> Result<Vec<Answer>, Failure> {
        match self {
            Self::Acme(acme) => acme.challenges(order_url, names).await,
            Self::Local(_) => Ok(Vec::new()),
        }
    }

    /// Tells the CA that all pending challenges can be validated.
    pub(crate) async fn begin_validation(&self, order_url: &str) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.begin_validation(order_url).await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Where the order is.
    pub(crate) async fn order_state(&self, order_url: &str) -> Result<OrderState, Failure> {
        match self {
            Self::Acme(acme) => acme.order_state(order_url).await,
            Self::Local(_) => Ok(OrderState::Ready),
        }
    }

    /// Deactivates what is still pending in an order (RFC 8555, 7.5.2). An order that the CA has forgotten needs nothing.
    pub(crate) async fn abandon(&self, order_url: &str) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.abandon(order_url).await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Has a certificate revoked, since others may have its key (RFC 8555, 7.6). One that is revoked already is.
    pub(crate) async fn revoke(&self, leaf: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.revoke(leaf).await,
            // Nobody asks it what is revoked.
            Self::Local(_) => Ok(()),
        }
    }

    /// Hands over the CSR.
    pub(crate) async fn finalize(&self, order_url: &str, sealed: &SealedKey) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.finalize(order_url, &sealed.csr.0).await,
            Self::Local(_) => Ok(()),
        }
    }

    /// The chain as DER, leaf first; None while the CA is still at work.
    pub(crate) async fn certificate(
        &self,
        order_url: &str,
        sealed: &SealedKey,
    ) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        match self {
            Self::Acme(acme) => acme.certificate(order_url).await,
            Self::Local(local) => local.sign(&sealed.csr.0).map(Some),
        }
    }
}
