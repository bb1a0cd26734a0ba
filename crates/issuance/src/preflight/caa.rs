//! Certification Authority Authorization (RFC 8659), with accounts and methods (RFC 8657).

use certseal_wire::{DnsName, Edit, Finding, FindingCode};

use super::{
    observed::{CaaLookup, CaaRecord, Observed, Observer, Unresolved},
    targets::{Targets, joined, record},
};

/// The CA that is to issue, as CAA records name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuer {
    /// The names that stand for the CA (`caaIdentities` of its directory; RFC 8555, 7.1.1). Without any, CAA is not judged.
    pub identities: Vec<String>,
    /// The URL of our account there, once it is known.
    pub account: Option<String>,
    /// The ways in which it may validate: `http-01`, `tls-alpn-01`. One of them is enough.
    pub methods: Vec<String>,
}

impl Issuer {
    /// Whether the CA comes to the name itself, and so to its addresses.
    pub(super) fn visits(&self, name: &DnsName) -> bool {
        !name.is_wildcard() && (self.methods.is_empty() || self.methods.iter().any(|method| !method.starts_with(DNS)))
    }

    /// Whether a name may be validated so.
    fn validates_by(&self, method: &str, is_wildcard: bool) -> bool {
        let mut ours = self.methods.iter().filter(|ours| !is_wildcard || ours.starts_with(DNS)).peekable();
        // Where none of ours is fit for wildcards, they take the first one that CAs had.
        (is_wildcard && ours.peek().is_none() && method == "dns-01") || ours.any(|ours| ours == method)
    }
}

/// What CAA has against an order.
pub(super) fn objection(observed: &Observed, targets: &Targets, issuer: &Issuer) -> Option<Finding> {
    let resolvers = observed.views.iter().filter(|view| matches!(view.observer, Observer::Resolver(_)));
    let seen: Vec<_> = resolvers.map(|view| relevant(&view.caa)).collect();
    // A resolver that fails where another one answers may be at fault itself, unless it says that DNSSEC is the reason.
    let is_answer = |it: &Relevant<'_>| matches!(it, Relevant::None | Relevant::Records(..));
    let has_answer = seen.iter().any(is_answer);
    let counts = |it: &Relevant<'_>| {
        is_answer(it) || !has_answer || matches!(it, Relevant::Unanswered(_, Unresolved::Bogus(Some(_))))
    };
    let found = seen.into_iter().filter(counts).filter_map(|it| match it {
        Relevant::None => None,
        Relevant::Unanswered(owner, why) => unanswered(owner, why),
        Relevant::Records(at, records) => forbidden(observed, targets, issuer, at, records),
    });
    found.min_by_key(|finding| finding.code == FindingCode::NotAsked)
}

enum Relevant<'a> {
    None,
    Records(&'a CaaLookup, &'a [CaaRecord]),
    Unanswered(&'a str, &'a Unresolved),
}

/// The records of the first name that has some, on the way up (RFC 8659, 3). An error before that may hide some.
fn relevant(climbed: &[CaaLookup]) -> Relevant<'_> {
    for at in climbed {
        match &at.lookup.records {
            Ok(records) if records.is_empty() => {}
            Err(Unresolved::NoSuchName) => {}
            Ok(records) => return Relevant::Records(at, records),
            Err(why) => return Relevant::Unanswered(&at.owner, why),
        }
    }
    Relevant::None
}

fn unanswered(owner: &str, why: &Unresolved) -> Option<Finding> {
    let (code, detail) = match why {
        Unresolved::NoSuchName => return None,
        Unresolved::NotAsked(why) => (FindingCode::NotAsked, format!("CAA of {owner} could not be asked for: {why}")),
        Unresolved::Bogus(why) => (
            FindingCode::DnssecBogus,
            format!(
                "DNSSEC of {owner}'s CAA records does not validate{}: sign the zone anew, or take the DS record out at the \
                 registrar",
                why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
        ),
        Unresolved::AliasLoop => (FindingCode::AliasLoop, format!("the aliases of {owner} do not end: mend its CNAME")),
        Unresolved::Failed(why) => (
            FindingCode::CaaUnanswered,
            format!(
                "the question for {owner}'s CAA records fails ({why}), and a CA must not issue then: its name servers must \
                 answer it, with an empty answer if there are none"
            ),
        ),
    };
    Some(Finding { code, detail, edits: Vec::new() })
}

fn forbidden(
    observed: &Observed,
    targets: &Targets,
    issuer: &Issuer,
    at: &CaaLookup,
    records: &[CaaRecord],
) -> Option<Finding> {
    if issuer.identities.is_empty() {
        return None;
    }
    // The last alias has the records.
    let owner = at.lookup.aliases.last().unwrap_or(&at.owner);
    let whose = if targets.is_alias(owner) { ", the platform's own target" } else { "" };
    if let Some(unknown) = records.iter().find(|record| record.is_critical && !is_known(&record.tag)) {
        let detail = format!(
            "CAA at {owner}{whose} has the critical property {:?}, which no CA knows: take it out",
            unknown.tag.chars().take(32).collect::<String>()
        );
        let edits = vec![record(Edit::Remove, owner, "CAA", zone_form(unknown))];
        return Some(Finding { code: FindingCode::CaaForbids, detail, edits });
    }
    let of_tag = |tag: &str| records.iter().filter(|record| record.tag.eq_ignore_ascii_case(tag)).collect::<Vec<_>>();
    let wild = of_tag(ISSUE_WILD);
    let (tag, said) =
        if observed.name.is_wildcard() && !wild.is_empty() { (ISSUE_WILD, wild) } else { (ISSUE, of_tag(ISSUE)) };
    if said.is_empty() || said.iter().any(|record| allows(&record.value, issuer, observed.name.is_wildcard())) {
        return None;
    }
    let ours = &issuer.identities[0];
    let detail = format!(
        "CAA at {owner}{whose} allows {}, and the CA is {ours}{}: add a record that allows it, or take all of them out",
        joined(said.iter().map(|record| format!("{:?}", record.value.chars().take(100).collect::<String>()))),
        issuer.account.as_ref().map(|account| format!(" with account {account}")).unwrap_or_default(),
    );
    // One that names the CA, and not our account or method, does not have to stay.
    let names_us = |value: &str| issuer.identities.iter().any(|ours| parsed(value).is_some_and(|it| it.0 == *ours));
    let spent = said.iter().filter(|record| names_us(&record.value) || record.value.trim() == ";");
    let mut edits: Vec<_> = spent.map(|it| record(Edit::Remove, owner, "CAA", zone_form(it))).collect();
    edits.push(record(Edit::Add, owner, "CAA", format!("0 {tag} \"{ours}\"")));
    Some(Finding { code: FindingCode::CaaForbids, detail, edits })
}

/// Whether an `issue` or `issuewild` property lets our account issue in our way.
fn allows(value: &str, issuer: &Issuer, is_wildcard: bool) -> bool {
    let Some((domain, parameters)) = parsed(value) else { return false };
    let stated =
        |tag: &str| parameters.iter().filter(|(name, _)| *name == tag).map(|(_, value)| *value).collect::<Vec<_>>();
    let by_account = match stated("accounturi")[..] {
        [] => true,
        // While nobody knows ours, nobody can say that it is another one.
        [account] => issuer.account.as_deref().is_none_or(|ours| ours == account),
        // Two of them cannot be satisfied (RFC 8657, 3).
        _ => false,
    };
    let by_method = match stated("validationmethods")[..] {
        [] => true,
        [methods] => methods.split(',').any(|method| issuer.validates_by(method, is_wildcard)),
        _ => false,
    };
    issuer.identities.contains(&domain) && by_account && by_method
}

/// The CA's domain and the parameters of a property (RFC 8659, 4.2); none for a malformed one, which allows nobody.
fn parsed(value: &str) -> Option<(String, Vec<(&str, &str)>)> {
    const BLANK: [char; 2] = [' ', '\t'];
    let mut parts = value.split(';');
    let domain = parts.next().unwrap_or_default().trim_matches(BLANK).to_ascii_lowercase();
    let parts: Vec<_> = parts.collect();
    if matches!(parts[..], [only] if only.trim_matches(BLANK).is_empty()) {
        return Some((domain, Vec::new()));
    }
    let parameters = parts.into_iter().map(|part| {
        let (tag, value) = part.split_once('=')?;
        let (tag, value) = (tag.trim_matches(BLANK), value.trim_matches(BLANK));
        let is_tag = tag.bytes().all(|b| b.is_ascii_alphanumeric());
        (is_tag && value.bytes().all(|b| b.is_ascii_graphic())).then_some((tag, value))
    });
    Some((domain, parameters.collect::<Option<_>>()?))
}

fn is_known(tag: &str) -> bool {
    [ISSUE, ISSUE_WILD, "iodef", "issuemail", "issuevmc"].iter().any(|known| known.eq_ignore_ascii_case(tag))
}

fn zone_form(CaaRecord { is_critical, tag, value }: &CaaRecord) -> String {
    let value: String = value.chars().take(200).filter(|c| !c.is_control() && *c != '"').collect();
    format!("{} {tag} \"{value}\"", if *is_critical { 128 } else { 0 })
}

/// So begin the ways in which no CA comes to the name: the only ones for wildcards (RFC 8555, 8.4).
const DNS: &str = "dns-";
const ISSUE: &str = "issue";
const ISSUE_WILD: &str = "issuewild";
