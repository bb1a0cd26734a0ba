//! The kinds of record that the feed announces.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ParseError;

/// A kind of record in the feed: `bundle`, `route`, or a word that only a later release knows.
///
/// A reader that meets an unknown kind goes on: it leaves the record alone, counts it, and reads the feed from its start
/// once it runs a release that knows the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A bundle.
    Bundle,
    /// A signed [`crate::Route`].
    Route,
    /// The signed [`crate::KeyRing`].
    Ring,
    /// The signed [`crate::AcmeAccounts`].
    Accounts,
    /// A signed [`crate::Checkpoint`].
    Checkpoint,
    /// A signed [`crate::Staple`].
    Staple,
    /// A kind of a later release.
    Unknown(UnknownKind),
}

impl Kind {
    /// The kinds that this release knows.
    pub const KNOWN: [Self; 6] =
        [Self::Bundle, Self::Route, Self::Ring, Self::Accounts, Self::Checkpoint, Self::Staple];

    /// The word that stands for the kind.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Bundle => "bundle",
            Self::Route => "route",
            Self::Ring => "ring",
            Self::Accounts => "accounts",
            Self::Checkpoint => "checkpoint",
            Self::Staple => "staple",
            Self::Unknown(unknown) => unknown.as_str(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match Self::KNOWN.into_iter().find(|kind| kind.as_str() == text) {
            Some(known) => Ok(known),
            None => UnknownKind::new(text).map(Self::Unknown),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The word of a kind that this release does not know: 1 to 32 octets of `a` to `z`, `0` to `9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownKind {
    octets: [u8; UnknownKind::MAX_OCTETS],
    length: u8,
}

impl UnknownKind {
    /// The most octets of a kind's word.
    pub const MAX_OCTETS: usize = 32;

    fn new(text: &str) -> Result<Self, ParseError> {
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > Self::MAX_OCTETS || !text.bytes().all(is_word) {
            return Err(ParseError::new("a kind of record such as bundle", text));
        }
        let mut octets = [0; Self::MAX_OCTETS];
        octets[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { octets, length: text.len() as u8 })
    }

    fn as_str(&self) -> &str {
        // It was made of ASCII.
        std::str::from_utf8(&self.octets[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, FeedPage};

    #[test]
    fn a_kind_of_a_later_release_is_carried_over_as_it_came() {
        let page = r#"{"cursor":"01010101010101010101010101010101:7","events":[{"kind":"fleet-ticket-keys","name":"eu",
            "version":3,"digest":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","pools":["eu"],
            "body":"AAEC"}],"end":true}"#;
        let page: FeedPage = serde_json::from_str(page).unwrap();
        let kind = page.events[0].kind;
        assert!(matches!(kind, Kind::Unknown(_)) && kind.as_str() == "fleet-ticket-keys");
        let again: Event = serde_json::from_slice(&serde_json::to_vec(&page.events[0]).unwrap()).unwrap();
        assert_eq!(again, page.events[0]);
    }

    #[test]
    fn every_known_kind_reads_back_and_a_kind_is_one_short_word() {
        for kind in Kind::KNOWN {
            assert_eq!(kind.as_str().parse::<Kind>(), Ok(kind));
        }
        assert!("x".repeat(32).parse::<Kind>().is_ok());
        for bad in ["", "Bundle", "a b", "a/b", "a\n", "ä", &"x".repeat(33)] {
            assert!(bad.parse::<Kind>().is_err(), "{bad:?}");
        }
    }
}
