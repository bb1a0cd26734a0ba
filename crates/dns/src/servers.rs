//! The servers of a zone: who they are, whether they have the zone, and what they say of a name.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use certseal_issuance::preflight::{Lookup, Observer, ServerTrouble, Unresolved, View};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::task::JoinSet;

use crate::{
    allowed::AllowedServers,
    ask::{Question, Unanswered, ask},
    records::{ipv4, ipv6, txt},
    resolver::{Resolver, code_name, found, text},
};

/// The servers that have, or should have, a zone.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) origin: Name,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// None where it has no address, or none that may be asked.
    address: Option<SocketAddr>,
}

impl Zone {
    /// The zone that a name is in, as its resolvers know it. Above a zone that cannot be resolved, the servers of its parent say
    /// where it should be.
    pub(crate) async fn of(name: &Name, resolver: Resolver, allowed: &AllowedServers) -> Option<Self> {
        let mut origin = name.clone();
        let zone = loop {
            if origin.is_root() {
                return None;
            }
            let servers =
                resolver.unchecked(&origin, RecordType::NS).await.map(|answer| named(&answer.answers, &origin));
            if let Some(servers) = servers.filter(|servers| !servers.is_empty()) {
                break Self { servers: addressed(servers, &[], resolver, allowed).await, origin };
            }
            origin = origin.base_name();
        };
        zone.delegated(name, resolver, allowed).await
    }

    /// The zone below this one that has the name, if this one's servers name others for it.
    async fn delegated(mut self, name: &Name, resolver: Resolver, allowed: &AllowedServers) -> Option<Self> {
        for _ in 0..MOST_CUTS {
            let Some(referral) = self.referral(name).await else { break };
            let Some(cut) = referral.authorities.iter().find(|it| it.record_type() == RecordType::NS) else { break };
            let cut = cut.name.clone();
            // A referral goes downwards.
            if cut.num_labels() <= self.origin.num_labels() || !self.origin.zone_of(&cut) || !cut.zone_of(name) {
                break;
            }
            let servers = named(&referral.authorities, &cut);
            self = Self { servers: addressed(servers, &referral.additionals, resolver, allowed).await, origin: cut };
        }
        Some(self)
    }

    async fn referral(&self, name: &Name) -> Option<Message> {
        for address in self.servers.iter().filter_map(|server| server.address) {
            if let Ok(answer) = direct(address, name, RecordType::NS).await
                && answer.metadata.response_code == ResponseCode::NoError
            {
                return Some(answer).filter(|answer| !answer.metadata.authoritative && answer.answers.is_empty());
            }
        }
        None
    }

    /// What is wrong with the servers, if anything is.
    pub(crate) async fn trouble(&self) -> Option<ServerTrouble> {
        let mut states = JoinSet::new();
        for server in &self.servers {
            let (address, origin, name) = (server.address, self.origin.clone(), server.name.clone());
            states.spawn(async move {
                match address {
                    Some(address) => (format!("{name} {}", address.ip()), state(address, &origin).await),
                    None => (name, State::NotAsked),
                }
            });
        }
        let (mut lame, mut failing, mut unreachable) = (Vec::new(), Vec::new(), Vec::new());
        for (server, state) in states.join_all().await {
            match state {
                // The zone can be had: whoever fails at it fails for another reason.
                State::Good => return None,
                State::NotAsked => {}
                State::Lame => lame.push(server),
                State::Failing => failing.push(server),
                State::Unreachable => unreachable.push(server),
            }
        }
        [&mut lame, &mut failing, &mut unreachable].into_iter().for_each(|servers| servers.sort());
        match (lame.is_empty(), failing.is_empty(), unreachable.is_empty()) {
            (false, ..) => Some(ServerTrouble::Lame(lame)),
            (_, false, _) => Some(ServerTrouble::Failing(failing)),
            (.., false) => Some(ServerTrouble::Unreachable(unreachable)),
            _ => None,
        }
    }

    /// What each server says of a name's addresses.
    pub(crate) async fn views(&self, name: &Name) -> Vec<View> {
        let mut views = JoinSet::new();
        for address in self.servers.iter().filter_map(|server| server.address) {
            let name = name.clone();
            views.spawn(async move {
                let (v4, v6) =
                    tokio::join!(direct(address, &name, RecordType::A), direct(address, &name, RecordType::AAAA));
                View {
                    observer: Observer::Authoritative(address.ip().to_string()),
                    ipv4: read(v4, &name, RecordType::A, ipv4),
                    ipv6: read(v6, &name, RecordType::AAAA, ipv6),
                    caa: Vec::new(),
                }
            });
        }
        views.join_all().await
    }

    /// The TXT records that each server has of a name.
    pub(crate) async fn texts(&self, name: &Name) -> Vec<(String, Result<Vec<String>, String>)> {
        let mut texts = JoinSet::new();
        for server in &self.servers {
            let (server, address, name) = (server.name.clone(), server.address, name.clone());
            texts.spawn(async move {
                let Some(address) = address else { return (server, Err("it has no address".to_owned())) };
                let lookup = read(direct(address, &name, RecordType::TXT).await, &name, RecordType::TXT, txt);
                (server, lookup.records.map_err(|why| format!("{why:?}")))
            });
        }
        texts.join_all().await
    }
}

fn read<T>(
    answer: Result<Message, Unanswered>,
    name: &Name,
    kind: RecordType,
    of: fn(&RData) -> Option<T>,
) -> Lookup<T> {
    match answer {
        Err(why) => Lookup::failed(Unresolved::NotAsked(why.to_string())),
        Ok(answer) if !answer.metadata.authoritative => {
            let why = format!("it is no authority, and answers {}", code_name(answer.metadata.response_code));
            Lookup::failed(Unresolved::NotAsked(why))
        }
        Ok(answer) => found(&answer, name, kind, of),
    }
}

enum State {
    Good,
    /// It has no address, or none that may be asked.
    NotAsked,
    Lame,
    Failing,
    Unreachable,
}

async fn state(server: SocketAddr, origin: &Name) -> State {
    match direct(server, origin, RecordType::SOA).await {
        Err(_) => State::Unreachable,
        Ok(answer) => match answer.metadata.response_code {
            ResponseCode::NoError if answer.metadata.authoritative => State::Good,
            ResponseCode::ServFail | ResponseCode::FormErr | ResponseCode::NotImp => State::Failing,
            _ => State::Lame,
        },
    }
}

async fn direct(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Message, Unanswered> {
    let question = Question { name: name.clone(), kind, recursion: false, unchecked: true };
    ask(server, &question, PATIENCE).await
}

fn named(records: &[hickory_proto::rr::Record], zone: &Name) -> Vec<Name> {
    let of_zone = records.iter().filter(|record| record.name == *zone);
    let names = of_zone.filter_map(|record| match &record.data {
        RData::NS(server) => Some(server.0.clone()),
        _ => None,
    });
    names.take(MOST_SERVERS).collect()
}

/// Servers with an address each: from the referral, else from the resolver.
async fn addressed(
    names: Vec<Name>,
    glue: &[hickory_proto::rr::Record],
    resolver: Resolver,
    allowed: &AllowedServers,
) -> Vec<Server> {
    let mut servers = Vec::new();
    for name in names {
        let glued = glue.iter().filter(|record| record.name == name).find_map(|record| address(&record.data));
        let mut address = glued;
        for kind in [RecordType::A, RecordType::AAAA] {
            if address.is_none() {
                let looked_up = resolver.unchecked(&name, kind).await;
                address = looked_up.and_then(|answer| answer.answers.iter().find_map(|it| self::address(&it.data)));
            }
        }
        let address = address.filter(|address| allowed.allows(*address)).map(|address| SocketAddr::new(address, PORT));
        servers.push(Server { name: text(&name), address });
    }
    servers
}

fn address(data: &RData) -> Option<IpAddr> {
    ipv4(data).map(IpAddr::from).or_else(|| ipv6(data).map(IpAddr::from))
}

/// For an answer of one of the zone's own servers.
const PATIENCE: Duration = Duration::from_secs(3);
const PORT: u16 = 53;

/// Servers of a zone that are asked. Most have two to four.
const MOST_SERVERS: usize = 6;
/// Delegations on the way down from the zone that resolvers know.
const MOST_CUTS: usize = 4;
