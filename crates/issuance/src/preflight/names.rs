//! Names that no CA gives a certificate for, whatever their DNS says.

use certseal_wire::{DnsName, Finding, FindingCode};

/// How a name lies to the public suffix list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// It ends in a suffix of the list, and is more than that.
    Below,
    /// It is a suffix under which others register their domains.
    Itself,
    /// It ends in no suffix that the list knows.
    Unknown,
}

/// Why no CA gives a certificate for the name, if none does. `denied` are the names that the platform does not serve, with all
/// names below them. The rules are Boulder's (`policy/pa.go`), and that a name that begins with www.www is a slip.
pub fn refused(name: &DnsName, suffix: Suffix, denied: &[DnsName]) -> Option<Finding> {
    if let Some(listed) = denied.iter().find(|denied| is_within(name, denied)) {
        let detail = format!("the platform's deny list has {listed}: no certificate is ordered");
        return Some(Finding { code: FindingCode::Denied, detail, edits: Vec::new() });
    }
    let why = by_suffix(name, suffix).or_else(|| by_labels(name.as_str().trim_start_matches("*.")))?;
    let detail = format!("no CA gives a certificate for it: {why}; use another name");
    Some(Finding { code: FindingCode::NameRefused, detail, edits: Vec::new() })
}

fn is_within(name: &DnsName, domain: &DnsName) -> bool {
    let rest = name.as_str().strip_suffix(domain.as_str());
    // A wildcard over it would be a certificate for it, too.
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) || domain.covering_wildcard().as_ref() == Some(name)
}

fn by_suffix(name: &DnsName, suffix: Suffix) -> Option<String> {
    match suffix {
        Suffix::Below => None,
        Suffix::Itself if name.is_wildcard() => Some("it is a wildcard over a public suffix".to_owned()),
        Suffix::Itself => Some("it is a public suffix, under which others have their domains".to_owned()),
        Suffix::Unknown => Some("it does not end in a public suffix (a top-level domain)".to_owned()),
    }
}

fn by_labels(name: &str) -> Option<String> {
    let labels: Vec<_> = name.split('.').collect();
    if labels.len() > MOST_LABELS {
        return Some(format!("it has {} labels, and {MOST_LABELS} are the most", labels.len()));
    }
    if name.contains('_') {
        return Some("it has an underscore, which no host name has (RFC 1123, 2.1)".to_owned());
    }
    if labels.starts_with(&["www", "www"]) {
        return Some("it begins with www.www".to_owned());
    }
    labels.into_iter().find_map(by_hyphens)
}

/// Hyphens at the third and fourth place belong to international names (RFC 5890, 2.3.1).
fn by_hyphens(label: &str) -> Option<String> {
    if label.get(2..4) != Some("--") {
        return None;
    }
    if !label.starts_with("xn--") {
        return Some(format!("its label {label:?} is of a reserved form (RFC 5890, 2.3.1)"));
    }
    let (_, read) = idna::domain_to_unicode(label);
    read.is_err().then(|| format!("its label {label:?} is no international name (RFC 5891, 5.4)"))
}

/// Of a name (Boulder, `maxLabels`).
const MOST_LABELS: usize = 10;
