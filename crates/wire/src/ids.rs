//! Ids: fixed-length bytes that people see as lower-case hex, and epochs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let mut bytes = [0; $len];
                decode_hex(text, &mut bytes).ok_or_else(|| ParseError::new($expected, text))?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// A SHA-256 digest.
    Digest, 32, "64 lower-case hex digits"
);
hex_id!(
    /// The random id of one envelope.
    EnvelopeId, 16, "32 lower-case hex digits"
);
hex_id!(
    /// The random id of a group of envelopes with one content key.
    GroupId, 16, "32 lower-case hex digits"
);
hex_id!(
    /// The random id of one rotation of a pool's unseal key.
    RotationId, 16, "32 lower-case hex digits"
);
hex_id!(
    /// The id of an unseal key: the first 16 octets of a SHA-256 over its suite and public half.
    KeyId, 16, "32 lower-case hex digits"
);
hex_id!(
    /// The id of a signing key: the first 16 octets of a SHA-256 over its public half.
    SignerId, 16, "32 lower-case hex digits"
);

/// The generation of a pool's unseal key; counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Strict lower-case hex of exactly `out.len()` octets.
fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return None;
    }
    for (slot, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strict_lower_case_hex() {
        let text = "000102030405060708090a0b0c0d0eff";
        assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        for bad in ["", "00", "000102030405060708090A0b0c0d0eff", "000102030405060708090a0b0c0d0efg"] {
            assert!(bad.parse::<KeyId>().is_err());
        }
    }
}
