//! Sites that nobody has added, and that a visitor asked an edge for: for which names there may be one, and how many.
//!
//! ```text
//! question -> limit of the edge -> known? -> never permitted? -> room -> rules -> room is taken -> site
//! ```
//!
//! Rules are tried in their order, and one that permits is enough. While one cannot be asked, names that no other one permits have
//! no answer: nothing else depends on it.

mod room;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use certseal_issuance::preflight::Suffix;
use certseal_service::{buckets::Buckets, tls};
use certseal_store::Storage;
use certseal_wire::{Caller, DnsName, NameSet, PoolName, Readiness, SiteRequest};
use http::{StatusCode, Uri};
use jiff::Timestamp;

use self::room::{Full, Room};
use crate::{
    answers::{Answer, Answers, UNAVAILABLE_FOR},
    config::{OnDemand as OnDemandConfig, Permit},
    preflight::Preflight,
    suffixes::Suffixes,
    web::{self, WebClient, web_client, web_url},
};

/// Decides for which names there are sites on demand.
pub(crate) struct OnDemand {
    config: OnDemandConfig,
    rules: Arc<[Rule]>,
    suffixes: Arc<Suffixes>,
    denied: Vec<DnsName>,
    permissions: Arc<Answers<Permission>>,
    /// The first line, which costs nothing: it bounds how often the journal is asked.
    limits: Mutex<Limits>,
    room: Arc<Room>,
}

impl OnDemand {
    /// `denied` are names without certificates, with all names below them. `storage` has the room for sites.
    ///
    /// # Errors
    /// When a rule is not usable, or there is none.
    pub(crate) fn new(
        config: &OnDemandConfig,
        preflight: Option<&Arc<Preflight>>,
        denied: Vec<DnsName>,
        suffixes: Arc<Suffixes>,
        storage: Arc<dyn Storage>,
    ) -> anyhow::Result<Self> {
        let seconds = config.remember_seconds;
        ensure!(
            (1..=86_400).contains(&seconds),
            "expected on_demand.remember_seconds between 1 and 86400, got {seconds}"
        );
        ensure!(!config.pools.is_empty(), "expected on_demand.pools: sites need at least one");
        ensure!(!config.permit.is_empty(), "expected on_demand.permit: without a rule no name is permitted");
        let rules = config.permit.iter().map(|permit| Rule::new(permit, preflight));
        Ok(Self {
            rules: rules.collect::<anyhow::Result<_>>()?,
            suffixes,
            denied,
            permissions: Answers::new(move |permission: &Permission| match permission {
                Permission::Permitted => PERMITTED_FOR,
                Permission::Refused => Duration::from_secs(seconds),
                Permission::Unavailable => UNAVAILABLE_FOR,
            }),
            limits: Mutex::new(Limits::new(config)),
            room: Arc::new(Room::new(config, storage)?),
            config: config.clone(),
        })
    }

    /// Whether edges of the pool may ask: they would serve the site.
    pub(crate) fn is_for(&self, pool: &PoolName) -> bool {
        self.config.pools.contains(pool)
    }

    /// What the platform would ask for.
    pub(crate) fn request(&self, names: NameSet) -> SiteRequest {
        let OnDemandConfig { upstream, pools, owner, .. } = self.config.clone();
        SiteRequest { owner, ..SiteRequest::new(names, upstream, pools) }
    }

    /// Why the name is not permitted, whatever the rules say.
    pub(crate) fn forbidden(&self, name: &DnsName) -> Option<String> {
        if name.is_wildcard() {
            return Some(format!("{name} is a wildcard, and no host that a visitor asks for"));
        }
        let lies_below = |denied: &&DnsName| {
            let rest = name.as_str().strip_suffix(denied.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if let Some(denied) = self.denied.iter().find(lies_below) {
            return Some(format!("the platform's deny list has {denied}"));
        }
        let is_suffix = self.suffixes.standing(name) == Suffix::Itself;
        is_suffix.then(|| format!("{name} is a public suffix, under which others have their domains"))
    }

    /// Counts a question of an edge.
    ///
    /// # Errors
    /// When the next one may come, if there were too many.
    pub(crate) fn count_question(&self, edge: &Caller) -> Result<(), Duration> {
        self.limits().count_question(edge, Instant::now())
    }

    /// Whether there is room for one more site.
    ///
    /// # Errors
    /// When there will be.
    pub(crate) fn room(&self, name: &DnsName) -> Result<(), Duration> {
        self.limits().room(&self.suffixes.registered(name), Instant::now())
    }

    /// Takes room for a site, from what all processes that share the journal have; or says when there will be some.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub(crate) async fn take_room(&self, name: &DnsName) -> anyhow::Result<Result<(), Duration>> {
        let domain = self.suffixes.registered(name);
        let first = self.limits().take(domain.clone(), Instant::now());
        if first.is_err() {
            return Ok(first);
        }
        let (room, of, now) = (self.room.clone(), domain.clone(), Timestamp::now());
        let taken = tokio::task::spawn_blocking(move || room.take(&of, now)).await??;
        Ok(taken.map_err(|full| self.limits().close(domain, &full, now)))
    }

    /// Whether the rules permit the name. None while too many are asked about.
    pub(crate) async fn permission(&self, name: &DnsName) -> Option<Permission> {
        let (rules, asked) = (self.rules.clone(), name.clone());
        let domain = self.suffixes.registered(name);
        self.permissions.of(name, domain, || async move { permission(&rules, &asked).await }).await
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there may be a certificate for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    Permitted,
    Refused,
    /// Nobody who could have said so was reached.
    Unavailable,
}

impl Answer for Permission {
    fn none() -> Self {
        Self::Unavailable
    }
}

/// How many there may be as far as this process knows. [`Room`] has what counts for sites.
struct Limits {
    /// Questions of an edge. The private CA bounds the number of edges.
    questions: Buckets<String>,
    /// Sites of a registered domain.
    domains: Buckets<String>,
    /// Sites in all, which bounds the number of domains, too.
    all: Buckets<()>,
}

impl Limits {
    fn new(config: &OnDemandConfig) -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            questions: Buckets::new(config.questions_per_minute, Duration::from_secs(60)),
            domains: Buckets::new(config.per_domain, hour),
            all: Buckets::new(config.in_all, hour),
        }
    }

    fn count_question(&mut self, edge: &Caller, now: Instant) -> Result<(), Duration> {
        let edge = edge.to_string();
        none_left(self.questions.wait(&edge, now))?;
        self.questions.take(edge, now);
        Ok(())
    }

    fn room(&self, domain: &str, now: Instant) -> Result<(), Duration> {
        none_left(self.domains.wait(domain, now).max(self.all.wait(&(), now)))
    }

    fn take(&mut self, domain: String, now: Instant) -> Result<(), Duration> {
        self.room(&domain, now)?;
        self.domains.take(domain, now);
        self.all.take((), now);
        Ok(())
    }

    /// Notes that others took what there was, as of `now`: the time until there is some.
    fn close(&mut self, domain: String, full: &Full, now: Timestamp) -> Duration {
        let here = Instant::now();
        let wait = |until: Timestamp| Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let (of_domain, of_all) = (full.of_domain.map(wait), full.of_all.map(wait));
        if let Some(wait) = of_domain {
            self.domains.close(domain, here + wait, here);
        }
        if let Some(wait) = of_all {
            self.all.close((), here + wait, here);
        }
        of_domain.max(of_all).unwrap_or_default()
    }
}

fn none_left(wait: Duration) -> Result<(), Duration> {
    if wait.is_zero() { Ok(()) } else { Err(wait) }
}

/// Something that says of a name whether there may be a certificate for it.
enum Rule {
    /// It leads to the platform.
    Dns(Arc<Preflight>),
    Ask(Box<Hook>),
}

impl Rule {
    fn new(permit: &Permit, preflight: Option<&Arc<Preflight>>) -> anyhow::Result<Self> {
        match permit {
            Permit::Dns => {
                let none = "on_demand.permit: the rule `dns` needs [dns] with resolvers and a target";
                Ok(Self::Dns(preflight.context(none)?.clone()))
            }
            Permit::Ask { url, roots } => {
                let url = web_url(url).context("on_demand.permit.url")?;
                let client = web_client(tls::web_client(roots)?);
                Ok(Self::Ask(Box::new(Hook { url, client })))
            }
        }
    }

    async fn permission(&self, name: &DnsName) -> Permission {
        match self {
            Self::Dns(preflight) => {
                // One name is a set of names.
                let Ok(names) = NameSet::try_from(vec![name.clone()]) else { return Permission::Refused };
                let looked = tokio::time::timeout(LOOK_PATIENCE, preflight.look(&names, &[], &[], None)).await;
                match looked.map(|report| report.readiness) {
                    Ok(Readiness::Ready) => Permission::Permitted,
                    Ok(Readiness::NotReady) => Permission::Refused,
                    Ok(Readiness::Unknown) | Err(_) => Permission::Unavailable,
                }
            }
            Self::Ask(hook) => hook.permission(name).await,
        }
    }
}

/// What the rules say together.
async fn permission(rules: &[Rule], name: &DnsName) -> Permission {
    let mut found = Permission::Refused;
    for rule in rules {
        match rule.permission(name).await {
            Permission::Permitted => return Permission::Permitted,
            Permission::Refused => {}
            Permission::Unavailable => found = Permission::Unavailable,
        }
    }
    found
}

/// A server of the platform that is asked, `GET URL?domain=NAME`.
struct Hook {
    url: Uri,
    client: WebClient,
}

impl Hook {
    async fn permission(&self, name: &DnsName) -> Permission {
        let answer = web::get(&self.client, &question(&self.url, name), PATIENCE).await;
        let said = |(status, _)| verdict(status).ok_or_else(|| format!("it answers {status}"));
        answer.and_then(said).unwrap_or_else(|why| {
            tracing::warn!(why, "the hook that permits names on demand cannot be asked");
            Permission::Unavailable
        })
    }
}

fn question(url: &Uri, name: &DnsName) -> String {
    // A name has no character that would have to be escaped.
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}domain={name}")
}

/// What a status says of a name; nothing where it is about the hook itself.
fn verdict(status: StatusCode) -> Option<Permission> {
    match status {
        StatusCode::OK => Some(Permission::Permitted),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => None,
        refused if refused.is_client_error() => Some(Permission::Refused),
        _ => None,
    }
}

/// How long a name stays permitted: until its site is there.
const PERMITTED_FOR: Duration = Duration::from_secs(60);
/// For a look into the DNS. The edge that asked gives up before, and finds the answer when it asks again; a slower look must not
/// keep its place from others.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
/// For the hook's answer. An edge waits twice as long for ours.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> OnDemandConfig {
        let text = format!("upstream = \"http://127.0.0.1:1\"\npools = [\"eu\"]\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn on_demand(more: &str) -> anyhow::Result<OnDemand> {
        let denied = vec!["evil.example.com".parse()?];
        let dir = tempfile::tempdir()?;
        let storage = Arc::new(certseal_store::SledStore::open(dir.path(), certseal_store::SledOptions::default())?);
        OnDemand::new(&config(more), None, denied, Arc::new(Suffixes::new(None)?), storage)
    }

    #[test]
    fn rules_that_cannot_work_are_refused_at_the_start() {
        for (bad, said) in [
            ("permit = []", "without a rule"),
            ("permit = [{ kind = \"dns\" }]", "[dns]"),
            ("permit = [{ kind = \"ask\", url = \"http://platform.example/\" }]", "https://"),
            ("remember_seconds = 0\npermit = [{ kind = \"dns\" }]", "remember_seconds"),
        ] {
            let error = format!("{:#}", on_demand(bad).err().unwrap());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn denied_names_public_suffixes_and_wildcards_are_never_permitted() {
        let roots = tempfile::NamedTempFile::new().unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        std::fs::write(roots.path(), certificate.cert.pem()).unwrap();
        let on_demand = on_demand(&format!(
            "permit = [{{ kind = \"ask\", url = \"http://127.0.0.1:1/ask\", roots = \"{}\" }}]",
            roots.path().display()
        ))
        .unwrap();
        let forbidden = |name: &str| on_demand.forbidden(&name.parse().unwrap());
        for name in ["evil.example.com", "a.evil.example.com", "co.uk", "*.example.com"] {
            assert!(forbidden(name).is_some(), "{name}");
        }
        for name in ["example.com", "devil.example.com", "shop.example.com", "a.b.internal"] {
            assert_eq!(forbidden(name), None, "{name}");
        }
        assert!(on_demand.is_for(&"eu".parse().unwrap()) && !on_demand.is_for(&"us".parse().unwrap()));
    }

    #[test]
    fn sites_are_limited_for_a_registered_domain_and_in_all_and_questions_for_an_edge() {
        let limits = "per_domain = 2\nin_all = 3\nquestions_per_minute = 2\npermit = []";
        let (mut limits, now) = (Limits::new(&config(limits)), Instant::now());
        let mut take = |domain: &str, now| limits.take(domain.to_owned(), now).is_ok();
        assert_eq!(["a.example", "a.example", "a.example"].map(|domain| take(domain, now)), [true, true, false]);
        assert_eq!(["b.example", "c.example"].map(|domain| take(domain, now)), [true, false], "three in all");
        let hour = now + Duration::from_secs(3600);
        assert!(take("a.example", hour) && take("c.example", hour));
        let edge = |name: &str| Caller { role: "edge/eu".parse().unwrap(), name: name.to_owned() };
        let mut asks = |name: &str| limits.count_question(&edge(name), now).is_ok();
        assert_eq!(["edge-1", "edge-1", "edge-1", "edge-2"].map(&mut asks), [true, true, false, true]);
    }

    #[test]
    fn what_others_took_is_not_asked_for_before_there_is_some() {
        let limits = "per_domain = 2\nin_all = 3\npermit = []";
        let (mut limits, now) = (Limits::new(&config(limits)), Timestamp::now());
        let after = |minutes: u64| Duration::from_secs(60 * minutes);
        let of_domain = Full { of_domain: Some(now + after(30)), of_all: None };
        assert_eq!(limits.close("a.example".to_owned(), &of_domain, now), after(30));
        assert!(limits.room("a.example", Instant::now()).is_err() && limits.room("b.example", Instant::now()).is_ok());
        let of_all = Full { of_domain: None, of_all: Some(now + after(20)) };
        assert_eq!(limits.close("b.example".to_owned(), &of_all, now), after(20));
        assert!(limits.room("b.example", Instant::now()).is_err());
        assert!(limits.room("b.example", Instant::now() + after(20)).is_ok());
    }

    #[test]
    fn a_hook_is_asked_about_the_domain_and_says_yes_or_no_or_nothing() {
        let name = "shop.example.com".parse().unwrap();
        let asked = |url: &str| question(&url.parse().unwrap(), &name);
        assert_eq!(asked("https://p.example/ask"), "https://p.example/ask?domain=shop.example.com");
        assert_eq!(asked("https://p.example/ask?key=1"), "https://p.example/ask?key=1&domain=shop.example.com");
        let said = |status: u16| verdict(StatusCode::from_u16(status).unwrap());
        assert_eq!(said(200), Some(Permission::Permitted));
        assert_eq!([403, 404, 410].map(said), [Some(Permission::Refused); 3]);
        assert_eq!([204, 302, 408, 429, 500, 503].map(said), [None; 6]);
    }
}
