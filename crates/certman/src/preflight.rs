//! Pre-flight: a look at names before a CA is asked for anything: in the DNS, and over their addresses. `certseal-issuance` judges.

mod fetch;
mod reputation;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use certseal_dns::{AllowedServers, Survey};
use certseal_issuance::{
    AuthorityId,
    preflight::{self, Issuer, Observed, Targets},
    ways,
};
use certseal_wire::{
    DnsName, DnsPlan, DnsRecord, Edit, Finding, FindingCode, NameReport, NameSet, NamesReport, Readiness, RecordEdit,
    ValidationMethod,
};
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::Instant,
};

use self::{
    fetch::{Fetches, Permitted, SiteShare},
    reputation::Reputation,
};
use crate::{
    config::{Dns, address},
    dns_challenges::DnsChallenges,
    suffixes::Suffixes,
};

/// Looks at names, some at a time.
pub(crate) struct Preflight {
    survey: Survey,
    targets: Targets,
    /// The names that stand for each CA in CAA records, those of the preferred one first.
    identities: Vec<(AuthorityId, Vec<String>)>,
    denied: Vec<DnsName>,
    suffixes: Arc<Suffixes>,
    /// The ways in which names are validated.
    methods: Vec<ValidationMethod>,
    challenges: Option<Arc<DnsChallenges>>,
    /// None where nothing is fetched.
    fetches: Option<Arc<Fetches>>,
    /// None where nobody is asked about names of bad repute.
    reputation: Option<Arc<Reputation>>,
    looks: Arc<Semaphore>,
    /// The target's addresses, and when they were asked for.
    found: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Preflight {
    /// `identities` stand for each CA in CAA records.
    pub(crate) fn new(
        config: &Dns,
        identities: Vec<(AuthorityId, Vec<String>)>,
        suffixes: Arc<Suffixes>,
        methods: Vec<ValidationMethod>,
    ) -> anyhow::Result<Self> {
        let permitted = Permitted::new(&config.private_networks);
        let survey = survey(config, permitted.clone())?;
        let targets = Targets {
            alias: config.target.clone(),
            addresses: config.addresses.iter().map(|address| address.to_canonical()).collect(),
            found: Vec::new(),
        };
        ensure!(!targets.is_empty(), "expected dns.target or dns.addresses: names are compared with them");
        let anywhere = Survey::new(resolvers(config)?, AllowedServers::new(|_| true));
        let challenges = config.challenges.as_ref().map(|settings| DnsChallenges::new(settings, anywhere));
        let challenges = challenges.transpose()?.map(Arc::new);
        ensure!(
            challenges.is_some() || !methods.contains(&ValidationMethod::Dns),
            "expected [dns.challenges] for challenges of type dns-01"
        );
        let fetches = config.fetch.then(|| Fetches::new(config, survey.clone(), permitted)).transpose()?.map(Arc::new);
        let reputation = config.reputation.as_ref().map(|it| Reputation::new(it, suffixes.clone())).transpose()?;
        Ok(Self {
            survey,
            challenges,
            fetches,
            reputation: reputation.map(Arc::new),
            methods,
            targets,
            identities,
            denied: config.denied.clone(),
            suffixes,
            looks: Arc::new(Semaphore::new(LOOKS)),
            found: Mutex::default(),
        })
    }

    /// A look at all of a site's names, which are validated by `own` methods where there are any. `accounts` are ours at the CAs,
    /// as far as they are known. Where edges answer challenges for `account`, one is fetched.
    pub(crate) async fn look(
        &self,
        names: &NameSet,
        own: &[ValidationMethod],
        accounts: &[(AuthorityId, Option<String>)],
        account: Option<String>,
    ) -> NamesReport {
        let methods = self.methods(own);
        let targets = Targets { found: self.target_addresses().await, ..self.targets.clone() };
        let look = Arc::new(Look {
            survey: self.survey.clone(),
            targets,
            issuers: self.issuers(methods, accounts),
            challenges: self.challenges.clone(),
            fetches: self.fetches.clone().zip(account.map(SiteShare::new)),
            reputation: self.reputation.clone(),
        });
        let of_site = Arc::new(Semaphore::new(LOOKS_OF_A_SITE));
        let until = Instant::now() + PATIENCE;
        let mut looks = JoinSet::new();
        for name in names.iter().cloned() {
            if let Some(finding) = self.refused(&name) {
                let report = NameReport::new(name, vec![finding]);
                let count = look.issuers.len();
                looks.spawn(async move { vec![report; count] });
                continue;
            }
            let (look, of_site, all) = (look.clone(), of_site.clone(), self.looks.clone());
            let ways = [ValidationMethod::Dns, ValidationMethod::DnsPersist, ValidationMethod::Http];
            let only = ways.into_iter().find(|method| takes_only(methods, &name, *method));
            looks.spawn(async move {
                let unknown = || vec![NameReport::new(name.clone(), vec![too_slow()]); look.issuers.len()];
                // They are never closed.
                let turn = async { (of_site.acquire().await, all.acquire().await) };
                let turn = tokio::time::timeout_at(until, turn).await;
                if turn.is_err() {
                    return unknown();
                }
                // A zone with slow servers hides no listing.
                let (reports, listed) = tokio::join!(
                    tokio::time::timeout_at(until, look.at(&name, only)),
                    tokio::time::timeout_at(until, look.listed(&name))
                );
                let (reports, listed) = (reports.unwrap_or_else(|_| unknown()), listed.ok().flatten());
                let listed_first = |report: NameReport| {
                    NameReport::new(report.name, listed.iter().cloned().chain(report.findings).collect())
                };
                reports.into_iter().map(listed_first).collect()
            });
        }
        let mut of_names = looks.join_all().await;
        of_names.sort_by(|a, b| a[0].name.cmp(&b[0].name));
        self.reported(of_names)
    }

    /// The report as the first of the CAs has it that CAA allows for all names. `of_names` has one for each name and CA.
    fn reported(&self, of_names: Vec<Vec<NameReport>>) -> NamesReport {
        let is_forbidden = |report: &NameReport| report.findings.iter().any(|it| it.code == FindingCode::CaaForbids);
        let forbids = |index: usize| of_names.iter().any(|reports| is_forbidden(&reports[index]));
        let all = 0..self.identities.len();
        let chosen = all.clone().find(|index| !forbids(*index));
        let forbidden_to = match chosen {
            Some(_) => all.filter(|index| forbids(*index)).map(|index| self.identities[index].0.to_string()).collect(),
            None => Vec::new(),
        };
        let chosen = chosen.unwrap_or_default();
        let names = of_names.into_iter().map(|mut reports| reports.swap_remove(chosen)).collect();
        NamesReport { forbidden_to, ..NamesReport::new(Timestamp::now(), names) }
    }

    /// Why there is to be no certificate for one of the names at all, whatever the DNS says.
    pub(crate) fn denied(&self, names: &NameSet) -> Option<Finding> {
        let refused = names.iter().filter_map(|name| self.refused(name));
        refused.into_iter().find(|finding| finding.code == FindingCode::Denied)
    }

    fn refused(&self, name: &DnsName) -> Option<Finding> {
        preflight::refused(name, self.suffixes.standing(name), &self.denied)
    }

    /// The addresses of the target, as they were a minute ago at most.
    async fn target_addresses(&self) -> Vec<IpAddr> {
        let Some(target) = &self.targets.alias else { return Vec::new() };
        let mut known = self.found.lock().await;
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > FOUND_FRESH) {
            let found = tokio::time::timeout(PATIENCE / 4, self.survey.addresses(target)).await.unwrap_or_default();
            // Where nobody answers, what was known is known still.
            let found = if found.is_empty() { known.take().map(|(_, found)| found).unwrap_or_default() } else { found };
            *known = Some((Instant::now(), found));
        }
        known.as_ref().map(|(_, found)| found.clone()).unwrap_or_default()
    }

    /// The records that lead names here, and let CAs validate them, by `own` methods where there are any. `accounts` are ours at
    /// the CAs, as far as they are known.
    pub(crate) fn plan(
        &self,
        names: &NameSet,
        own: &[ValidationMethod],
        accounts: &[(AuthorityId, Option<String>)],
    ) -> DnsPlan {
        let methods = self.methods(own);
        let issuers = self.issuers(methods, accounts);
        let of_name = |name: &DnsName| {
            let is_apex = self.suffixes.registered(name) == name.as_str();
            let leading = self.targets.records(name, is_apex).into_iter().map(|edit| edit.record);
            let challenges = self.challenges.as_ref().filter(|_| takes_only(methods, name, ValidationMethod::Dns));
            let delegation = challenges.map(|challenges| challenges.delegation(name));
            let is_persistent = ways(methods, name).contains(&ValidationMethod::DnsPersist);
            let persistent = issuers.iter().filter(|_| is_persistent);
            let persistent = persistent.filter_map(|issuer| preflight::persist_record(name, issuer));
            leading.chain(delegation).chain(persistent).collect::<Vec<_>>()
        };
        let mut records: Vec<_> = names.iter().flat_map(of_name).collect();
        records.dedup();
        DnsPlan { records }
    }

    /// The platform's own records: those of its target, and the CAA beside it, which speaks for all that are aliases of it.
    pub(crate) fn own_plan(&self) -> DnsPlan {
        let Some(target) = &self.targets.alias else { return DnsPlan { records: Vec::new() } };
        let addresses = self.targets.records(target, true).into_iter().map(|edit| edit.record);
        let allowing =
            self.identities.iter().filter_map(|(_, identities)| identities.first()).map(|identity| DnsRecord {
                owner: target.to_string(),
                ttl: preflight::TTL,
                kind: "CAA".to_owned(),
                value: format!("0 issue \"{identity}\""),
            });
        DnsPlan { records: addresses.chain(allowing).collect() }
    }

    /// Why there is to be no first certificate for the names: one of them is listed as of bad repute, or has to wait, since nobody
    /// says in time whether it is, and the platform wants to know.
    pub(crate) async fn unvetted(&self, names: &NameSet) -> Option<Finding> {
        let (name, found) = self.reputation.as_ref()?.objection(names).await?;
        Some(Finding { detail: format!("{name}: {}", found.detail), ..found })
    }

    /// Whether a challenge of our own is fetched.
    pub(crate) fn fetches(&self) -> bool {
        self.fetches.is_some()
    }

    /// Answers to dns-01 challenges, where there are any.
    pub(crate) fn challenges(&self) -> Option<Arc<DnsChallenges>> {
        self.challenges.clone()
    }

    /// The methods of a site that has its `own`, or none.
    fn methods<'a>(&'a self, own: &'a [ValidationMethod]) -> &'a [ValidationMethod] {
        if own.is_empty() { &self.methods } else { own }
    }

    fn issuers(&self, methods: &[ValidationMethod], accounts: &[(AuthorityId, Option<String>)]) -> Vec<Issuer> {
        let methods: Vec<String> = methods.iter().map(|method| method.as_str().to_owned()).collect();
        let issuer = |(authority, identities): &(AuthorityId, Vec<String>)| {
            let account =
                accounts.iter().find(|(known, _)| known == authority).and_then(|(_, account)| account.clone());
            Issuer { identities: identities.clone(), account, methods: methods.clone() }
        };
        self.identities.iter().map(issuer).collect()
    }
}

/// Whether a name is validated in one way and no other one: what is one of several may be missing.
fn takes_only(methods: &[ValidationMethod], name: &DnsName, method: ValidationMethod) -> bool {
    ways(methods, name).iter().all(|way| *way == method)
}

/// What a look at each of a site's names goes by.
struct Look {
    survey: Survey,
    targets: Targets,
    issuers: Vec<Issuer>,
    challenges: Option<Arc<DnsChallenges>>,
    /// Fetches, and the site's share of them.
    fetches: Option<(Arc<Fetches>, Arc<SiteShare>)>,
    reputation: Option<Arc<Reputation>>,
}

impl Look {
    /// What is found of a name, in the eyes of each CA. `only` is the one way in which it is validated, if there is one alone.
    async fn at(&self, name: &DnsName, only: Option<ValidationMethod>) -> Vec<NameReport> {
        let observed = self.survey.observe(name).await;
        let reports: Vec<_> =
            self.issuers.iter().map(|issuer| preflight::judged(&observed, &self.targets, issuer)).collect();
        let found: Vec<Option<Finding>> = match only {
            Some(ValidationMethod::DnsPersist) => {
                let seen = self.survey.texts_seen(&preflight::persist_owner(name)).await;
                let now = Timestamp::now();
                self.issuers.iter().map(|issuer| preflight::persisted(name, &seen, issuer, now)).collect()
            }
            Some(ValidationMethod::Http) => vec![self.fetched(name, &observed, &reports).await; reports.len()],
            Some(_) => {
                let found = match &self.challenges {
                    Some(challenges) => delegation(challenges, name).await,
                    None => Some(no_challenges()),
                };
                vec![found; reports.len()]
            }
            None => return reports,
        };
        let with = |(report, found): (NameReport, Option<Finding>)| {
            NameReport::new(name.clone(), report.findings.into_iter().chain(found).collect())
        };
        reports.into_iter().zip(found).map(with).collect()
    }

    /// What speaks against a name by its repute.
    async fn listed(&self, name: &DnsName) -> Option<Finding> {
        self.reputation.as_ref()?.finding(name).await
    }

    /// What speaks against a name by a fetch of our own challenge, if its records lead here and a CA may come.
    async fn fetched(&self, name: &DnsName, observed: &Observed, reports: &[NameReport]) -> Option<Finding> {
        let (fetches, share) = self.fetches.as_ref()?;
        if !reports.iter().any(|report| report.readiness == Readiness::Ready) {
            return None;
        }
        let addresses = preflight::fetched_at(observed);
        let seen = fetches.seen(name, &addresses, &self.targets, share);
        match tokio::time::timeout(FETCH_PATIENCE, seen).await {
            Ok(seen) => preflight::fetched(&seen),
            Err(_) => {
                let detail = format!("fetching our own challenge took more than {} s", FETCH_PATIENCE.as_secs());
                Some(Finding { code: FindingCode::NotAsked, detail, edits: Vec::new() })
            }
        }
    }
}

fn no_challenges() -> Finding {
    let detail = "a wildcard takes dns-01, and the platform has no [dns.challenges]".to_owned();
    Finding { code: FindingCode::NameRefused, detail, edits: Vec::new() }
}

/// A name that takes too long is unknown, and holds up neither its order nor whoever asked.
fn too_slow() -> Finding {
    let detail = format!("looking at it took more than {} s", PATIENCE.as_secs());
    Finding { code: FindingCode::NotAsked, detail, edits: Vec::new() }
}

/// What stands in the way of a dns-01 challenge.
async fn delegation(challenges: &DnsChallenges, name: &DnsName) -> Option<Finding> {
    let (code, detail, edits) = match challenges.is_delegated(name).await {
        Ok(true) => return None,
        Ok(false) => {
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

fn resolvers(config: &Dns) -> anyhow::Result<Vec<SocketAddr>> {
    let resolvers: Vec<SocketAddr> = config.resolvers.iter().map(|it| address(it)).collect::<Result<_, _>>()?;
    ensure!(
        (2..=MOST_RESOLVERS).contains(&resolvers.len()),
        "expected 2 to {MOST_RESOLVERS} dns.resolvers, which see names from different places, got {}",
        resolvers.len()
    );
    Ok(resolvers)
}

/// The resolvers, and the servers of customers that may be asked besides.
fn survey(config: &Dns, permitted: Permitted) -> anyhow::Result<Survey> {
    let allowed = AllowedServers::new(move |address| permitted.allows(address));
    Ok(Survey::new(resolvers(config)?, allowed))
}

/// For a look at all of a site's names.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the fetches of one name, once it is known where it leads.
const FETCH_PATIENCE: Duration = Duration::from_secs(25);
/// For how long the target's addresses are taken to be what they were.
const FOUND_FRESH: Duration = Duration::from_secs(60);
/// Names under observation at one time: each takes a dozen questions. One site's slow ones leave most places to the others.
const LOOKS: usize = 128;
const LOOKS_OF_A_SITE: usize = 8;
const MOST_RESOLVERS: usize = 8;
