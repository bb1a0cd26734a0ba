//! An ACME CA (RFC 8555), with http-01 (8.3), dns-01 (8.4) and tls-alpn-01 (RFC 8737).

mod account;
mod account_key;
mod account_note;
mod breaker;
mod chain;
mod client;
mod external;
mod pace;
mod signed;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use certseal_issuance::{Answer, Failure, FailureKind, OrderReport, OrderState, Outcome, Window};
use certseal_service::config::ConfigError;
use certseal_wire::{DnsName, NameSet, ProfileName, RevocationReason, ValidationMethod, causes};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RevocationRequest, SuggestedWindow,
};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, Der};
use tokio::sync::{OnceCell, RwLock};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
};

use crate::metrics::Requests;
pub(crate) use account_key::account_key_file;
pub(crate) use chain::MAX_CHAIN;
pub(crate) use external::ExternalAccount;

use account_note::AccountNote;
use breaker::{Leave, Subject};
use chain::Chain;
use client::{Busy, Http, Unanswered, as_new_order, with_alternates, with_retry_after};
use pace::Pace;
use signed::{AccountKey, Directory, Signer};

pub(crate) struct AcmeAuthority {
    directory: String,
    account_key: PathBuf,
    choices: Choices,
    http: Http,
    /// What the directory says, for requests that `instant-acme` does not make.
    urls: OnceCell<Directory>,
    account: Mutex<Option<Arc<Opened>>>,
    /// Held while the account is looked for.
    opening: tokio::sync::Mutex<()>,
    /// What is remembered of the account beside its key.
    note: Mutex<AccountNote>,
    /// Held by each request that the account's key signs; by one alone while the account gets another key, or ends.
    key_in_use: RwLock<()>,
    /// Held while somebody changes the account.
    changing: tokio::sync::Mutex<()>,
    /// The log says once that no chain is as it is wanted.
    has_missed_chain: AtomicBool,
    /// Alternate chains that could not be had once, by their URLs.
    missed_alternates: Mutex<HashSet<String>>,
    /// Orders as the CA described them last: what an answer said is not asked for again. One that is not here, after a
    /// restart for example, is read from the CA.
    orders: Mutex<HashMap<String, Order>>,
}

/// What an operator chooses at a CA.
#[derive(Default)]
pub(crate) struct Choices {
    /// What a CA wants to see that takes known customers only.
    pub(crate) external: Option<ExternalAccount>,
    /// The certificate profile to ask for where this CA is not the preferred one.
    pub(crate) profile: Option<ProfileName>,
    /// The common name of the issuer that chains should lead to.
    pub(crate) preferred_chain: Option<String>,
}

/// An account that the CA knows.
struct Opened {
    account: Account,
    key: AccountKey,
}

impl AcmeAuthority {
    /// A CA by its directory. Nothing is sent yet. The account's key is made when there is none.
    pub(crate) fn new(
        directory: String,
        roots: &Path,
        account_key: PathBuf,
        choices: Choices,
        requests: Requests,
    ) -> Result<Self, ConfigError> {
        let host = directory.parse::<http::Uri>().ok();
        let pace = Pace::of(host.as_ref().and_then(http::Uri::host));
        let http = Http::new(roots, pace, requests)?;
        let note = Mutex::new(AccountNote::read(&account_key)?);
        Ok(Self {
            directory,
            account_key,
            choices,
            http,
            urls: OnceCell::new(),
            account: Mutex::default(),
            opening: Default::default(),
            note,
            key_in_use: RwLock::default(),
            changing: Default::default(),
            has_missed_chain: AtomicBool::new(false),
            missed_alternates: Mutex::default(),
            orders: Mutex::default(),
        })
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) fn profile(&self) -> Option<&ProfileName> {
        self.choices.profile.as_ref()
    }

    /// Whether the CA did not answer several times in a row, and is left alone for a while; or the account there has ended.
    pub(crate) fn is_away(&self) -> bool {
        self.has_ended() || self.http.is_away()
    }

    /// The thumbprint of the account's key.
    pub(crate) async fn thumbprint(&self) -> Result<String, Failure> {
        let _key = self.key_in_use.read().await;
        self.account().await.map(|account| account.key_thumbprint().to_owned())
    }

    /// The account's URL, once the CA has said it.
    pub(crate) fn account_url(&self) -> Option<String> {
        self.known_account().map(|opened| opened.account.id().to_owned())
    }

    /// When the CA wants the certificate of this id to be renewed (RFC 9773, 4).
    pub(crate) async fn advice(&self, id: &str) -> Result<Outcome, Failure> {
        let _key = self.key_in_use.read().await;
        if self.has_ended() {
            return Ok(Outcome::NotAdvised);
        }
        let _leave = self.leave(Subject::Other)?;
        let (info, wait) = match self.account().await?.renewal_info(&identifier(id)?).await {
            Err(Error::Unsupported(_)) => return Ok(Outcome::NotAdvised),
            info => info.map_err(failure)?,
        };
        let instant = |unix_seconds: i64| {
            Timestamp::from_second(unix_seconds).map_err(|error| rejected(format!("the CA's window: {error}")))
        };
        let SuggestedWindow { start, end } = info.suggested_window;
        let (start, end) = (instant(start.unix_timestamp())?, instant(end.unix_timestamp())?);
        let window = Window::new(start, end);
        let window = window.ok_or_else(|| rejected(format!("the CA's window ends at {end} and begins at {start}")))?;
        let retry_after = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Ok(Outcome::Advised { window, retry_after, explanation: info.explanation_url })
    }

    pub(crate) async fn open_order(
        &self,
        names: &NameSet,
        replaces: Option<&str>,
        profile: Option<&ProfileName>,
    ) -> Result<String, Failure> {
        let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
        let mut request = NewOrder::new(&identifiers);
        if let Some(id) = replaces {
            request = request.replaces(identifier(id)?);
        }
        if let Some(profile) = profile {
            request = request.profile(profile.as_str());
        }
        let _key = self.key_in_use.read().await;
        let _leave = self.leave(Subject::NewOrder)?;
        let account = self.account().await?;
        let order = as_new_order(account.new_order(&request)).await.map_err(failure)?;
        let url = order.url().to_owned();
        self.keep(order);
        Ok(url)
    }

    /// The answers to give. `method` chooses the way for a name.
    pub(crate) async fn challenges(
        &self,
        order_url: &str,
        names: &NameSet,
        method: impl Fn(&DnsName) -> ValidationMethod,
    ) -> Result<Vec<Answer>, Failure> {
        let _key = self.key_in_use.read().await;
        let mut order = self.take(order_url).await?;
        let mut authorizations = order.authorizations();
        let (mut answers, mut is_over) = (Vec::new(), false);
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            let host = ordered(&authorization.identifier().to_string(), names)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => {
                    is_over = true;
                    break;
                }
            }
            let method = method(&host);
            let challenge = authorization.challenge(challenge_type(method));
            let none = || hopeless(format!("the CA offers no {} challenge for {host}", method.as_str()));
            let challenge = challenge.ok_or_else(none)?;
            answers.push(Answer {
                method,
                host,
                token: challenge.token.clone(),
                key_authorization: match method {
                    // There is no token, and nothing to be answered: the record is there.
                    ValidationMethod::DnsPersist => String::new(),
                    _ => challenge.key_authorization().as_str().to_owned(),
                },
            });
        }
        if is_over {
            return Err(invalid(&mut order).await);
        }
        self.keep(order);
        Ok(answers)
    }

    /// Tells the CA that these answers are given. Answers how long it asks to be left alone.
    pub(crate) async fn begin_validation(
        &self,
        order_url: &str,
        answers: &[Answer],
    ) -> Result<Option<SignedDuration>, Failure> {
        let _key = self.key_in_use.read().await;
        let account = self.account().await?;
        if !answers.iter().all(|answer| is_for(answer, account.key_thumbprint())) {
            // The CA would reject them, which counts with it.
            return Err(rejected(
                "the account has another key since the challenges were answered: the order begins anew",
            ));
        }
        let mut order = self.take(order_url).await?;
        let mut authorizations = order.authorizations();
        let mut wait = None;
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let host = authorization.identifier().to_string();
            let Some(answer) = answers.iter().find(|answer| answer.host.as_str() == host) else { continue };
            if let Some(mut challenge) = authorization.challenge(challenge_type(answer.method)) {
                let (ready, retry_after) = with_retry_after(challenge.set_ready()).await;
                match ready {
                    // The CA was told before, and its answer did not come here.
                    Err(Error::Api(problem)) if problem.status == Some(409) => {}
                    ready => ready.map_err(failure)?,
                }
                wait = wait.max(retry_after);
            }
        }
        self.keep(order);
        Ok(wait)
    }

    pub(crate) async fn order_report(&self, order_url: &str) -> Result<OrderReport, Failure> {
        let _key = self.key_in_use.read().await;
        self.not_ended()?;
        let known = self.known(order_url);
        let (order, retry_after) = with_retry_after(async {
            match known {
                Some(mut order) => order.refresh().await.map(drop).map(|()| order).map_err(order_failure),
                None => self.fetch(order_url).await,
            }
        })
        .await;
        self.report(order?, retry_after).await
    }

    async fn report(&self, mut order: Order, retry_after: Option<SignedDuration>) -> Result<OrderReport, Failure> {
        let state = match order.state().status {
            OrderStatus::Pending => OrderState::Pending,
            OrderStatus::Ready => OrderState::Ready,
            OrderStatus::Processing => OrderState::Processing,
            OrderStatus::Valid => OrderState::Valid,
            OrderStatus::Invalid => return Err(invalid(&mut order).await),
        };
        self.keep(order);
        Ok(OrderReport { state, retry_after })
    }

    pub(crate) async fn abandon(&self, order_url: &str) -> Result<(), Failure> {
        let _key = self.key_in_use.read().await;
        // With the account, everything has ended that was pending.
        if self.has_ended() {
            return Ok(());
        }
        // What is known of it is not enough: a validation may have ended meanwhile.
        drop(self.known(order_url));
        let _leave = self.leave(Subject::Other)?;
        let mut order = match self.fetch(order_url).await {
            Ok(order) => order,
            Err(failure) if failure.kind == FailureKind::Rejected => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            if authorization.status == AuthorizationStatus::Pending {
                authorization.deactivate().await.map_err(failure)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn revoke(&self, leaf: &[u8], reason: RevocationReason) -> Result<(), Failure> {
        let _key = self.key_in_use.read().await;
        // A revocation is no less wanted: another account there may do it.
        self.not_ended().map_err(|ended| Failure { kind: FailureKind::Unavailable, ..ended })?;
        let _leave = self.leave(Subject::Other)?;
        let certificate = CertificateDer::from(leaf);
        let request = RevocationRequest { certificate: &certificate, reason: reason_code(reason) };
        let account = self.account().await?;
        let mut revoked = account.revoke(&request).await;
        if matches!(&revoked, Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(BAD_REASON)) {
            // That it is revoked matters more than what is said of it.
            tracing::warn!(directory = self.directory, %reason, "the CA does not take this reason: revoking without one");
            let request = RevocationRequest { reason: None, ..request };
            revoked = account.revoke(&request).await;
        }
        match revoked {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(ALREADY_REVOKED) => Ok(()),
            // A CA without that interface never gets one while it is waited for.
            Err(error @ Error::Str(_)) => Err(rejected(format!("the CA: {}", causes(&error)))),
            other => other.map_err(failure),
        }
    }

    pub(crate) async fn finalize(&self, order_url: &str, csr: &[u8]) -> Result<OrderReport, Failure> {
        let _key = self.key_in_use.read().await;
        self.not_ended()?;
        let mut order = self.take(order_url).await?;
        let (finalized, retry_after) = with_retry_after(order.finalize_csr(csr)).await;
        finalized.map_err(failure)?;
        self.report(order, retry_after).await
    }

    pub(crate) async fn certificate(&self, order_url: &str) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let _key = self.key_in_use.read().await;
        self.not_ended()?;
        let mut order = self.take(order_url).await?;
        match order.state().status {
            OrderStatus::Processing => return Ok(None),
            OrderStatus::Valid => {}
            _ => return Err(invalid(&mut order).await),
        }
        let (text, alternates) = with_alternates(order.certificate()).await;
        let Some(text) = text.map_err(failure)? else { return Ok(None) };
        // The certificate is there, whatever came instead of it: another order would cost another one.
        let unusable = |why: String| Failure::new(FailureKind::Unavailable, format!("the CA's chain: {why}"));
        let sent = chain::parsed(&text).map_err(unusable)?;
        let default = match chain::ordered(&sent, Timestamp::now()).map_err(unusable)? {
            Some(ordered) => {
                if ordered != sent {
                    tracing::warn!(
                        order_url,
                        "the CA's chain is taken in the order in which its certificates issued each other"
                    );
                }
                ordered
            }
            // Some clients know the issuer, and a site without a certificate serves none.
            None => {
                tracing::error!(
                    order_url,
                    "nothing in the CA's chain issued its first certificate: it is taken as it came"
                );
                sent
            }
        };
        match &self.choices.preferred_chain {
            Some(issuer) => self.preferred(default, &alternates, issuer).await.map(Some),
            None => Ok(Some(default)),
        }
    }

    /// The first of the default chain and its alternates that leads to `issuer`, or the default chain.
    async fn preferred(&self, default: Chain, alternates: &[String], issuer: &str) -> Result<Chain, Failure> {
        if chain::leads_to(&default, issuer) {
            return Ok(default);
        }
        for url in alternates {
            let text = match self.read(url).await {
                Ok(text) => text,
                Err(failure) if failure.may_pass() && self.is_first_miss(url) => return Err(failure),
                // If the CA never gives one out, it holds no certificate up.
                Err(Failure { detail, .. }) => {
                    tracing::warn!(url, detail, "an alternate chain is passed over");
                    continue;
                }
            };
            match chain::alternate(&text, &default) {
                Ok(chain) if chain::leads_to(&chain, issuer) => match chain::follow(&chain, Timestamp::now()) {
                    Ok(()) => return Ok(chain),
                    Err(detail) => tracing::warn!(url, detail, "an alternate chain is passed over"),
                },
                Ok(_) => {}
                Err(detail) => tracing::warn!(url, detail, "an alternate chain is passed over"),
            }
        }
        if !self.has_missed_chain.swap(true, Ordering::Relaxed) {
            let directory = &self.directory;
            tracing::warn!(
                directory,
                issuer,
                "no chain leads to the issuer of `preferred_chain`: the CA's default one is taken"
            );
        }
        Ok(default)
    }

    /// Whether an alternate chain could not be had for the first time.
    fn is_first_miss(&self, url: &str) -> bool {
        let mut missed = self.missed_alternates.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.remove(url) {
            return false;
        }
        // Those that were had at their second attempt stay until then.
        if missed.len() >= MAX_KNOWN_ORDERS {
            missed.clear();
        }
        missed.insert(url.to_owned())
    }

    /// Reads something at the CA, as the account's holder (RFC 8555, 6.3).
    async fn read(&self, url: &str) -> Result<String, Failure> {
        let opened = self.opened().await?;
        let signer = Signer::Account(opened.account.id());
        let body = signed::post(&self.http, self.urls().await?, (&opened.key, signer), url, "").await;
        Ok(String::from_utf8_lossy(&body.map_err(failure)?).into_owned())
    }

    async fn urls(&self) -> Result<&Directory, Failure> {
        self.urls
            .get_or_try_init(|| async { Directory::read(&self.http, &self.directory).await.map_err(failure) })
            .await
    }

    /// Leave to ask the CA for something that would otherwise hold a place until the CA does not answer.
    fn leave(&self, subject: Subject) -> Result<Leave, Failure> {
        let left_alone = || {
            let detail = format!("{} failed several times in a row, and is left alone for a while", self.directory);
            Failure::new(FailureKind::Unavailable, detail)
        };
        self.http.leave(subject).ok_or_else(left_alone)
    }

    /// The order as it is known, else as the CA describes it. It is known no more until it is kept again, so that after a
    /// failure the CA is asked.
    async fn take(&self, url: &str) -> Result<Order, Failure> {
        match self.known(url) {
            Some(order) => Ok(order),
            None => self.fetch(url).await,
        }
    }

    async fn fetch(&self, url: &str) -> Result<Order, Failure> {
        self.account().await?.order(url.to_owned()).await.map_err(order_failure)
    }

    /// Has the CA asked next time.
    pub(crate) fn forget(&self, url: &str) {
        drop(self.known(url));
    }

    fn known(&self, url: &str) -> Option<Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(url)
    }

    fn keep(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose sites went to another process are never taken: with them all go, and the CA is asked once more.
        if orders.len() >= MAX_KNOWN_ORDERS {
            orders.clear();
        }
        orders.insert(order.url().to_owned(), order);
    }
}

/// Whether an answer is for the key of this thumbprint, or for none.
fn is_for(answer: &Answer, thumbprint: &str) -> bool {
    let of = answer.key_authorization.strip_prefix(answer.token.as_str()).and_then(|rest| rest.strip_prefix('.'));
    answer.key_authorization.is_empty() || of == Some(thumbprint)
}

fn challenge_type(method: ValidationMethod) -> ChallengeType {
    match method {
        ValidationMethod::Http => ChallengeType::Http01,
        ValidationMethod::TlsAlpn => ChallengeType::TlsAlpn01,
        ValidationMethod::Dns => ChallengeType::Dns01,
        ValidationMethod::DnsPersist => ChallengeType::Unknown(method.as_str().to_owned()),
    }
}

/// The code of a reason (RFC 5280, 5.3.1). Without one, none is said (RFC 8555, 7.6).
fn reason_code(reason: RevocationReason) -> Option<instant_acme::RevocationReason> {
    match reason {
        RevocationReason::KeyCompromise => Some(instant_acme::RevocationReason::KeyCompromise),
        RevocationReason::Superseded => Some(instant_acme::RevocationReason::Superseded),
        RevocationReason::CessationOfOperation => Some(instant_acme::RevocationReason::CessationOfOperation),
        RevocationReason::AffiliationChanged => Some(instant_acme::RevocationReason::AffiliationChanged),
        RevocationReason::Unspecified => None,
    }
}

/// A certificate's id at its CA (RFC 9773, 4.1); none for one without an authority key identifier, or with numbers longer than
/// any that are allowed (20 octets; RFC 5280, 4.1.2.2).
pub(crate) fn certificate_id(leaf: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let of_authority = |extension: &X509Extension<'_>| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    };
    let authority = leaf.iter_extensions().find_map(of_authority)?;
    let id = CertificateIdentifier::new(Der::from_slice(&authority), Der::from_slice(leaf.raw_serial())).to_string();
    Some(id).filter(|id| id.len() <= MAX_ID)
}

fn identifier(id: &str) -> Result<CertificateIdentifier<'_>, Failure> {
    let (authority, serial) =
        id.split_once('.').ok_or_else(|| rejected(format!("{id:?} is no id of a certificate")))?;
    Ok(CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() })
}

/// The host of an authorization, which must be one of the order's: a CA that names another one would have certman sign a
/// challenge for it, and edges answer.
fn ordered(host: &str, names: &NameSet) -> Result<DnsName, Failure> {
    let found = host.parse::<DnsName>().ok().filter(|host| names.iter().any(|name| name == host));
    found.ok_or_else(|| {
        let host: String = host.chars().take(253).collect();
        rejected(format!("the CA asks for an authorization of {host:?}, which is not a name of the order"))
    })
}

/// The CA's complaint about each name of a failed order, and the names whose validation failed.
async fn invalid(order: &mut Order) -> Failure {
    let (mut found, mut names) = (Vec::new(), Vec::new());
    if let Some(error) = &order.state().error {
        found.push(error.to_string());
    }
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let host = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|error| format!("{host}: {error}")));
        names.extend(host.parse().ok().filter(|_| authorization.status == AuthorizationStatus::Invalid));
    }
    let detail = if found.is_empty() { "the CA gave no reason".to_owned() } else { found.join("; ") };
    Failure { names, ..rejected(detail) }
}

fn rejected(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Rejected, detail)
}

fn hopeless(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Hopeless, detail)
}

/// The failure that follows from an error about an order.
fn order_failure(error: Error) -> Failure {
    match error {
        // An order that the CA has forgotten is over: begin anew.
        Error::Api(problem) if problem.status == Some(404) => rejected(problem),
        other => failure(other),
    }
}

/// The failure that follows from an error of the ACME client.
fn failure(error: Error) -> Failure {
    let kind = match &error {
        Error::Api(problem) => {
            let name = problem.r#type.as_deref().and_then(|name| name.strip_prefix("urn:ietf:params:acme:error:"));
            match name {
                // A paused name or account, which a person has to unpause (Boulder: `probs.Paused`).
                Some("rateLimited") if problem.detail.as_deref().is_some_and(|detail| detail.contains(PAUSED)) => {
                    FailureKind::Hopeless
                }
                Some("rateLimited") => FailureKind::Throttled(60),
                Some("alreadyReplaced") => FailureKind::AlreadyReplaced,
                Some("rejectedIdentifier" | "unsupportedIdentifier" | "invalidProfile" | "userActionRequired") => {
                    FailureKind::Hopeless
                }
                Some("serverInternal" | "badNonce" | "orderNotReady") | None => FailureKind::Unavailable,
                Some(_) => FailureKind::Rejected,
            }
        }
        Error::Other(other) => match other.downcast_ref::<Busy>() {
            Some(busy) => FailureKind::Throttled(busy.retry_after),
            None if other.downcast_ref().is_some_and(|unanswered: &Unanswered| unanswered.unsent) => {
                FailureKind::Unavailable
            }
            None => FailureKind::Unanswered,
        },
        // An answer that nobody can read, say.
        _ => FailureKind::Unanswered,
    };
    Failure::new(kind, format!("the CA: {}", causes(&error)))
}

/// As Boulder words it; the address of the page where it can be undone follows.
const PAUSED: &str = "temporarily prevented from requesting certificates";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const ALREADY_REVOKED: &str = "urn:ietf:params:acme:error:alreadyRevoked";
const BAD_REASON: &str = "urn:ietf:params:acme:error:badRevocationReason";
/// Characters of a certificate's id; the usual ones have some 60.
const MAX_ID: usize = 200;
/// As many as sites are under way with the usual number of workers.
const MAX_KNOWN_ORDERS: usize = 1024;

#[cfg(test)]
mod tests;
