//! Fetches of our own challenge at the addresses of a name, as a CA makes them by http-01 (RFC 8555, 8.3): whether it would
//! find the answer.
//!
//! A CA takes one of the IPv6 addresses, and one of the others only if no connection comes about there. Each failure that it may
//! come to in this way counts; one that it never meets does not.

use std::net::IpAddr;

use certseal_wire::{Finding, FindingCode};

use super::{
    observed::{Observed, Observer},
    targets::joined,
};

/// The fetches for a name from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Perspective {
    /// The name of the vantage point; none for certman's own place.
    pub vantage_point: Option<String>,
    /// The outcome at each address.
    pub fetches: Vec<(IpAddr, Fetched)>,
}

/// The outcome of one fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The answer that the platform's edges give.
    Right,
    /// No connection came about. CAs that tried IPv6 go on with IPv4 then.
    Unreachable(String),
    /// The connection came about, and no answer, or the way to it leads where no CA goes.
    Broken(String),
    /// Another answer.
    Strange(StrangeAnswer),
    /// The answer leads on, more often than CAs follow: the place that it led to at last.
    LeadsOn(String),
    /// The fetch could not be made, or would have failed for every name: that says nothing of this one.
    NotAsked(String),
}

/// An answer that is none of the platform's edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrangeAnswer {
    /// The status.
    pub status: u16,
    /// The name that the server gives itself.
    pub server: Option<String>,
    /// The beginning of the body, as it came.
    pub said: String,
}

/// The addresses of a name that are worth a fetch: at most four of each family, those of IPv6 first, as resolvers see them.
pub fn fetched_at(observed: &Observed) -> Vec<IpAddr> {
    let views = || observed.views.iter().filter(|view| matches!(view.observer, Observer::Resolver(_)));
    let ipv6 = views().flat_map(|view| view.ipv6.records.iter().flatten().copied().map(IpAddr::from));
    let ipv4 = views().flat_map(|view| view.ipv4.records.iter().flatten().copied().map(IpAddr::from));
    few(ipv6).into_iter().chain(few(ipv4)).collect()
}

fn few(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

/// What speaks against a name by the fetches from several places.
pub fn fetched(perspectives: &[Perspective]) -> Option<Finding> {
    let finding = |(code, detail)| Finding { code, detail, edits: Vec::new() };
    let (own, others): (Vec<_>, Vec<_>) = perspectives.iter().partition(|place| place.vantage_point.is_none());
    let own_objection = own.iter().find_map(|place| objection(place));
    let is_unknown = matches!(own_objection, Some((FindingCode::NotAsked, _)));
    if own_objection.is_some() && !is_unknown {
        return own_objection.map(finding);
    }
    for place in &others {
        let Some((code, detail)) = objection(place) else { continue };
        if code == FindingCode::NotAsked {
            continue;
        }
        let here = if own.iter().any(|place| passes(place)) { "from certman's place all is well, and " } else { "" };
        let detail = format!(
            "{here}from {} it is not: {detail}. CAs validate from several places, which must not be kept out or led elsewhere",
            place.vantage_point.as_deref().unwrap_or_default()
        );
        return Some(finding((FindingCode::FetchFailsElsewhere, detail)));
    }
    // What is seen from elsewhere is known.
    own_objection.filter(|_| !others.iter().any(|place| passes(place))).map(finding)
}

fn passes(place: &Perspective) -> bool {
    place.fetches.iter().any(|(_, fetched)| *fetched == Fetched::Right)
}

/// What speaks against a name by the fetches from one place.
fn objection(place: &Perspective) -> Option<(FindingCode, String)> {
    let is_asked = |(_, fetched): &&(IpAddr, Fetched)| !matches!(fetched, Fetched::NotAsked(_));
    let (asked, not_asked): (Vec<_>, Vec<_>) = place.fetches.iter().partition(is_asked);
    if asked.is_empty() {
        let (address, fetched) = not_asked.first()?;
        let detail =
            format!("whether our own challenge is answered at {address} could not be asked: {}", words(fetched));
        return Some((FindingCode::NotAsked, detail));
    }
    let met = met(&asked);
    let (address, fetched) = met.iter().find(|(_, fetched)| *fetched != Fetched::Right)?;
    let passing: Vec<_> = asked.iter().filter(|(_, fetched)| *fetched == Fetched::Right).map(|(at, _)| at).collect();
    let what = words(fetched);
    if passing.is_empty() {
        let detail = format!("a CA would not find our answer at {address}: {what}");
        return Some((code(fetched), detail));
    }
    let choice = if address.is_ipv6() && passing.iter().all(|at| at.is_ipv4()) {
        "CAs try IPv6 first, and IPv4 only if no connection comes about"
    } else {
        "a CA may choose that address"
    };
    let detail =
        format!("our own challenge is answered at {}, and not at {address}: {what}; {choice}", joined(passing.iter()));
    Some((FindingCode::FetchFailsSomewhere, detail))
}

/// The fetches of which a CA may come to the outcome.
fn met<'a>(asked: &[&'a (IpAddr, Fetched)]) -> Vec<&'a (IpAddr, Fetched)> {
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = asked.iter().copied().partition(|(address, _)| address.is_ipv6());
    let is_unreachable = |it: &&'a (IpAddr, Fetched)| matches!(it.1, Fetched::Unreachable(_));
    let falls_back = ipv6.is_empty() || ipv6.iter().any(is_unreachable);
    let is_last = ipv4.is_empty();
    let of_ipv6 = ipv6.into_iter().filter(|it| is_last || !is_unreachable(it));
    of_ipv6.chain(ipv4.into_iter().filter(|_| falls_back)).collect()
}

fn code(fetched: &Fetched) -> FindingCode {
    match fetched {
        Fetched::Strange(_) => FindingCode::StrangeServer,
        Fetched::LeadsOn(_) => FindingCode::RedirectLoop,
        _ => FindingCode::FetchFails,
    }
}

/// The outcome for people. What others said is escaped.
fn words(fetched: &Fetched) -> String {
    match fetched {
        Fetched::Right => "our answer".to_owned(),
        Fetched::Unreachable(why) => format!("no connection comes about ({})", escaped(why)),
        Fetched::Broken(why) | Fetched::NotAsked(why) => escaped(why),
        Fetched::Strange(StrangeAnswer { status, server, said }) => {
            let server = server.as_ref().map(|server| format!(" ({})", escaped(server))).unwrap_or_default();
            format!("another server{server} answers with status {status}: \"{}\"", escaped(said))
        }
        Fetched::LeadsOn(at) => format!("it is led on and on, at last to {}", escaped(at)),
    }
}

fn escaped(text: &str) -> String {
    text.chars().take(MOST_SAID).flat_map(char::escape_debug).collect()
}

/// Addresses of each family that a fetch is made at.
const MOST_ADDRESSES: usize = 4;
/// Characters of somebody else's words.
const MOST_SAID: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(vantage_point: Option<&str>, fetches: &[(&str, Fetched)]) -> Perspective {
        let fetches = fetches.iter().map(|(address, fetched)| (address.parse().unwrap(), fetched.clone())).collect();
        Perspective { vantage_point: vantage_point.map(str::to_owned), fetches }
    }

    fn here(fetches: &[(&str, Fetched)]) -> Option<(FindingCode, String)> {
        fetched(&[place(None, fetches)]).map(|finding| (finding.code, finding.detail))
    }

    fn strange() -> Fetched {
        Fetched::Strange(StrangeAnswer { status: 404, server: Some("nginx".into()), said: "<h1>\u{1b}[1mno".into() })
    }

    fn unreachable() -> Fetched {
        Fetched::Unreachable("time-out".into())
    }

    const V4: &str = "192.0.2.1";
    const V4_MORE: &str = "192.0.2.2";
    const V6: &str = "2001:db8::1";

    #[test]
    fn a_name_that_is_answered_wherever_a_ca_comes_is_ready() {
        assert_eq!(here(&[]), None, "there was nothing to fetch");
        assert_eq!(here(&[(V6, Fetched::Right), (V4, Fetched::Right)]), None);
        assert_eq!(here(&[(V6, unreachable()), (V4, Fetched::Right)]), None, "CAs fall back");
        assert_eq!(here(&[(V6, Fetched::Right), (V4, strange())]), None, "no CA comes to IPv4");
    }

    #[test]
    fn an_address_that_a_ca_may_come_to_speaks_against_the_name() {
        let leads_on = || Fetched::LeadsOn("http://a.example/".into());
        type Case = (Vec<(&'static str, Fetched)>, FindingCode, &'static str);
        let cases: [Case; 8] = [
            (vec![(V6, strange()), (V4, Fetched::Right)], FindingCode::FetchFailsSomewhere, "IPv6 first"),
            (vec![(V4, Fetched::Right), (V4_MORE, unreachable())], FindingCode::FetchFailsSomewhere, "may choose"),
            (
                vec![(V6, unreachable()), (V4, Fetched::Right), (V4_MORE, strange())],
                FindingCode::FetchFailsSomewhere,
                V4_MORE,
            ),
            (vec![(V6, unreachable()), (V4, strange())], FindingCode::StrangeServer, V4),
            (vec![(V6, unreachable()), (V4, unreachable())], FindingCode::FetchFails, "time-out"),
            (vec![(V6, unreachable())], FindingCode::FetchFails, V6),
            (vec![(V4, leads_on())], FindingCode::RedirectLoop, "http://a.example/"),
            (vec![(V4, Fetched::Broken("it breaks off".into()))], FindingCode::FetchFails, "breaks off"),
        ];
        for (fetches, code, said) in cases {
            let (found, detail) = here(&fetches).unwrap();
            assert_eq!(found, code, "{detail}");
            assert!(detail.contains(said), "{said}: {detail}");
        }
    }

    #[test]
    fn a_fetch_that_could_not_be_made_leaves_a_name_unknown_and_hides_no_other() {
        let not_asked = || Fetched::NotAsked("no route".into());
        assert_eq!(here(&[(V6, not_asked()), (V4, Fetched::Right)]), None);
        assert_eq!(here(&[(V6, not_asked()), (V4, strange())]).unwrap().0, FindingCode::StrangeServer);
        let (code, detail) = here(&[(V6, not_asked()), (V4, not_asked())]).unwrap();
        assert_eq!(code, FindingCode::NotAsked);
        assert!(detail.contains("no route"), "{detail}");
    }

    #[test]
    fn a_vantage_point_that_sees_something_else_is_named() {
        let from = |own: Fetched, elsewhere: Fetched| {
            let places = [place(None, &[(V4, own)]), place(Some("us"), &[(V4, elsewhere)])];
            fetched(&places).map(|finding| (finding.code, finding.detail))
        };
        assert_eq!(from(Fetched::Right, Fetched::Right), None);
        let (code, detail) = from(Fetched::Right, strange()).unwrap();
        assert_eq!(code, FindingCode::FetchFailsElsewhere);
        assert!(detail.contains("from us") && detail.contains("certman's place"), "{detail}");
        assert_eq!(
            from(strange(), Fetched::Right).unwrap().0,
            FindingCode::StrangeServer,
            "certman's own place says more"
        );
        let not_asked = || Fetched::NotAsked("the proxy is away".into());
        assert_eq!(from(Fetched::Right, not_asked()), None, "a vantage point that is away says nothing");
        assert_eq!(from(not_asked(), Fetched::Right), None, "and what is seen from there is known");
        assert_eq!(from(not_asked(), not_asked()).unwrap().0, FindingCode::NotAsked);
        assert_eq!(from(not_asked(), unreachable()).unwrap().0, FindingCode::FetchFailsElsewhere);
    }

    #[test]
    fn the_words_of_another_server_are_short_and_escaped() {
        let long = StrangeAnswer { status: 200, server: None, said: "\u{1b}\n\"x".repeat(500) };
        let (_, detail) = here(&[(V4, Fetched::Strange(long))]).unwrap();
        assert!(!detail.chars().any(char::is_control), "{detail}");
        assert!(detail.len() < 10 * MOST_SAID, "{}", detail.len());
    }
}
