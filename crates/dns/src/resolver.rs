//! Questions to a resolver, and what its failures mean.

use std::{net::SocketAddr, time::Duration};

use certseal_issuance::preflight::{Lookup, Unresolved};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};

use crate::ask::{Question, Unanswered, ask};

/// A resolver of the platform. It follows aliases and validates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
}

impl Resolver {
    /// The records of a kind that a name has, as `read` takes them.
    pub(crate) async fn lookup<T>(&self, name: &Name, kind: RecordType, read: fn(&RData) -> Option<T>) -> Lookup<T> {
        let answer = match self.ask(name, kind, false).await {
            Ok(answer) => answer,
            Err(why) => return Lookup::failed(self.silence(why).await),
        };
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => found(&answer, name, kind, read),
            ResponseCode::ServFail => {
                let why = self.failure(&answer, name, kind).await;
                // It may have passed: a check that fails fails again.
                if matches!(why, Unresolved::Bogus(None))
                    && let Ok(again) = self.ask(name, kind, false).await
                    && again.metadata.response_code != ResponseCode::ServFail
                {
                    return found(&again, name, kind, read);
                }
                Lookup::failed(why)
            }
            other => Lookup::failed(Unresolved::NotAsked(format!("it answers {}", code_name(other)))),
        }
    }

    /// The answer, whatever DNSSEC says of it.
    pub(crate) async fn unchecked(&self, name: &Name, kind: RecordType) -> Option<Message> {
        self.ask(name, kind, true).await.ok().filter(|answer| answer.metadata.response_code == ResponseCode::NoError)
    }

    async fn ask(&self, name: &Name, kind: RecordType, unchecked: bool) -> Result<Message, Unanswered> {
        let question = Question { name: name.clone(), kind, recursion: true, unchecked };
        ask(self.address, &question, PATIENCE).await
    }

    /// What it means that no answer came: a resolver that answers other questions waits for the servers of this name.
    async fn silence(&self, why: Unanswered) -> Unresolved {
        if let Unanswered::Broken(why) = why {
            return Unresolved::NotAsked(why);
        }
        match self.ask(&Name::root(), RecordType::NS, true).await {
            Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => Unresolved::Failed(why.to_string()),
            Ok(answer) => Unresolved::NotAsked(format!("it answers {}", code_name(answer.metadata.response_code))),
            Err(why) => Unresolved::NotAsked(why.to_string()),
        }
    }

    /// What a SERVFAIL means.
    async fn failure(&self, failed: &Message, name: &Name, kind: RecordType) -> Unresolved {
        let said = extended_error(failed);
        if let Ok(unchecked) = self.ask(name, kind, true).await {
            match unchecked.metadata.response_code {
                // The check alone fails.
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    let aliases = found(&unchecked, name, kind, |_| Some(()));
                    return match aliases.records {
                        Err(Unresolved::AliasLoop) => Unresolved::AliasLoop,
                        _ => Unresolved::Bogus(said.map(|(code, text)| described(code, &text))),
                    };
                }
                _ if self.aliases_loop(name).await => return Unresolved::AliasLoop,
                _ => {}
            }
        }
        match said {
            Some((code, text)) if BOGUS.contains(&code) => Unresolved::Bogus(Some(described(code, &text))),
            Some((code, text)) => Unresolved::Failed(format!("SERVFAIL, {}", described(code, &text))),
            None => Unresolved::Failed("SERVFAIL".to_owned()),
        }
    }

    /// Whether the aliases of a name come to `end`, found step by step. Nothing is asked about `end` itself.
    pub(crate) async fn leads_to(&self, name: &Name, end: &Name) -> Result<bool, String> {
        let mut last = name.clone();
        for _ in 0..MOST_ALIASES {
            if last == *end {
                return Ok(true);
            }
            let answer = self.ask(&last, RecordType::CNAME, true).await.map_err(|why| why.to_string())?;
            match answer.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => {}
                other => return Err(format!("it answers {} for {}", code_name(other), text(&last))),
            }
            match alias_of(&answer, &last) {
                Some(next) => last = next,
                None => return Ok(false),
            }
        }
        Err(format!("the aliases of {} do not end", text(name)))
    }

    /// Follows aliases one by one: a resolver that meets a circle may say nothing but that it fails.
    async fn aliases_loop(&self, name: &Name) -> bool {
        let mut seen = vec![name.clone()];
        while seen.len() <= MOST_ALIASES {
            let last = seen[seen.len() - 1].clone();
            let Some(answer) = self.unchecked(&last, RecordType::CNAME).await else { return false };
            let Some(next) = alias_of(&answer, &last) else { return false };
            if seen.contains(&next) {
                return true;
            }
            seen.push(next);
        }
        true
    }
}

/// What an answer has for a name, at the end of its aliases.
pub(crate) fn found<T>(answer: &Message, name: &Name, kind: RecordType, read: fn(&RData) -> Option<T>) -> Lookup<T> {
    let mut at = name.clone();
    let mut aliases = Vec::new();
    while let Some(next) = alias_of(answer, &at) {
        if next == *name || aliases.contains(&next) || aliases.len() >= MOST_ALIASES {
            let aliases = aliases.iter().map(text).chain([text(&next)]).collect();
            return Lookup { aliases, ..Lookup::failed(Unresolved::AliasLoop) };
        }
        aliases.push(next.clone());
        at = next;
    }
    let of_kind = answer.answers.iter().filter(|record| record.record_type() == kind && record.name == at);
    let records: Vec<_> = of_kind.filter_map(|record| read(&record.data)).take(MOST_RECORDS).collect();
    // Of the name's own record: what comes after it others may have asked for long before.
    let own = answer.answers.iter().filter(|record| record.name == *name).map(|record| record.ttl).min();
    // An answer without one is kept as long as the zone's SOA says (RFC 2308, 5).
    let soa = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) if own.is_none() => Some((record.ttl, soa.minimum)),
        _ => None,
    });
    let is_missing = records.is_empty() && answer.metadata.response_code == ResponseCode::NXDomain;
    let records = if is_missing { Err(Unresolved::NoSuchName) } else { Ok(records) };
    Lookup {
        aliases: aliases.iter().map(text).collect(),
        records,
        ttl: soa.map(|(ttl, _)| ttl).or(own).unwrap_or(0),
        negative_ttl: soa.map(|(_, minimum)| minimum),
    }
}

fn alias_of(answer: &Message, name: &Name) -> Option<Name> {
    answer.answers.iter().filter(|record| record.name == *name).find_map(|record| match &record.data {
        RData::CNAME(alias) => Some(alias.0.clone()),
        _ => None,
    })
}

/// A name without its last dot, in lower case.
pub(crate) fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The extended error of an answer (RFC 8914).
fn extended_error(answer: &Message) -> Option<(u16, String)> {
    match answer.edns.as_ref()?.option(EdnsCode::Unknown(EXTENDED_ERROR))? {
        EdnsOption::Unknown(_, data) => {
            let (code, text) = data.split_first_chunk::<2>()?;
            let text = String::from_utf8_lossy(text);
            Some((u16::from_be_bytes(*code), text.chars().filter(|c| !c.is_control()).take(MOST_TEXT).collect()))
        }
        _ => None,
    }
}

fn described(code: u16, text: &str) -> String {
    // The names of RFC 8914, 4, that resolvers give for names that fail.
    let name = match code {
        5 => "DNSSEC is indeterminate",
        6 => "DNSSEC is bogus",
        7 => "a signature has expired",
        8 => "a signature is not yet valid",
        9 => "a DNSKEY is missing",
        10 => "signatures are missing",
        12 => "NSEC records are missing",
        22 => "no server of the zone could be reached",
        23 => "network error",
        _ => "error",
    };
    if text.is_empty() { format!("{name} (RFC 8914, {code})") } else { format!("{name} (RFC 8914, {code}): {text}") }
}

pub(crate) fn code_name(code: ResponseCode) -> String {
    format!("{:?}", code).to_uppercase()
}

/// For an answer: resolvers try several servers of a zone, one after the other.
const PATIENCE: Duration = Duration::from_secs(6);

/// Aliases on the way to records. Resolvers follow some ten.
const MOST_ALIASES: usize = 16;
/// Records that are looked at.
const MOST_RECORDS: usize = 64;
/// Characters of the words of a resolver.
const MOST_TEXT: usize = 120;

/// The code of the option of extended errors (RFC 8914, 2).
const EXTENDED_ERROR: u16 = 15;
/// Extended errors of DNSSEC (RFC 8914, 4.6 to 4.13).
const BOGUS: [u16; 7] = [5, 6, 7, 8, 9, 10, 12];
