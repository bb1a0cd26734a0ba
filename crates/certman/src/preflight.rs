//! Pre-flight: a look at names in the DNS before a CA is asked for anything. `certseal-issuance` judges.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use certseal_dns::{AllowedServers, Survey};
use certseal_issuance::preflight::{self, Issuer, Targets};
use certseal_service::networks::{Denied, NOT_PUBLIC};
use certseal_wire::{DnsName, DnsPlan, DnsRecord, NameReport, NameSet, NamesReport};
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{config::Dns, suffixes::Suffixes};

/// Looks at names, some at a time.
pub(crate) struct Preflight {
    survey: Survey,
    targets: Targets,
    identities: Vec<String>,
    denied: Vec<DnsName>,
    suffixes: Arc<Suffixes>,
    looks: Arc<Semaphore>,
}

impl Preflight {
    /// `identities` stand for the CA in CAA records.
    pub(crate) fn new(config: &Dns, identities: Vec<String>, suffixes: Arc<Suffixes>) -> anyhow::Result<Self> {
        let resolvers: Vec<SocketAddr> = config.resolvers.iter().map(|it| address(it)).collect::<Result<_, _>>()?;
        ensure!(
            (2..=MOST_RESOLVERS).contains(&resolvers.len()),
            "expected 2 to {MOST_RESOLVERS} dns.resolvers, which see names from different places, got {}",
            resolvers.len()
        );
        let targets = Targets {
            alias: config.target.clone(),
            addresses: config.addresses.iter().map(|address| address.to_canonical()).collect(),
        };
        ensure!(!targets.is_empty(), "expected dns.target or dns.addresses: names are compared with them");
        let (denied, private) = (Denied::new(&NOT_PUBLIC), config.private_networks.clone());
        let allowed = AllowedServers::new(move |address| {
            denied.allows(address) || private.iter().any(|network| network.contains(address))
        });
        Ok(Self {
            survey: Survey::new(resolvers, allowed),
            targets,
            identities,
            denied: config.denied.clone(),
            suffixes,
            looks: Arc::new(Semaphore::new(LOOKS)),
        })
    }

    /// A look at all of a site's names. `account` is ours at the CA, once it is known.
    pub(crate) async fn look(&self, names: &NameSet, account: Option<String>) -> NamesReport {
        let issuer = Arc::new(self.issuer(account));
        let mut looks = JoinSet::new();
        for name in names.iter() {
            let name = name.clone();
            if let Some(finding) = preflight::refused(&name, self.suffixes.standing(&name), &self.denied) {
                looks.spawn(async move { NameReport::new(name, vec![finding]) });
                continue;
            }
            let (survey, targets) = (self.survey.clone(), self.targets.clone());
            let (issuer, looks_at_once) = (issuer.clone(), self.looks.clone());
            looks.spawn(async move {
                // It is never closed.
                let _one = looks_at_once.acquire().await;
                preflight::judged(&survey.observe(&name).await, &targets, &issuer)
            });
        }
        let mut reports = looks.join_all().await;
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        NamesReport::new(Timestamp::now(), reports)
    }

    /// The records that lead names here.
    pub(crate) fn plan(&self, names: &NameSet) -> DnsPlan {
        let of_name = |name: &DnsName| {
            let is_apex = self.suffixes.registered(name) == name.as_str().trim_start_matches("*.");
            self.targets.records(name, is_apex)
        };
        DnsPlan { records: names.iter().flat_map(of_name).map(|edit| edit.record).collect() }
    }

    /// The platform's own records: those of its target, and the CAA beside it, which speaks for all that are aliases of it.
    pub(crate) fn own_plan(&self) -> DnsPlan {
        let Some(target) = &self.targets.alias else { return DnsPlan { records: Vec::new() } };
        let addresses = self.targets.records(target, true).into_iter().map(|edit| edit.record);
        let allowing = self.identities.first().map(|identity| DnsRecord {
            owner: target.to_string(),
            ttl: preflight::TTL,
            kind: "CAA".to_owned(),
            value: format!("0 issue \"{identity}\""),
        });
        DnsPlan { records: addresses.chain(allowing).collect() }
    }

    fn issuer(&self, account: Option<String>) -> Issuer {
        Issuer { identities: self.identities.clone(), account, methods: vec!["http-01".to_owned()] }
    }
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let with_port = || text.parse().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| with_port()).with_context(|| {
        format!("expected the address of a resolver such as 10.0.0.53 or [fd00::53]:5353, got {text:?}")
    })
}

/// Names under observation at one time: each takes a dozen questions.
const LOOKS: usize = 64;
const MOST_RESOLVERS: usize = 8;
