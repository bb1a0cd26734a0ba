//! The types of key that a site's certificates may have.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// The type of the key that a site's certificate is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyType {
    /// ECDSA over P-256: what clients of the last ten years know, and cheapest to sign with.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA with 2,048 bits, for clients that know nothing else.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// A certificate of each: a client gets the ECDSA one unless it cannot use it. The RSA one is kept under the name
    /// that [`crate::DnsName::companion`] answers.
    #[serde(rename = "both")]
    Both,
}

impl KeyType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EcdsaP256, Self::Rsa2048, Self::Both];

    /// The name as in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
            Self::Both => "both",
        }
    }

    /// Whether it is what a site has that names none. Requests and records leave it out: earlier releases know no other.
    pub fn is_usual(&self) -> bool {
        *self == Self::EcdsaP256
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.into_iter().find(|key_type| key_type.as_str() == text);
        found.ok_or_else(|| ParseError::new("a type of key: ecdsa-p256, rsa-2048 or both", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_the_same_name_in_json_and_in_text() {
        for key_type in KeyType::ALL {
            assert_eq!(serde_json::to_string(&key_type).unwrap(), format!("\"{key_type}\""));
            assert_eq!(key_type.as_str().parse(), Ok(key_type));
        }
        assert!("ecdsa-p384".parse::<KeyType>().is_err());
    }
}
