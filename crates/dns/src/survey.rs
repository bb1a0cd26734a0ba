//! The survey of one name.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Instant,
};

use certseal_issuance::preflight::{CaaLookup, Observed, Observer, Unresolved, View};
use certseal_wire::DnsName;
use hickory_proto::rr::{Name, RecordType};
use tokio::task::JoinSet;

use crate::{
    allowed::AllowedServers,
    records::{caa, ipv4, ipv6, txt},
    resolver::{Resolver, text},
    servers::Zone,
};

/// Asks the DNS about names.
#[derive(Debug, Clone)]
pub struct Survey {
    resolvers: Vec<Resolver>,
    allowed: AllowedServers,
}

impl Survey {
    /// A survey by these resolvers, which should validate DNSSEC, as those of CAs do.
    pub fn new(resolvers: impl IntoIterator<Item = SocketAddr>, allowed: AllowedServers) -> Self {
        let resolvers = resolvers.into_iter().map(|address| Resolver { address }).collect();
        Self { resolvers, allowed }
    }

    /// Everything that is seen of a name; of a wildcard, what is seen of the name that it stands above.
    pub async fn observe(&self, name: &DnsName) -> Observed {
        let base = name.as_str().trim_start_matches("*.");
        let Ok(mut asked) = Name::from_str(base) else {
            // Every `DnsName` is one; an answer is owed all the same.
            return Observed { name: name.clone(), is_apex: false, views: Vec::new(), servers: None, took: 0 };
        };
        asked.set_fqdn(true);
        let began = Instant::now();
        let mut views = JoinSet::new();
        for resolver in self.resolvers.clone() {
            let asked = asked.clone();
            views.spawn(async move { view(resolver, &asked).await });
        }
        let mut views = views.join_all().await;
        views.sort_by_key(|view| self.resolvers.iter().position(|resolver| named(resolver) == view.observer));
        let fails = |view: &View| {
            let failed = |why: Option<&Unresolved>| matches!(why, Some(Unresolved::Failed(_)));
            failed(view.ipv4.records.as_ref().err()) || failed(view.ipv6.records.as_ref().err())
        };
        let zone = self.zone(&asked, &views).await;
        let is_apex = zone.as_ref().is_some_and(|zone| zone.origin == asked);
        let servers = match &zone {
            Some(zone) if views.iter().any(fails) => zone.trouble().await,
            Some(zone) => {
                views.extend(zone.views(&asked).await);
                None
            }
            None => None,
        };
        let took = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
        Observed { name: name.clone(), is_apex, views, servers, took }
    }

    /// Whether a name's aliases come to `end`. Nothing is asked about that itself: caches would keep that it is not there.
    ///
    /// # Errors
    /// When no resolver can be asked, or the aliases do not end.
    pub async fn leads_to(&self, name: &str, end: &str) -> Result<bool, String> {
        let parse = |text: &str| Name::from_str(text).map_err(|error| error.to_string());
        let (mut asked, mut end) = (parse(name)?, parse(end)?);
        asked.set_fqdn(true);
        end.set_fqdn(true);
        let mut why = "no resolver is configured".to_owned();
        for resolver in &self.resolvers {
            match resolver.leads_to(&asked, &end).await {
                Ok(leads) => return Ok(leads),
                Err(error) => why = format!("{}: {error}", resolver.address),
            }
        }
        Err(why)
    }

    /// The addresses of a name as all resolvers see them together.
    pub async fn addresses(&self, name: &DnsName) -> Vec<IpAddr> {
        let Ok(mut asked) = Name::from_str(name.as_str()) else { return Vec::new() };
        asked.set_fqdn(true);
        let mut found = Vec::new();
        for resolver in &self.resolvers {
            let v4 = resolver.lookup(&asked, RecordType::A, ipv4).await.records.unwrap_or_default();
            let v6 = resolver.lookup(&asked, RecordType::AAAA, ipv6).await.records.unwrap_or_default();
            found.extend(v4.into_iter().map(IpAddr::from).chain(v6.into_iter().map(IpAddr::from)));
        }
        found.sort();
        found.dedup();
        found
    }

    /// The TXT records of a name as each server of its zone has them, by the server's address.
    pub async fn texts(&self, name: &str) -> Vec<(String, Result<Vec<String>, String>)> {
        let Ok(mut asked) = Name::from_str(name) else { return Vec::new() };
        asked.set_fqdn(true);
        for resolver in &self.resolvers {
            if let Some(zone) = Zone::of(&asked, *resolver, &self.allowed).await {
                return zone.texts(&asked).await;
            }
        }
        Vec::new()
    }

    /// The TXT records of a name as each resolver has them, or why it has none to tell.
    pub async fn texts_seen(&self, name: &str) -> Vec<Result<Vec<String>, String>> {
        let Ok(mut asked) = Name::from_str(name) else { return Vec::new() };
        asked.set_fqdn(true);
        let mut seen = Vec::new();
        for resolver in &self.resolvers {
            seen.push(match resolver.lookup(&asked, RecordType::TXT, txt).await.records {
                Err(Unresolved::NoSuchName) => Ok(Vec::new()),
                records => records.map_err(|why| format!("{}: {why:?}", resolver.address)),
            });
        }
        seen
    }

    /// The name's zone, by a resolver that answered something.
    async fn zone(&self, asked: &Name, views: &[View]) -> Option<Zone> {
        let is_silent = |view: &View| matches!(view.ipv4.records, Err(Unresolved::NotAsked(_)));
        let (resolver, _) = self.resolvers.iter().zip(views).find(|(_, view)| !is_silent(view))?;
        Zone::of(asked, *resolver, &self.allowed).await
    }
}

fn named(resolver: &Resolver) -> Observer {
    Observer::Resolver(resolver.address.to_string())
}

async fn view(resolver: Resolver, asked: &Name) -> View {
    let climb = async {
        let mut lookups = JoinSet::new();
        let mut owner = asked.clone();
        for height in 0.. {
            if owner.is_root() {
                break;
            }
            let own = owner.clone();
            lookups.spawn(async move { (height, own.clone(), resolver.lookup(&own, RecordType::CAA, caa).await) });
            owner = owner.base_name();
        }
        let mut climbed: Vec<(u32, _, _)> = lookups.join_all().await;
        climbed.sort_by_key(|(height, ..)| *height);
        let lookup = |(_, owner, lookup)| CaaLookup { owner: text(&owner), lookup };
        climbed.into_iter().map(lookup).collect()
    };
    let (ipv4, ipv6, caa) = tokio::join!(
        resolver.lookup(asked, RecordType::A, ipv4),
        resolver.lookup(asked, RecordType::AAAA, ipv6),
        climb
    );
    View { observer: named(&resolver), ipv4, ipv6, caa }
}
