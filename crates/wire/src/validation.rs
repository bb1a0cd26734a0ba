//! The ways in which CAs validate names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// A way to validate a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ValidationMethod {
    /// A file under the name (RFC 8555, 8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http,
    /// A certificate under the name, in a handshake that offers nothing else (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    /// A TXT record beside it (RFC 8555, 8.4), another one for each order.
    #[serde(rename = "dns-01")]
    Dns,
    /// A TXT record beside it that stays, and names our account (draft-ietf-acme-dns-persist).
    #[serde(rename = "dns-persist-01")]
    DnsPersist,
}

impl ValidationMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::TlsAlpn, Self::Dns, Self::DnsPersist];

    /// As CAs and CAA records name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
            Self::DnsPersist => "dns-persist-01",
        }
    }

    /// Whether wildcards can be validated so: not where the CA comes to a host.
    pub fn takes_wildcards(self) -> bool {
        matches!(self, Self::Dns | Self::DnsPersist)
    }

    /// Whether it is the one that needs nothing but the route to an edge.
    pub fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

impl fmt::Display for ValidationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ValidationMethod {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.into_iter().find(|method| method.as_str() == text);
        found.ok_or_else(|| ParseError::new("http-01, tls-alpn-01, dns-01 or dns-persist-01", text))
    }
}
