//! Certificate authorities: an ACME CA, or one in this process. Orders at both take the same steps.

mod acme;
mod local;

use anyhow::ensure;
use certseal_issuance::{
    AccountRef, Answer, AuthorityId, Failure, FailureKind, Lineage, OrderRef, OrderReport, OrderState, Outcome,
    Revocation, SealedKey,
};
use certseal_wire::{DnsName, NameSet, ProfileName, ValidationMethod};
use jiff::SignedDuration;

pub(crate) use acme::{AcmeAuthority, Choices, ExternalAccount, MAX_CHAIN, account_key_file, certificate_id};
pub(crate) use local::LocalAuthority;

/// The CAs by their ids, the preferred one first.
pub(crate) struct Authorities(Vec<(AuthorityId, Authority)>);

impl Authorities {
    /// # Errors
    /// When two of them are the same.
    pub(crate) fn new(first: Authority, further: Vec<Authority>) -> anyhow::Result<Self> {
        let mut all: Vec<(AuthorityId, Authority)> = Vec::new();
        for authority in std::iter::once(first).chain(further) {
            let id = authority.id();
            ensure!(all.iter().all(|(known, _)| *known != id), "{id} is configured twice");
            all.push((id, authority));
        }
        Ok(Self(all))
    }

    /// The ids, that of the preferred CA first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &AuthorityId> {
        self.0.iter().map(|(id, _)| id)
    }

    /// Those that are away.
    pub(crate) fn away(&self) -> Vec<AuthorityId> {
        let is_away = |authority: &Authority| matches!(authority, Authority::Acme(acme) if acme.is_away());
        self.0.iter().filter(|(_, authority)| is_away(authority)).map(|(id, _)| id.clone()).collect()
    }

    /// The URLs of our accounts at the CAs, as far as they are known.
    pub(crate) fn account_urls(&self) -> Vec<(AuthorityId, Option<String>)> {
        let url = |authority: &Authority| match authority {
            Authority::Acme(acme) => acme.account_url(),
            Authority::Local(_) => None,
        };
        self.0.iter().map(|(id, authority)| (id.clone(), url(authority))).collect()
    }

    /// The CA of an order. One that says of none is from before there could be several.
    pub(crate) fn of(&self, order: &OrderRef) -> Result<&Authority, Failure> {
        self.get(order.authority())
    }

    fn get(&self, id: Option<&AuthorityId>) -> Result<&Authority, Failure> {
        let found = match id {
            Some(id) => self.0.iter().find(|(known, _)| known == id),
            None => self.0.first(),
        };
        found.map(|(_, authority)| authority).ok_or_else(|| {
            let configured: Vec<String> = self.ids().map(ToString::to_string).collect();
            let id = id.map(ToString::to_string).unwrap_or_default();
            let detail = format!("its CA {id} is configured no more, but {}", configured.join(", "));
            Failure::new(FailureKind::Rejected, detail)
        })
    }

    /// Forgets what is known here of an order: another process may have gone on with it.
    pub(crate) fn forget(&self, order: &OrderRef) {
        if let Ok(Authority::Acme(acme)) = self.of(order) {
            acme.forget(&order.url);
        }
    }

    /// The CAs with accounts.
    pub(crate) fn acme(&self) -> impl Iterator<Item = &AcmeAuthority> {
        self.0.iter().filter_map(|(_, authority)| match authority {
            Authority::Acme(acme) => Some(acme),
            Authority::Local(_) => None,
        })
    }

    /// An account at a CA: its key is made before the first order.
    pub(crate) async fn open_account(&self, authority: &AuthorityId) -> Result<AccountRef, Failure> {
        let thumbprint = match self.get(Some(authority))? {
            Authority::Acme(acme) => Some(acme.known_as().await?),
            Authority::Local(_) => None,
        };
        Ok(AccountRef { authority: authority.clone(), thumbprint })
    }

    /// The thumbprint of the key that the account at a CA has now; none where a CA has no accounts.
    pub(crate) async fn thumbprint(&self, authority: &AuthorityId) -> Result<Option<String>, Failure> {
        match self.get(Some(authority))? {
            Authority::Acme(acme) => acme.thumbprint().await.map(Some),
            Authority::Local(_) => Ok(None),
        }
    }

    /// Creates an order, which may replace a certificate.
    pub(crate) async fn open_order(
        &self,
        account: &AccountRef,
        names: &NameSet,
        replaces: Option<&str>,
        profile: Option<&ProfileName>,
    ) -> Result<OrderRef, Failure> {
        let is_preferred = self.ids().next() == Some(&account.authority);
        let url = match self.get(Some(&account.authority))? {
            // Each CA has names of its own for profiles.
            Authority::Acme(acme) if !is_preferred => acme.open_order(names, replaces, acme.profile()).await?,
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

    /// Has a certificate revoked (RFC 8555, 7.6). One that is revoked already is.
    pub(crate) async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        match self.get(revocation.authority.as_ref())? {
            Authority::Acme(acme) => acme.revoke(&revocation.leaf.0, revocation.reason).await,
            // Nobody asks it what is revoked.
            Authority::Local(_) => Ok(()),
        }
    }
}

/// The signer of the certificates.
#[expect(clippy::large_enum_variant, reason = "a process has a few")]
pub(crate) enum Authority {
    Acme(AcmeAuthority),
    Local(LocalAuthority),
}

impl Authority {
    fn id(&self) -> AuthorityId {
        AuthorityId(match self {
            Self::Acme(acme) => acme.directory().into(),
            Self::Local(_) => "local".into(),
        })
    }

    /// The challenges of those of `names` that are not authorized yet. A CA that asks for another one is refused.
    /// `method` chooses the way for a name.
    pub(crate) async fn challenges(
        &self,
        order_url: &str,
        names: &NameSet,
        method: impl Fn(&DnsName) -> ValidationMethod,
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
