//! The list of sites to onboard: a line for each, a name or a JSON object.

use std::collections::HashSet;

use certseal_wire::{DnsName, KeyType, NameSet, PoolName, ProfileName, SiteRequest, Upstream, ValidationMethod};
use serde::Deserialize;

use crate::error::OnboardingError;

/// A site to onboard.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSite {
    /// The site.
    pub site: DnsName,
    /// What certman is asked for.
    pub request: SiteRequest,
}

/// What goes for sites whose line does not say it.
#[derive(Debug, Clone, Default)]
pub struct SiteDefaults {
    /// The server behind the edge.
    pub upstream: Option<Upstream>,
    /// The pools that may serve it.
    pub pools: Vec<PoolName>,
    /// The certificate profile to ask for.
    pub profile: Option<ProfileName>,
}

/// A line that is an object: the members of certman's request, and the site.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    site: DnsName,
    #[serde(default)]
    names: Vec<DnsName>,
    upstream: Option<Upstream>,
    #[serde(default)]
    pools: Vec<PoolName>,
    owner: Option<String>,
    profile: Option<ProfileName>,
    #[serde(default)]
    key_type: KeyType,
    #[serde(default)]
    challenges: Vec<ValidationMethod>,
}

/// Reads a list. Empty lines, and those that begin with `#`, say nothing.
///
/// # Errors
/// The first line that is not usable, by its number.
pub fn read(text: &str, defaults: &SiteDefaults) -> Result<Vec<NewSite>, OnboardingError> {
    let (mut sites, mut known) = (Vec::new(), HashSet::new());
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let unusable = |why: String| OnboardingError::Line { number, why };
        let new = new_site(line, defaults).map_err(unusable)?;
        if !known.insert(new.site.clone()) {
            return Err(unusable(format!("{} stands in a line before", new.site)));
        }
        if sites.len() == MAX_SITES {
            return Err(unusable(format!("expected at most {MAX_SITES} sites: make several lists")));
        }
        sites.push(new);
    }
    if sites.is_empty() { Err(OnboardingError::Empty) } else { Ok(sites) }
}

fn new_site(line: &str, defaults: &SiteDefaults) -> Result<NewSite, String> {
    let Line { site, mut names, upstream, pools, owner, profile, key_type, challenges } = if line.starts_with('{') {
        serde_json::from_str(line).map_err(|error| format!("expected a JSON object about a site: {error}"))?
    } else {
        let site = line.parse().map_err(|error: certseal_wire::ParseError| error.to_string())?;
        let (names, pools) = (Vec::new(), Vec::new());
        Line {
            site,
            names,
            upstream: None,
            pools,
            owner: None,
            profile: None,
            key_type: KeyType::default(),
            challenges: Vec::new(),
        }
    };
    names.push(site.clone());
    let names = NameSet::try_from(names).map_err(|error| error.to_string())?;
    let upstream = upstream.or_else(|| defaults.upstream.clone());
    let upstream = upstream.ok_or("no upstream: give --upstream, or `upstream` in the line")?;
    let mut pools = if pools.is_empty() { defaults.pools.clone() } else { pools };
    // As certman keeps them.
    pools.sort();
    pools.dedup();
    if pools.is_empty() {
        return Err("no pool: give --pool, or `pools` in the line".to_owned());
    }
    let profile = profile.or_else(|| defaults.profile.clone());
    Ok(NewSite { site, request: SiteRequest { names, upstream, pools, owner, profile, key_type, challenges } })
}

/// The most sites of a list.
const MAX_SITES: usize = 1_000_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn defaults() -> SiteDefaults {
        SiteDefaults {
            upstream: Some("http://10.0.0.7:8080".parse().unwrap()),
            pools: vec!["eu".parse().unwrap()],
            profile: None,
        }
    }

    #[test]
    fn a_line_is_a_name_or_an_object_that_goes_before_the_defaults() {
        let text = "# new\n\nshop.example\n{\"site\":\"a.example\",\"names\":[\"www.a.example\"],\"pools\":[\"us\",\"eu\",\"us\"],\"profile\":\"tlsserver\"}\n";
        let sites = read(text, &defaults()).unwrap();
        assert_eq!(sites[0].site.as_str(), "shop.example");
        assert_eq!(sites[0].request.pools[0].as_str(), "eu");
        let names: Vec<&str> = sites[1].request.names.iter().map(DnsName::as_str).collect();
        assert_eq!(names, ["a.example", "www.a.example"]);
        let pools: Vec<&str> = sites[1].request.pools.iter().map(PoolName::as_str).collect();
        assert_eq!(pools, ["eu", "us"]);
        assert_eq!(sites[1].request.profile.as_ref().unwrap().as_str(), "tlsserver");
        assert_eq!(sites.len(), 2);
    }

    #[test]
    fn what_is_wrong_names_its_line() {
        let said = |text: &str, defaults: &SiteDefaults| read(text, defaults).unwrap_err().to_string();
        assert!(said("a.example\nb_\n", &defaults()).starts_with("line 2: expected a DNS name"));
        assert!(said("a.example\nA.example\n", &defaults()).starts_with("line 2: a.example stands in a line before"));
        assert!(said("{\"site\":\"a.example\",\"colour\":1}", &defaults()).contains("unknown field `colour`"));
        assert!(said("a.example", &SiteDefaults::default()).contains("no upstream"));
        assert!(said("a.example", &SiteDefaults { pools: Vec::new(), ..defaults() }).contains("no pool"));
        assert!(said("# nothing\n", &defaults()).contains("no site"));
    }
}
