//! The observations of a name in the DNS.

use std::net::{Ipv4Addr, Ipv6Addr};

use certseal_wire::DnsName;

/// Everything that was seen of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The name.
    pub name: DnsName,
    /// It is a registered domain itself, which can be no alias (RFC 1034, 3.6.2).
    pub is_apex: bool,
    /// What each of those who were asked said.
    pub views: Vec<View>,
    /// What is wrong with the name servers, of a name whose resolution fails.
    pub servers: Option<ServerTrouble>,
    /// Seconds that it took: by so much the first answers are older than the last.
    pub took: u32,
}

/// What one observer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who was asked.
    pub observer: Observer,
    /// For IPv4 addresses.
    pub ipv4: Lookup<Ipv4Addr>,
    /// For IPv6 addresses.
    pub ipv6: Lookup<Ipv6Addr>,
    /// For CAA records: of the name itself first, then of each name above it (RFC 8659, 3). Authoritative servers are not asked.
    pub caa: Vec<CaaLookup>,
}

/// Who was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observer {
    /// A resolver, which follows aliases and validates, by its address.
    Resolver(String),
    /// A server of the zone itself, which knows of nothing outside of it, by its address.
    Authoritative(String),
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup<T> {
    /// The aliases on the way, in their order: what the name is an alias of, and so on. No final dots.
    pub aliases: Vec<String>,
    /// The records at the end of the way; none for a name that has none of the kind.
    pub records: Result<Vec<T>, Unresolved>,
    /// Seconds for which the observer keeps the name's own record, or that there is none.
    pub ttl: u32,
    /// Seconds for which an answer without records is kept from the beginning (RFC 2308, 5), where it says so.
    pub negative_ttl: Option<u32>,
}

impl<T> Lookup<T> {
    /// A question without records.
    pub fn failed(why: Unresolved) -> Self {
        Self { aliases: Vec::new(), records: Err(why), ttl: 0, negative_ttl: None }
    }
}

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// DNSSEC does not validate: without the check there would be records. The resolver's reason, where it gives one (RFC 8914).
    Bogus(Option<String>),
    /// The observer fails at this name, and answers other questions.
    Failed(String),
    /// The aliases do not end.
    AliasLoop,
    /// The observer answers nothing, or does not want to. That says nothing about the name.
    NotAsked(String),
}

/// CAA records at one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaLookup {
    /// The name.
    pub owner: String,
    /// Its records.
    pub lookup: Lookup<CaaRecord>,
}

/// A CAA record (RFC 8659, 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// A CA that does not know the tag may issue nothing.
    pub is_critical: bool,
    /// `issue`, `issuewild`, or another.
    pub tag: String,
    /// The value, without quotation marks.
    pub value: String,
}

/// What is wrong with the servers of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTrouble {
    /// They do not have the zone that they are named for (a lame delegation).
    Lame(Vec<String>),
    /// They do not answer.
    Unreachable(Vec<String>),
    /// They answer with errors.
    Failing(Vec<String>),
}
