//! certman: issues and renews certificates, seals each key as it is born, and forgets it.
//!
//! ```text
//! GET    /v1/sites?after=       the platform's sites, a page at a time
//! POST   /v1/sites              adds, changes and removes many
//! PUT    /v1/sites/NAME         adds or changes one      (role platform or admin, as all of these)
//! GET    /v1/sites/NAME         how it is going
//! GET    /v1/sites?expiring=true        those whose certificates are near their end
//! GET    /v1/orders?stage=&after=       orders, the dead letters say
//! GET    /v1/sites/NAME/order           its order
//! POST   /v1/sites/NAME/order/retry     tries it again now
//! DELETE /v1/sites/NAME/order           gives it up
//! GET    /v1/budget             what the CA allows, and what of it is used
//! GET    /v1/accounts           the accounts at the CAs                                              (role admin)
//! POST   /v1/accounts/rollover  gives one another key; /v1/accounts/deactivation ends one, for good (role admin)
//! GET    /v1/openapi.json       this interface in OpenAPI           (every role)
//! GET    /v1/events?after=      what happened to sites; POST /v1/events/replay has it told again
//! GET    /v1/sites/NAME/dns     the records that its names should have; /v1/dns those of the platform
//! POST   /v1/sites/NAME/dns     looks at its names in the DNS now
//! POST   /v1/sites/NAME/renew   renews its certificate now, or earlier than planned
//! POST   /v1/sites/NAME/advice  asks the CA now when it wants the certificate to be renewed
//! DELETE /v1/sites/NAME         it leaves
//! POST   /v1/on-demand/NAME     a visitor wants a name that no site has                                  (role edge)
//! POST   /v1/sites/NAME/import       a site with the certificate and the sealed key that a platform has
//! POST   /v1/sites/NAME/envelope     the key of its certificate, sealed anew elsewhere           (role admin)
//! POST   /v1/sites/NAME/replacement  others may have its key: another certificate, the old one revoked    (role admin)
//! POST   /v1/sites/NAME/revocation   the same for another reason, or without another certificate          (role admin)
//! ```
//!
//! `certseal-issuance` decides what is to be done for a site. The journal keeps sites on disk and in a queue, the worker takes
//! what is due and does it. Signed checkpoints list the changes that certstore acknowledged: by them edges see what it
//! withholds.

mod accounts;
mod answers;
mod api;
mod authority;
mod certstore;
mod checkpoint;
mod config;
mod dns_challenges;
mod drive;
mod events;
mod expiry;
mod indexes;
mod journal;
mod leases;
mod ledger;
mod metrics;
mod new_key;
mod on_demand;
mod preflight;
mod presented;
mod queue;
mod recent;
mod repeats;
mod signatures;
mod stapling;
mod suffixes;
mod warm_up;
mod web;
mod webhooks;
mod witness;
mod worker;

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use certseal_client::{Connection, StoreClient};
use certseal_issuance::{AuthorityId, Policy};
use certseal_seal::{SigningKey, VerifyingKey};
use certseal_service::{
    Shutdown,
    admission::Rates,
    config as files,
    server::{self, Limits},
    telemetry,
    tls::{LiveTls, Peer},
};
use certseal_wire::ValidationMethod;
use jiff::SignedDuration;
use tokio::{sync::Notify, task::JoinHandle};
use zeroize::Zeroizing;

pub use config::{
    Authority as AuthorityConfig, Config, Dns as DnsConfig, DnsChallenges as DnsChallengesConfig,
    ExternalAccount as ExternalAccountConfig, Groups as GroupsConfig, LimitOverride, OnDemand as OnDemandConfig,
    Permit, Reputation as ReputationConfig, VantagePoint, WarmUp as WarmUpConfig, Webhooks as WebhooksConfig,
    WhileUnavailable,
};

use authority::{AcmeAuthority, Authorities, Authority, Choices, ExternalAccount, LocalAuthority, account_key_file};
use certstore::Certstore;
use journal::Journal;
use ledger::{Ledger, Rules};
use metrics::{Metrics, Requests};
use new_key::Groups;
use on_demand::OnDemand;
use preflight::Preflight;
use stapling::Responders;
use suffixes::Suffixes;
use warm_up::WarmUps;
use webhooks::Webhooks;
use worker::{Slots, Worker};

/// A started certman.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    server: JoinHandle<()>,
    worker: JoinHandle<()>,
    checkpoints: JoinHandle<()>,
    leases: JoinHandle<()>,
    accounts: JoinHandle<()>,
    webhooks: Option<JoinHandle<()>>,
    warm_ups: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits until the shutdown is complete.
    ///
    /// # Errors
    /// When a task of the daemon panicked.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.server.await.context("the server task ended early")?;
        self.worker.await.context("the worker task ended early")?;
        self.leases.await.context("the lease task ended early")?;
        self.accounts.await.context("the account task ended early")?;
        if let Some(webhooks) = self.webhooks {
            webhooks.await.context("the webhook task ended early")?;
        }
        if let Some(warm_ups) = self.warm_ups {
            warm_ups.await.context("the warm-up task ended early")?;
        }
        self.checkpoints.await.context("the checkpoint task ended early")
    }
}

/// Opens the journal, goes on with what was under way, and starts to listen.
///
/// # Errors
/// When a file of the configuration is not usable, the journal does not open, or the address is taken.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    certseal_service::lock_memory_of_secrets();
    let seconds = config.checkpoint_seconds;
    ensure!((1..=300).contains(&seconds), "expected checkpoint_seconds between 1 and 300, got {seconds}");
    let groups = &config.groups;
    ensure!((1..=10_000).contains(&groups.size), "expected groups.size between 1 and 10000, got {}", groups.size);
    let seconds = groups.max_age_seconds;
    ensure!((1..=86_400).contains(&seconds), "expected groups.max_age_seconds between 1 and 86400, got {seconds}");
    let groups = Groups::new(groups.size, SignedDuration::from_secs(seconds.into()));
    let tls = LiveTls::follow(config.tls, shutdown.clone())?;
    let security = VerifyingKey::from_pem(&files::read(&config.security_key)?)
        .with_context(|| config.security_key.display().to_string())?;
    let issuer = SigningKey::from_pem(&files::read_private(&config.issuer_key)?)
        .with_context(|| config.issuer_key.display().to_string())?;
    let store = store_client(&config.store)?;
    let listener = server::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let (data_dir, postgres) = (config.data_dir.clone(), config.postgres.clone());
    let journal = tokio::task::spawn_blocking(move || match postgres {
        Some(postgres) => Journal::open_shared(postgres.options()?),
        None => Journal::open(&data_dir.join("journal")),
    });
    let journal = journal.await??.telling(config.webhooks.is_some());
    let begun = journal.clone();
    tokio::task::spawn_blocking(move || begun.begin_changes(jiff::Timestamp::now())).await??;
    let (metrics, registry) = Metrics::new(journal.commits());
    let webhooks = config.webhooks.as_ref();
    let webhooks = webhooks.map(|webhooks| Webhooks::new(webhooks, journal.clone(), metrics.clone())).transpose()?;
    let further = &config.further_authorities;
    ensure!(
        further.iter().all(|further| matches!(further, AuthorityConfig::Acme { .. })),
        "expected further_authorities of kind acme"
    );
    let rules = rules(&config.authority, further)?;
    let preflight = preflight(config.dns.as_ref(), &config.authority, further, &rules)?.map(Arc::new);
    let denied = config.dns.as_ref().map(|dns| dns.denied.clone()).unwrap_or_default();
    let on_demand = config.on_demand.as_ref();
    let on_demand =
        on_demand.map(|it| OnDemand::new(it, preflight.as_ref(), denied, rules.suffixes.clone(), journal.storage()));
    let on_demand = on_demand.transpose()?;
    let warm_ups = config.warm_up.as_ref().map(|it| WarmUps::new(it, metrics.clone())).transpose()?;
    let ledger = Ledger::start(journal.clone(), rules);
    let made = |authority_config: &AuthorityConfig, is_preferred: bool| {
        authority(authority_config, &config.data_dir, is_preferred, metrics.requests.clone())
    };
    let first = made(&config.authority, true)?;
    let further = further.iter().map(|further| made(further, false)).collect::<anyhow::Result<_>>()?;
    let authorities = Authorities::new(first, further)?;
    let retry = SignedDuration::from_secs(i64::try_from(config.retry_seconds).context("retry_seconds")?);
    let profile = match &config.authority {
        AuthorityConfig::Acme { profile, .. } => profile.clone(),
        AuthorityConfig::Local { .. } => None,
    };
    let mut ids = authorities.ids().cloned();
    let policy = Policy {
        authority: ids.next().context("there is no CA")?,
        further: ids.collect(),
        away: Vec::new(),
        retry,
        profile,
        looks_first: preflight.is_some(),
        methods: methods(&config.authority),
    };

    if let Some(address) = config.telemetry {
        let readiness = journal.clone();
        let ready = Arc::new(move || readiness.healthy().map_err(|e| e.to_string()));
        telemetry::start(address, registry, ready, shutdown.clone()).await?;
    }
    let certstore = Arc::new(Certstore::new(store, issuer, security, journal.clone()));
    let checkpoints = checkpoint::run(
        certstore.clone(),
        journal.clone(),
        Duration::from_secs(config.checkpoint_seconds),
        shutdown.clone(),
    );
    let checkpoints = tokio::spawn(checkpoints);
    let worker = Arc::new(Worker {
        certstore,
        dns_challenges: preflight.as_deref().and_then(Preflight::challenges),
        preflight,
        on_demand,
        warm_ups: warm_ups.clone(),
        journal,
        ledger,
        turns: Default::default(),
        authorities,
        metrics,
        policy,
        slots: Slots::new(config.workers),
        wake: Notify::new(),
        responders: Responders::new(),
        looking: Default::default(),
        busy: Default::default(),
        groups: groups.into(),
        reorders_per_day: config.reorders_per_day,
    });
    let app = api::router(worker.clone(), Rates::new(config.requests_per_second));
    let webhooks = webhooks.map(|webhooks| tokio::spawn(webhooks.run(shutdown.clone())));
    let warm_ups = warm_ups.map(|warm_ups| tokio::spawn(warm_ups.run(shutdown.clone())));
    let leases = tokio::spawn(worker.clone().keep_leases(shutdown.clone()));
    let accounts = tokio::spawn(worker.clone().keep_accounts(shutdown.clone()));
    let worker = tokio::spawn(worker.run(shutdown.clone()));
    let server = server::serve_mtls(listener, tls, config.trust_domain, app, Limits::default(), shutdown);
    let server = tokio::spawn(server);
    tracing::info!(%address, "certman is listening");
    Ok(Running { address, server, worker, checkpoints, leases, accounts, webhooks, warm_ups })
}

fn store_client(store: &Peer) -> anyhow::Result<StoreClient> {
    let url = store.url.parse().with_context(|| format!("store.url {:?}", store.url))?;
    Ok(StoreClient::new(Connection::new(url, store.client_config()?)))
}

/// The CA, with its account's key in `data_dir` where the configuration names no other file.
fn authority(
    config: &AuthorityConfig,
    data_dir: &Path,
    is_preferred: bool,
    requests: Requests,
) -> anyhow::Result<Authority> {
    Ok(match config {
        AuthorityConfig::Local { certificate, key, lifetime_seconds } => {
            Authority::Local(LocalAuthority::load(certificate, key, *lifetime_seconds)?)
        }
        AuthorityConfig::Acme { directory, roots, account_key, external_account, profile, preferred_chain, .. } => {
            let account_key = account_key_file(account_key.as_deref(), data_dir, directory, is_preferred)?;
            let external = external_account.as_ref().map(external_account_of).transpose()?;
            let choices = Choices { external, profile: profile.clone(), preferred_chain: preferred_chain.clone() };
            Authority::Acme(AcmeAuthority::new(directory.clone(), roots, account_key, choices, requests)?)
        }
    })
}

fn external_account_of(config: &config::ExternalAccount) -> anyhow::Result<ExternalAccount> {
    let text = files::read_private(&config.key_file)?;
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map(Zeroizing::new);
    let key = key.ok().filter(|key| key.len() >= 16).with_context(|| {
        format!("{}: expected a key of 16 octets or more in base64url, as the CA gives it", config.key_file.display())
    })?;
    Ok(ExternalAccount { key_id: config.key_id.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
}

/// The CA's id.
fn id_of(config: &AuthorityConfig) -> AuthorityId {
    AuthorityId(match config {
        AuthorityConfig::Acme { directory, .. } => directory.as_str().into(),
        AuthorityConfig::Local { .. } => "local".into(),
    })
}

/// The looks at names, where there are any.
fn preflight(
    dns: Option<&DnsConfig>,
    authority: &AuthorityConfig,
    further: &[AuthorityConfig],
    rules: &Rules,
) -> anyhow::Result<Option<Preflight>> {
    let identities = |config: &AuthorityConfig| match config {
        AuthorityConfig::Acme { directory, caa_identities, .. } => {
            config::caa_identities(directory, caa_identities.as_ref())
        }
        AuthorityConfig::Local { .. } => Vec::new(),
    };
    let all = std::iter::once(authority).chain(further);
    let identities = all.map(|config| (id_of(config), identities(config))).collect();
    dns.map(|dns| Preflight::new(dns, identities, rules.suffixes.clone(), methods(authority))).transpose()
}

/// How names are validated.
fn methods(authority: &AuthorityConfig) -> Vec<ValidationMethod> {
    match authority {
        AuthorityConfig::Acme { challenges, .. } => challenges.clone(),
        AuthorityConfig::Local { .. } => Vec::new(),
    }
}

/// How the CAs' limits are counted: by one list of public suffixes.
fn rules(first: &AuthorityConfig, further: &[AuthorityConfig]) -> anyhow::Result<Rules> {
    let (mut of_cas, mut list) = (HashMap::new(), None);
    for config in std::iter::once(first).chain(further) {
        if let AuthorityConfig::Acme { directory, limits, overrides, public_suffix_list, .. } = config {
            of_cas.insert(id_of(config), config::limits(directory, limits.as_deref(), overrides)?);
            list = list.or_else(|| public_suffix_list.clone());
        }
    }
    Ok(Rules { limits: of_cas, suffixes: Arc::new(Suffixes::new(list)?) })
}
