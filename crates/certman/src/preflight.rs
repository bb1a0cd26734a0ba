//! Pre-flight: a look at names in the DNS before a CA is asked for anything. `certseal-issuance` judges.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::ensure;
use certseal_dns::{AllowedServers, Survey};
use certseal_issuance::{
    Method,
    preflight::{self, Issuer, Targets},
};
use certseal_service::networks::{Denied, NOT_PUBLIC};
use certseal_wire::{
    DnsName, DnsPlan, DnsRecord, Edit, Finding, FindingCode, NameReport, NameSet, NamesReport, RecordEdit,
};
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    config::{Dns, address},
    dns_challenges::DnsChallenges,
    suffixes::Suffixes,
};

/// Looks at names, some at a time.
pub(crate) struct Preflight {
    survey: Survey,
    targets: Targets,
    identities: Vec<String>,
    denied: Vec<DnsName>,
    suffixes: Arc<Suffixes>,
    /// The ways in which names are validated.
    methods: Vec<Method>,
    challenges: Option<Arc<DnsChallenges>>,
    looks: Arc<Semaphore>,
}

impl Preflight {
    /// `identities` stand for the CA in CAA records.
    pub(crate) fn new(
        config: &Dns,
        identities: Vec<String>,
        suffixes: Arc<Suffixes>,
        methods: Vec<Method>,
    ) -> anyhow::Result<Self> {
        let survey = survey(config)?;
        let targets = Targets {
            alias: config.target.clone(),
            addresses: config.addresses.iter().map(|address| address.to_canonical()).collect(),
        };
        ensure!(!targets.is_empty(), "expected dns.target or dns.addresses: names are compared with them");
        let challenges = config.challenges.as_ref().map(|settings| DnsChallenges::new(settings, survey.clone()));
        let challenges = challenges.transpose()?.map(Arc::new);
        ensure!(
            challenges.is_some() || !methods.contains(&Method::Dns),
            "expected [dns.challenges] for challenges of type dns-01"
        );
        Ok(Self {
            survey,
            challenges,
            methods,
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
            let challenges = self.challenges.clone().filter(|_| self.takes_dns(&name));
            let look = {
                let name = name.clone();
                async move {
                    // It is never closed.
                    let _one = looks_at_once.acquire().await;
                    let report = preflight::judged(&survey.observe(&name).await, &targets, &issuer);
                    match challenges {
                        Some(challenges) => {
                            let findings = report.findings.into_iter().chain(delegation(&challenges, &name).await);
                            NameReport::new(name, findings.collect())
                        }
                        None => report,
                    }
                }
            };
            looks.spawn(async move {
                let looked = tokio::time::timeout(PATIENCE, look).await;
                looked.unwrap_or_else(|_| NameReport::new(name, vec![too_slow()]))
            });
        }
        let mut reports = looks.join_all().await;
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        NamesReport::new(Timestamp::now(), reports)
    }

    /// The records that lead names here.
    pub(crate) fn plan(&self, names: &NameSet) -> DnsPlan {
        let of_name = |name: &DnsName| {
            let is_apex = self.suffixes.registered(name) == name.as_str();
            let leading = self.targets.records(name, is_apex).into_iter().map(|edit| edit.record);
            let challenges = self.challenges.as_ref().filter(|_| self.takes_dns(name));
            leading.chain(challenges.map(|challenges| challenges.delegation(name))).collect::<Vec<_>>()
        };
        let mut records: Vec<_> = names.iter().flat_map(of_name).collect();
        records.dedup();
        DnsPlan { records }
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

    /// Answers to dns-01 challenges, where there are any.
    pub(crate) fn challenges(&self) -> Option<Arc<DnsChallenges>> {
        self.challenges.clone()
    }

    fn takes_dns(&self, name: &DnsName) -> bool {
        name.is_wildcard() || self.methods.contains(&Method::Dns)
    }

    fn issuer(&self, account: Option<String>) -> Issuer {
        let methods = self.methods.iter().map(|method| method.as_str().to_owned()).collect();
        Issuer { identities: self.identities.clone(), account, methods }
    }
}

/// A name that takes too long is unknown, and holds up neither its order nor whoever asked.
fn too_slow() -> Finding {
    let detail = format!("looking at it took more than {} s", PATIENCE.as_secs());
    Finding { code: FindingCode::NotAsked, detail, edits: Vec::new() }
}

/// What stands in the way of a dns-01 challenge.
async fn delegation(challenges: &DnsChallenges, name: &DnsName) -> Option<Finding> {
    let (code, detail, edits) = match challenges.owner(name).await {
        Ok(Some(_)) => return None,
        Ok(None) => {
            let record = challenges.delegation(name);
            let detail = format!("its challenges are not delegated to the platform: expected {record}");
            (FindingCode::ChallengeNotDelegated, detail, vec![RecordEdit { edit: Edit::Add, record }])
        }
        Err(why) => (
            FindingCode::NotAsked,
            format!("whether its challenges are delegated could not be asked: {why}"),
            Vec::new(),
        ),
    };
    Some(Finding { code, detail, edits })
}

/// The resolvers, and the servers that may be asked besides.
fn survey(config: &Dns) -> anyhow::Result<Survey> {
    let resolvers: Vec<SocketAddr> = config.resolvers.iter().map(|it| address(it)).collect::<Result<_, _>>()?;
    ensure!(
        (2..=MOST_RESOLVERS).contains(&resolvers.len()),
        "expected 2 to {MOST_RESOLVERS} dns.resolvers, which see names from different places, got {}",
        resolvers.len()
    );
    let (denied, private) = (Denied::new(&NOT_PUBLIC), config.private_networks.clone());
    let allowed = AllowedServers::new(move |address| {
        denied.allows(address) || private.iter().any(|network| network.contains(address))
    });
    Ok(Survey::new(resolvers, allowed))
}

/// For a look at a name, its wait for a place among the others included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names under observation at one time: each takes a dozen questions.
const LOOKS: usize = 64;
const MOST_RESOLVERS: usize = 8;
