//! Where a name leads, and whether that is here.

use std::net::IpAddr;

use certseal_wire::{Edit, Finding, FindingCode, RecordEdit};

use super::{
    observed::{Lookup, Observed, Observer, ServerTrouble, Unresolved, View},
    targets::{Targets, address_record, joined, record},
};

/// What keeps the name from being resolved at all.
pub(super) fn unresolved(observed: &Observed) -> Option<Finding> {
    let name = &observed.name;
    let views = observed.views.iter().filter_map(|view| match &view.observer {
        Observer::Resolver(at) => Some((at, failure(view))),
        Observer::Authoritative(_) => None,
    });
    let (mut silent, mut failing, mut bogus, mut answers) = (Vec::new(), Vec::new(), None, 0);
    for (at, failure) in views {
        match failure {
            None | Some(Unresolved::NoSuchName) => answers += 1,
            Some(Unresolved::NotAsked(why)) => silent.push(format!("{at}: {why}")),
            Some(Unresolved::Failed(why)) => failing.push(format!("{at}: {why}")),
            Some(Unresolved::AliasLoop) => return Some(loops(observed)),
            // The first that gives a reason, else the first.
            Some(Unresolved::Bogus(why)) => match bogus {
                Some((_, Some(_))) => {}
                Some(_) if why.is_none() => {}
                _ => bogus = Some((at, why.as_ref())),
            },
        }
    }
    match bogus {
        // One that gives no reason, where others answer, may have failed for another.
        Some((at, None)) if answers > 0 => failing.push(format!("{at}: SERVFAIL")),
        Some((at, why)) => {
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let detail = format!(
                "DNSSEC of {name} does not validate at {at}{why}: sign the zone anew, or take the DS record out at the \
                 registrar"
            );
            return Some(Finding { code: FindingCode::DnssecBogus, detail, edits: Vec::new() });
        }
        None => {}
    }
    if failing.is_empty() {
        let detail = format!("no resolver could be asked: {}", joined(silent.iter()));
        return (answers == 0).then(|| Finding { code: FindingCode::NotAsked, detail, edits: Vec::new() });
    }
    let said = joined(failing.iter());
    let (code, detail) = match &observed.servers {
        // Others resolve it: the resolver may be at fault.
        _ if answers > 0 => (FindingCode::NotAsked, format!("some resolvers fail at it, and others do not: {said}")),
        Some(ServerTrouble::Lame(servers)) => (
            FindingCode::LameDelegation,
            format!(
                "the zone above names {} for it, which {} not have the zone: correct the name servers at the registrar",
                joined(servers.iter()),
                if servers.len() == 1 { "does" } else { "do" }
            ),
        ),
        Some(ServerTrouble::Unreachable(servers)) => (
            FindingCode::ServersUnreachable,
            format!("its name servers do not answer ({}): have them mended", joined(servers.iter())),
        ),
        Some(ServerTrouble::Failing(servers)) => (
            FindingCode::ServersFail,
            format!("its name servers answer with errors ({}): have the zone mended", joined(servers.iter())),
        ),
        None => (FindingCode::ServersFail, format!("it cannot be resolved ({said}): have its zone mended")),
    };
    Some(Finding { code, detail, edits: Vec::new() })
}

/// Why an observer has no addresses. One kind of address is enough to a CA.
fn failure(view: &View) -> Option<&Unresolved> {
    let has_some = view.ipv4.records.as_ref().is_ok_and(|found| !found.is_empty())
        || view.ipv6.records.as_ref().is_ok_and(|found| !found.is_empty());
    view.ipv4.records.as_ref().err().or(view.ipv6.records.as_ref().err()).filter(|_| !has_some)
}

fn loops(observed: &Observed) -> Finding {
    let chain = observed.views.iter().map(|view| &view.ipv4.aliases).max_by_key(|chain| chain.len());
    let chain = chain.into_iter().flatten().map(String::as_str);
    let chain = joined([observed.name.as_str()].into_iter().chain(chain));
    let detail = format!("its aliases (CNAME) do not end: {chain}");
    Finding { code: FindingCode::AliasLoop, detail, edits: Vec::new() }
}

/// What keeps a name that is resolved from leading here, everywhere.
pub(super) fn misled(observed: &Observed, targets: &Targets) -> Option<Finding> {
    let leads: Vec<_> = observed.views.iter().map(|view| (view, leads(view, targets))).collect();
    let decided = leads.iter().filter(|(_, leads)| *leads != Leads::Undecided);
    let (resolvers, servers): (Vec<_>, Vec<_>) =
        decided.partition(|(view, _)| matches!(view.observer, Observer::Resolver(_)));
    let is_here = |(_, leads): &&(&View, Leads)| *leads == Leads::Here;
    let all_servers_agree = !servers.is_empty() && servers.iter().all(is_here);
    let Some((stale, elsewhere)) = resolvers.iter().find(|it| !is_here(it)) else {
        // A server that has other records than the rest answers a CA sooner or later.
        let odd = servers.iter().find(|it| !is_here(it))?;
        return (!resolvers.is_empty()).then(|| differ(observed, odd, targets));
    };
    let answered = servers.iter().map(|(view, _)| of_addresses(view).ttl).max().unwrap_or_default();
    let Kept { ttl: kept, from_the_beginning } = of_addresses(stale);
    if all_servers_agree && kept.abs_diff(from_the_beginning.unwrap_or(answered)) > observed.took.saturating_add(FRESH)
    {
        let detail = format!(
            "its name servers have the right records, and {} has others for {kept} s more: should it still be so after that, \
             the answer depends on who asks",
            at(stale)
        );
        return Some(Finding { code: FindingCode::NotEverywhereYet, detail, edits: Vec::new() });
    }
    if resolvers.iter().chain(&servers).any(is_here) {
        return Some(differ(observed, &(stale, elsewhere.clone()), targets));
    }
    Some(finding(observed, stale, elsewhere, targets))
}

/// How long an answer is kept.
struct Kept {
    ttl: u32,
    from_the_beginning: Option<u32>,
}

/// How long an observer keeps what it says of a name's addresses.
fn of_addresses(view: &View) -> Kept {
    if view.ipv4.negative_ttl.is_some() && !addresses(&view.ipv6).is_empty() {
        Kept { ttl: view.ipv6.ttl, from_the_beginning: None }
    } else {
        Kept { ttl: view.ipv4.ttl, from_the_beginning: view.ipv4.negative_ttl }
    }
}

/// Where a view leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leads {
    Here,
    /// IPv4 does, and these do not.
    HereButForIpv6(Vec<IpAddr>),
    Elsewhere(Vec<IpAddr>),
    NoAddress,
    NoSuchName,
    /// The observer does not say.
    Undecided,
}

fn leads(view: &View, targets: &Targets) -> Leads {
    let is_ours = |lookup: &[String]| lookup.iter().any(|alias| targets.is_alias(alias));
    if is_ours(&view.ipv4.aliases) || is_ours(&view.ipv6.aliases) {
        return match failure(view) {
            // It is the platform's own that has none.
            Some(Unresolved::NoSuchName) => Leads::NoSuchName,
            _ => Leads::Here,
        };
    }
    match failure(view) {
        Some(Unresolved::NoSuchName) => return Leads::NoSuchName,
        Some(_) => return Leads::Undecided,
        None => {}
    }
    let is_alias = !view.ipv4.aliases.is_empty() || !view.ipv6.aliases.is_empty();
    let ipv4 = addresses(&view.ipv4);
    let ipv6 = addresses(&view.ipv6);
    if ipv4.is_empty() && ipv6.is_empty() {
        // A server of the zone knows nothing of what lies outside.
        return match view.observer {
            Observer::Authoritative(_) if is_alias => Leads::Undecided,
            _ => Leads::NoAddress,
        };
    }
    if targets.is_empty() {
        return Leads::Here;
    }
    let strange = |found: &[IpAddr]| found.iter().copied().filter(|it| !targets.is_ours(*it)).collect::<Vec<_>>();
    match (strange(&ipv4), strange(&ipv6)) {
        (v4, v6) if v4.is_empty() && v6.is_empty() => Leads::Here,
        (v4, v6) if v4.is_empty() && !ipv4.is_empty() => Leads::HereButForIpv6(v6),
        (v4, v6) => Leads::Elsewhere([v4, v6].concat()),
    }
}

fn addresses<T: Copy + Into<IpAddr>>(lookup: &Lookup<T>) -> Vec<IpAddr> {
    lookup.records.iter().flatten().map(|address| (*address).into()).collect()
}

fn finding(observed: &Observed, view: &View, leads: &Leads, targets: &Targets) -> Finding {
    let name = &observed.name;
    let wanted = targets.described(observed.is_apex);
    let alias = view.ipv4.aliases.first().or(view.ipv6.aliases.first());
    let end = view.ipv4.aliases.last().or(view.ipv6.aliases.last()).map_or(name.as_str(), String::as_str);
    let unalias = alias.map(|alias| record(Edit::Remove, name.as_str(), "CNAME", format!("{alias}.")));
    let (code, detail, removed): (_, _, Vec<RecordEdit>) = match leads {
        Leads::NoSuchName | Leads::NoAddress => {
            let code = match leads {
                Leads::NoSuchName => FindingCode::NoSuchName,
                _ => FindingCode::NoAddress,
            };
            let lacks = match (leads, alias) {
                (Leads::NoSuchName, None) => "the DNS has no such name".to_owned(),
                (Leads::NoSuchName, Some(_)) => format!("it is an alias (CNAME) of {end}, which does not exist"),
                (_, None) => "it has neither an A nor an AAAA record".to_owned(),
                (_, Some(_)) => format!("it is an alias (CNAME) of {end}, which has no address"),
            };
            (code, format!("{lacks}: expected {wanted}"), unalias.into_iter().collect())
        }
        Leads::HereButForIpv6(strange) => {
            let detail = format!(
                "its AAAA {} of {end} {} not the platform's, and CAs try IPv6 first: take {} out",
                joined(strange.iter()),
                if strange.len() == 1 { "is" } else { "are" },
                if strange.len() == 1 { "it" } else { "them" }
            );
            let removed = strange.iter().map(|address| address_record(Edit::Remove, end, *address));
            return Finding { code: FindingCode::StrayIpv6, detail, edits: removed.collect() };
        }
        Leads::Elsewhere(strange) => match alias {
            Some(alias) => (
                FindingCode::AliasElsewhere,
                format!("it is an alias (CNAME) of {alias} ({}): expected {wanted}", joined(strange.iter())),
                unalias.into_iter().collect(),
            ),
            None => (
                FindingCode::WrongAddress,
                format!("it leads to {}: expected {wanted}", joined(strange.iter())),
                replaced(observed, view, strange, targets),
            ),
        },
        Leads::Here | Leads::Undecided => (FindingCode::NotAsked, "nothing is known of it".to_owned(), Vec::new()),
    };
    let mut edits = removed;
    edits.extend(targets.records(name, observed.is_apex));
    // What is there already needs no adding.
    let is_there = |edit: &RecordEdit| {
        addresses(&view.ipv4)
            .iter()
            .chain(&addresses(&view.ipv6))
            .any(|address| *edit == address_record(Edit::Add, name.as_str(), *address))
    };
    edits.retain(|edit| !is_there(edit));
    Finding { code, detail, edits }
}

/// The records that have to go: beside an alias there may be no others (RFC 1034, 3.6.2).
fn replaced(observed: &Observed, view: &View, strange: &[IpAddr], targets: &Targets) -> Vec<RecordEdit> {
    let becomes_alias = targets.alias.is_some() && !observed.is_apex;
    let all = addresses(&view.ipv4).into_iter().chain(addresses(&view.ipv6));
    let going = all.filter(|address| becomes_alias || strange.contains(address));
    going.map(|address| address_record(Edit::Remove, observed.name.as_str(), address)).collect()
}

fn differ(observed: &Observed, (odd, leads): &(&View, Leads), targets: &Targets) -> Finding {
    let there = finding(observed, odd, leads, targets);
    let detail = format!(
        "the answer depends on who asks: {} says that {}. CAs ask from several places, which must all be led here",
        at(odd),
        there.detail
    );
    Finding { code: FindingCode::AnswersDiffer, detail, edits: there.edits }
}

fn at(view: &View) -> &str {
    match &view.observer {
        Observer::Resolver(at) | Observer::Authoritative(at) => at,
    }
}

/// Seconds by which an answer that a resolver got for us may seem older than one of the zone's own servers: both count whole ones.
const FRESH: u32 = 2;
