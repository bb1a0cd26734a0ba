//! Names: DNS names, the set of names of one certificate, pools, and the profiles of CAs.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not the value that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct ParseError {
    expected: &'static str,
    got: String,
}

impl ParseError {
    /// An error that quotes at most 80 characters of what came.
    pub fn new(expected: &'static str, got: &str) -> Self {
        Self { expected, got: got.chars().take(80).collect() }
    }
}

/// A DNS name in the form in which certificates carry it: lower case, A-labels, at least two labels, no trailing dot.
///
/// At most 253 octets, labels of 1 to 63 octets (RFC 1035, 2.3.4). The leftmost label may be `*` (RFC 6125, 6.4.3).
/// A last label of digits only is refused: that is an IPv4 address. A copy shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(Arc<str>);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the leftmost label is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The wildcard that covers this name: `*.example.com` for `shop.example.com`. None where the parent would be a
    /// single label, or for a wildcard.
    pub fn covering_wildcard(&self) -> Option<DnsName> {
        let (first, parent) = self.0.split_once('.')?;
        (first != "*" && parent.contains('.')).then(|| DnsName(format!("*.{parent}").into()))
    }

    /// The name under which the RSA certificate of this site is kept, where it has one of each key type: `_rsa.` before its
    /// own. No host has such a name (RFC 952). None where it would be too long.
    pub fn companion(&self) -> Option<DnsName> {
        let is_possible = !self.is_wildcard() && self.0.len() + COMPANION.len() <= MAX_OCTETS;
        is_possible.then(|| DnsName(format!("{COMPANION}{}", self.0).into()))
    }

    /// The site whose RSA certificate is kept under this name; none for the name of a site itself.
    pub fn companion_of(&self) -> Option<DnsName> {
        self.0.strip_prefix(COMPANION)?.parse().ok()
    }
}

impl From<DnsName> for Arc<str> {
    fn from(name: DnsName) -> Self {
        name.0
    }
}

impl FromStr for DnsName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str =
            "a DNS name of at least two labels, such as shop.example.com (international names as A-labels, xn--...)";
        let error = || ParseError::new(EXPECTED, text);
        let name = text.to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let well_formed = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = labels.rsplit('.').next().unwrap_or_default();
        if name.len() > MAX_OCTETS
            || !labels.contains('.')
            || !labels.split('.').all(well_formed)
            || last.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(error());
        }
        Ok(Self(name.into()))
    }
}

/// The most octets of a name (RFC 1035, 2.3.4), in text without the last dot.
const MAX_OCTETS: usize = 253;

/// The beginning of companions' names.
const COMPANION: &str = "_rsa.";

/// The names of one certificate: 1 to 100 distinct DNS names, sorted.
///
/// 100 is the most that Let's Encrypt puts into a certificate of the classic profile. A copy shares the names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<DnsName>", into = "Vec<DnsName>")]
pub struct NameSet(Arc<[DnsName]>);

impl NameSet {
    /// The names in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, DnsName> {
        self.0.iter()
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "no set is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The name of a set that has no other.
    pub fn only(&self) -> Option<&DnsName> {
        match self.0.as_ref() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// Whether `name` itself or the wildcard over it is in the set.
    pub fn covers(&self, name: &DnsName) -> bool {
        let holds = |name: &DnsName| self.0.binary_search(name).is_ok();
        holds(name) || name.covering_wildcard().is_some_and(|wildcard| holds(&wildcard))
    }
}

impl TryFrom<Vec<DnsName>> for NameSet {
    type Error = ParseError;

    fn try_from(mut names: Vec<DnsName>) -> Result<Self, ParseError> {
        names.sort();
        names.dedup();
        match names.len() {
            1..=MOST_NAMES => Ok(Self(names.into())),
            count => Err(ParseError::new("1 to 100 distinct DNS names", &count.to_string())),
        }
    }
}

impl From<NameSet> for Vec<DnsName> {
    fn from(set: NameSet) -> Self {
        set.0.to_vec()
    }
}

/// The name of a pool of edges: 1 to 32 characters of `a-z`, `0-9` and `-`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(Arc<str>);

impl PoolName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PoolName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let well_formed = (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !well_formed {
            return Err(ParseError::new("a pool name of 1 to 32 characters a-z, 0-9 and -, such as eu", text));
        }
        Ok(Self(text.into()))
    }
}

/// The name of a certificate profile of a CA (draft-ietf-acme-profiles): 1 to 64 characters of `a-z`, `A-Z`, `0-9`, `-`, `_` and
/// `.`. A copy shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(Arc<str>);

impl ProfileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The most names that a certificate of the profile has: 25 for `tlsserver` and `shortlived`, which are Let's Encrypt's
    /// (docs/profiles, 2026-09), and as many as a [`NameSet`] has for others.
    pub fn most_names(&self) -> usize {
        match self.as_str() {
            "tlsserver" | "shortlived" => 25,
            _ => MOST_NAMES,
        }
    }
}

impl FromStr for ProfileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let well_formed = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !well_formed {
            return Err(ParseError::new("a profile of 1 to 64 letters, digits, -, _ and ., such as tlsserver", text));
        }
        Ok(Self(text.into()))
    }
}

/// The most names of a set.
const MOST_NAMES: usize = 100;

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_form!(DnsName, PoolName, ProfileName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_folded_to_lower_case() {
        for (text, want) in [
            ("Shop.Example.COM", "shop.example.com"),
            ("*.example.com", "*.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.2.3.4a", "1.2.3.4a"),
        ] {
            assert_eq!(text.parse::<DnsName>().unwrap().as_str(), want);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "abcdefg.".repeat(32));
        for text in [
            "", "localhost", "a..b", ".a.b", "a.b.", "-a.b", "a-.b", "a b.c", "1.2.3.4", "*", "*.com", "a.*.b",
            "ü.example", "a.b:80", "a/b.c", &long_label, &long_name,
        ] {
            assert!(text.parse::<DnsName>().is_err(), "{text:?} was taken for a name");
        }
    }

    #[test]
    fn a_name_set_is_sorted_and_distinct() {
        let set: NameSet = serde_json::from_str(r#"["b.example","A.example","b.example"]"#).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["a.example","b.example"]"#);
        assert!(serde_json::from_str::<NameSet>("[]").is_err());
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let set: NameSet = serde_json::from_str(r#"["*.a.example"]"#).unwrap();
        let covers = |name: &str| set.covers(&name.parse().unwrap());
        assert!(covers("x.a.example") && covers("*.a.example"));
        assert!(!covers("a.example") && !covers("x.y.a.example"));
    }

    #[test]
    fn profiles_are_short_and_plain() {
        let profile = |text: &str| text.parse::<ProfileName>();
        assert_eq!(profile("shortlived").unwrap().most_names(), 25);
        assert_eq!(profile("classic").unwrap().most_names(), 100);
        for text in ["", "a b", "a\n", "ü", &"a".repeat(65)] {
            assert!(profile(text).is_err(), "{text:?} was taken for a profile");
        }
    }

    #[test]
    fn pool_names_are_short_and_plain() {
        assert!("eu-west-1".parse::<PoolName>().is_ok());
        for text in ["", "EU", "1eu", "eu/1", "a-name-that-is-longer-than-32-octets"] {
            assert!(text.parse::<PoolName>().is_err(), "{text:?} was taken for a pool");
        }
    }
}
