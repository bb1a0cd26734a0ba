//! Certificate authorities: an ACME CA, or one in this process. Orders at both take the same steps.

mod acme;
mod local;

use certseal_issuance::{
    AccountRef, Answer, AuthorityId, Failure, FailureKind, Lineage, Method, OrderRef, OrderReport, OrderState, Outcome,
    Revocation, SealedKey,
};
use certseal_wire::{DnsName, NameSet, ProfileName};
use jiff::SignedDuration;

pub(crate) use acme::{AcmeAuthority, certificate_id};
pub(crate) use local::LocalAuthority;

/// The CAs by their ids: one is configured.
pub(crate) struct Authorities {
    id: AuthorityId,
    configured: Authority,
}

impl Authorities {
    pub(crate) fn new(configured: Authority) -> Self {
        let id = AuthorityId(match &configured {
            Authority::Acme(acme) => acme.directory().into(),
            Authority::Local(_) => "local".into(),
        });
        Self { id, configured }
    }

    /// The CA that is configured.
    pub(crate) fn id(&self) -> &AuthorityId {
        &self.id
    }

    /// The URL of our account at the CA, once it is known.
    pub(crate) fn account_url(&self) -> Option<String> {
        match &self.configured {
            Authority::Acme(acme) => acme.account_url(),
            Authority::Local(_) => None,
        }
    }

    /// The CA of an order. One that says of none is from before there could be several.
    pub(crate) fn of(&self, order: &OrderRef) -> Result<&Authority, Failure> {
        self.get(order.authority())
    }

    fn get(&self, id: Option<&AuthorityId>) -> Result<&Authority, Failure> {
        match id {
            Some(other) if *other != self.id => {
                let detail = format!("its CA {other} is configured no more, but {}", self.id);
                Err(Failure::new(FailureKind::Rejected, detail))
            }
            _ => Ok(&self.configured),
        }
    }

    /// Forgets what is known here of an order: another process may have gone on with it.
    pub(crate) fn forget(&self, order: &OrderRef) {
        if let Authority::Acme(acme) = &self.configured {
            acme.forget(&order.url);
        }
    }

    /// An account at a CA: its key is made before the first order.
    pub(crate) async fn open_account(&self, authority: &AuthorityId) -> Result<AccountRef, Failure> {
        let thumbprint = match self.get(Some(authority))? {
            Authority::Acme(acme) => Some(acme.thumbprint().await?),
            Authority::Local(_) => None,
        };
        Ok(AccountRef { authority: authority.clone(), thumbprint })
    }

    /// Creates an order, which may replace a certificate.
    pub(crate) async fn open_order(
        &self,
        account: &AccountRef,
        names: &NameSet,
        replaces: Option<&str>,
        profile: Option<&ProfileName>,
    ) -> Result<OrderRef, Failure> {
        let url = match self.get(Some(&account.authority))? {
            Authority::Acme(acme) => acme.open_order(names, replaces, profile).await?,
            Authority::Local(local) => local.open_order(),
        };
        Ok(OrderRef { account: Some(account.clone()), url })
    }

    /// When the CA wants a certificate to be renewed.
    pub(crate) async fn advice(&self, lineage: &Lineage) -> Result<Outcome, Failure> {
        match self.get(Some(&lineage.account.authority))? {
            Authority::Acme(acme) => acme.advice(&lineage.id).await,
            Authority::Local(_) => Ok(Outcome::NotAdvised),
        }
    }

    /// Has a certificate revoked, since others may have its key (RFC 8555, 7.6). One that is revoked already is.
    pub(crate) async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        match self.get(revocation.authority.as_ref())? {
            Authority::Acme(acme) => acme.revoke(&revocation.leaf.0).await,
            // Nobody asks it what is revoked.
            Authority::Local(_) => Ok(()),
        }
    }
}

/// The signer of the certificates.
#[expect(clippy::large_enum_variant, reason = "a process has one")]
pub(crate) enum Authority {
    Acme(AcmeAuthority),
    Local(LocalAuthority),
}

impl Authority {
    /// The challenges of those of `names` that are not authorized yet. A CA that asks for another one is refused.
    /// `method` chooses the way for a name.
    pub(crate) async fn challenges(
        &self,
        order_url: &str,
        names: &NameSet,
        method: impl Fn(&DnsName) -> Method,
    ) -> Result<Vec<Answer>, Failure> {
        match self {
            Self::Acme(acme) => acme.challenges(order_url, names, method).await,
            Self::Local(_) => Ok(Vec::new()),
        }
    }

    /// Tells the CA that all pending challenges can be validated. Answers how long it asks to be left alone.
    pub(crate) async fn begin_validation(
        &self,
        order_url: &str,
        answers: &[Answer],
    ) -> Result<Option<SignedDuration>, Failure> {
        match self {
            Self::Acme(acme) => acme.begin_validation(order_url, answers).await,
            Self::Local(_) => Ok(None),
        }
    }

    /// The order as the CA describes it.
    pub(crate) async fn order_report(&self, order_url: &str) -> Result<OrderReport, Failure> {
        match self {
            Self::Acme(acme) => acme.order_report(order_url).await,
            Self::Local(_) => Ok(VALID),
        }
    }

    /// Deactivates what is still pending in an order (RFC 8555, 7.5.2). An order that the CA has forgotten needs nothing.
    pub(crate) async fn abandon(&self, order_url: &str) -> Result<(), Failure> {
        match self {
            Self::Acme(acme) => acme.abandon(order_url).await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Hands over the CSR. Answers how the CA describes the order then.
    pub(crate) async fn finalize(&self, order_url: &str, sealed: &SealedKey) -> Result<OrderReport, Failure> {
        match self {
            Self::Acme(acme) => acme.finalize(order_url, request(sealed)?).await,
            Self::Local(_) => Ok(VALID),
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
            Self::Local(local) => local.sign(request(sealed)?).map(Some),
        }
    }
}

/// An order at the CA in this process needs no state: the holder of the request gets the certificate.
const VALID: OrderReport = OrderReport { state: OrderState::Valid, retry_after: None };

/// The request for a key that was made here.
fn request(sealed: &SealedKey) -> Result<&[u8], Failure> {
    let none = || Failure::new(FailureKind::Rejected, "the key was not made here, so that there is no request for it");
    sealed.csr.as_ref().map(|csr| csr.0.as_slice()).ok_or_else(none)
}
