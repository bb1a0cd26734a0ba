//! The look at a site's names before a CA is asked for anything: whether they are ready, and what is wrong if not.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::DnsName;

/// A look at the names of a site: `POST /v1/sites/NAME/dns` at certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamesReport {
    /// When somebody looked.
    pub looked_at: Timestamp,
    /// Whether a CA can validate all of the names.
    pub readiness: Readiness,
    /// The names, in their order.
    pub names: Vec<NameReport>,
    /// The CAs, by their directories, that the names' CAA records do not allow, while another one that is configured is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden_to: Vec<String>,
}

impl NamesReport {
    /// What was found for each of the names. One name that is not ready keeps the others waiting: they share a certificate.
    pub fn new(looked_at: Timestamp, names: Vec<NameReport>) -> Self {
        let readiness = names.iter().map(|name| name.readiness).max().unwrap_or(Readiness::Unknown);
        Self { looked_at, readiness, names, forbidden_to: Vec::new() }
    }

    /// The findings in one line for people: of the names that are not ready, else of those of which nobody knows.
    pub fn summary(&self) -> Option<String> {
        let of_names = self.names.iter().filter(|name| name.readiness == self.readiness);
        let said: Vec<_> = of_names.flat_map(NameReport::lines).collect();
        (self.readiness != Readiness::Ready && !said.is_empty()).then(|| said.join("; "))
    }
}

/// A look at one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NameReport {
    /// The name.
    pub name: DnsName,
    /// Whether a CA can validate it.
    pub readiness: Readiness,
    /// What speaks against it, the gravest first.
    pub findings: Vec<Finding>,
}

impl NameReport {
    /// What was found for a name: nothing for one that is ready.
    pub fn new(name: DnsName, findings: Vec<Finding>) -> Self {
        let readiness = findings.iter().map(|finding| finding.code.readiness()).max().unwrap_or(Readiness::Ready);
        Self { name, readiness, findings }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.findings.iter().map(|finding| format!("{}: {}", self.name, finding.detail))
    }
}

/// Whether a CA can validate a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Readiness {
    /// Nothing speaks against it.
    Ready,
    /// Nobody who could have said so was reached.
    #[default]
    Unknown,
    /// An order would fail.
    NotReady,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::NotReady => "not ready",
        })
    }
}

/// Something that speaks against a validation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// The kind of trouble, for programs.
    pub code: FindingCode,
    /// What was expected, what came, and what to do: for the customer's support.
    pub detail: String,
    /// The changes in the DNS that put it right, to be pasted.
    pub edits: Vec<RecordEdit>,
}

/// The kinds of trouble with a name. A later release may have more: a reader takes one that it does not know for `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FindingCode {
    /// No CA gives a certificate for such a name: a public suffix, or labels that no host name has.
    NameRefused,
    /// The platform's own list forbids it.
    Denied,
    /// The DNS has no such name.
    NoSuchName,
    /// The name has no address.
    NoAddress,
    /// It leads to addresses that are not the platform's.
    WrongAddress,
    /// Its IPv6 addresses are not the platform's, though its IPv4 addresses are. CAs try IPv6 first.
    StrayIpv6,
    /// It is an alias (CNAME) of another host.
    AliasElsewhere,
    /// Its aliases lead back to themselves, or do not end.
    AliasLoop,
    /// Its CAA records do not allow the CA, the account or the challenge (RFC 8659, RFC 8657).
    CaaForbids,
    /// The question for its CAA records fails, which a CA may not take for permission (RFC 8659, 3).
    CaaUnanswered,
    /// DNSSEC does not validate.
    DnssecBogus,
    /// The zone above names servers that do not have the zone.
    LameDelegation,
    /// None of its name servers answers.
    ServersUnreachable,
    /// Its name servers answer with errors.
    ServersFail,
    /// Its dns-01 challenges are not delegated to a zone of the platform.
    ChallengeNotDelegated,
    /// The record by which it is validated for ever is not there, or is not for our account.
    ChallengeRecordMissing,
    /// A fetch of our own challenge reaches none of its addresses.
    FetchFails,
    /// A fetch of our own challenge succeeds at some of its addresses, and not at another that a CA may choose.
    FetchFailsSomewhere,
    /// A fetch of our own challenge succeeds from certman's place, and not from another one.
    FetchFailsElsewhere,
    /// Another server answers in the place of the platform's edges.
    StrangeServer,
    /// The answer to a fetch of our own challenge leads on and on, or where no CA goes.
    RedirectLoop,
    /// It depends on who asks: CAs ask from several places.
    AnswersDiffer,
    /// Its own servers have the right records, and caches not yet.
    NotEverywhereYet,
    /// Nobody could be asked, or no answer came to the question itself. That says nothing about the name.
    NotAsked,
    /// What only a later release knows.
    #[serde(other)]
    Other,
}

impl FindingCode {
    /// The word of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameRefused => "name-refused",
            Self::Denied => "denied",
            Self::NoSuchName => "no-such-name",
            Self::NoAddress => "no-address",
            Self::WrongAddress => "wrong-address",
            Self::StrayIpv6 => "stray-ipv6",
            Self::AliasElsewhere => "alias-elsewhere",
            Self::AliasLoop => "alias-loop",
            Self::CaaForbids => "caa-forbids",
            Self::CaaUnanswered => "caa-unanswered",
            Self::DnssecBogus => "dnssec-bogus",
            Self::LameDelegation => "lame-delegation",
            Self::ServersUnreachable => "servers-unreachable",
            Self::ServersFail => "servers-fail",
            Self::ChallengeNotDelegated => "challenge-not-delegated",
            Self::ChallengeRecordMissing => "challenge-record-missing",
            Self::FetchFails => "fetch-fails",
            Self::FetchFailsSomewhere => "fetch-fails-somewhere",
            Self::FetchFailsElsewhere => "fetch-fails-elsewhere",
            Self::StrangeServer => "strange-server",
            Self::RedirectLoop => "redirect-loop",
            Self::AnswersDiffer => "answers-differ",
            Self::NotEverywhereYet => "not-everywhere-yet",
            Self::NotAsked => "not-asked",
            Self::Other => "other",
        }
    }

    fn readiness(self) -> Readiness {
        match self {
            // CAs keep answers for a minute or so, whatever their TTL.
            Self::NotAsked | Self::NotEverywhereYet | Self::Other => Readiness::Unknown,
            _ => Readiness::NotReady,
        }
    }
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change in somebody's DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordEdit {
    /// Whether the record is to be there.
    pub edit: Edit,
    /// The record.
    #[serde(flatten)]
    pub record: DnsRecord,
}

impl fmt::Display for RecordEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.edit, self.record)
    }
}

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Edit {
    /// Take it out.
    Remove,
    /// Put it in.
    Add,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Remove => "remove",
            Self::Add => "add",
        })
    }
}

/// The records that names should have: `GET /v1/sites/NAME/dns` at certman, and `GET /v1/dns` for the platform's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DnsPlan {
    /// The records.
    pub records: Vec<DnsRecord>,
}

/// A DNS record, as a zone file has it (RFC 1035, 5.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DnsRecord {
    /// The owner, without the last dot.
    pub owner: String,
    /// How long others may keep it, in seconds.
    pub ttl: u32,
    /// A, AAAA, CNAME, CAA or TXT.
    pub kind: String,
    /// Its data in the form of zone files.
    pub value: String,
}

impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, ttl, kind, value } = self;
        write!(f, "{owner}. {ttl} IN {kind} {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: FindingCode) -> Finding {
        Finding { code, detail: code.to_string(), edits: Vec::new() }
    }

    #[test]
    fn one_name_that_is_not_ready_speaks_for_its_site_and_unknown_is_not_failed() {
        let report = |codes: &[FindingCode]| {
            let of = |(i, code): (usize, &FindingCode)| {
                NameReport::new(format!("n{i}.example").parse().unwrap(), vec![finding(*code)])
            };
            let ready = NameReport::new("ready.example".parse().unwrap(), Vec::new());
            NamesReport::new(Timestamp::UNIX_EPOCH, codes.iter().enumerate().map(of).chain([ready]).collect())
        };
        assert_eq!((report(&[]).readiness, report(&[]).summary()), (Readiness::Ready, None));
        let unknown = report(&[FindingCode::NotAsked]);
        assert_eq!(
            (unknown.readiness, unknown.summary().as_deref()),
            (Readiness::Unknown, Some("n0.example: not-asked"))
        );
        let both = report(&[FindingCode::NotAsked, FindingCode::StrayIpv6]);
        assert_eq!((both.readiness, both.summary().as_deref()), (Readiness::NotReady, Some("n1.example: stray-ipv6")));
    }

    #[test]
    fn a_code_of_a_later_release_is_read_and_every_word_is_its_json() {
        let read: FindingCode = serde_json::from_str(r#""registrar-hold""#).unwrap();
        assert_eq!(read, FindingCode::Other);
        for code in [
            FindingCode::AliasElsewhere,
            FindingCode::StrayIpv6,
            FindingCode::DnssecBogus,
            FindingCode::FetchFailsElsewhere,
            FindingCode::StrangeServer,
            FindingCode::RedirectLoop,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn an_edit_is_a_line_of_a_zone_file() {
        let value = "edge.platform.example.".to_owned();
        let record = DnsRecord { owner: "shop.example.com".into(), ttl: 3600, kind: "CNAME".into(), value };
        let edit = RecordEdit { edit: Edit::Add, record };
        assert_eq!(edit.to_string(), "add shop.example.com. 3600 IN CNAME edge.platform.example.");
    }
}
