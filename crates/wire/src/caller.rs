//! The caller: the SPIFFE identity that a client certificate carries.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ParseError, PoolName};

/// The trust domain of a platform's private PKI, such as `platform.example`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl FromStr for TrustDomain {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let well_formed = (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if !well_formed {
            return Err(ParseError::new("a SPIFFE trust domain of a-z, 0-9, ., - and _", text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The permissions of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Terminates TLS for the sites of one pool.
    Edge(PoolName),
    /// certman: writes bundles, routes, challenges and account lists.
    Issuer,
    /// The security team and operators: the key ring, and every view.
    Admin,
    /// The website platform: adds and removes sites.
    Platform,
    /// A daemon that is called, and that calls nobody.
    Service,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge(pool) => write!(f, "edge/{pool}"),
            Self::Issuer => f.write_str("issuer"),
            Self::Admin => f.write_str("admin"),
            Self::Platform => f.write_str("platform"),
            Self::Service => f.write_str("service"),
        }
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once('/') {
            Some(("edge", pool)) => Ok(Self::Edge(pool.parse()?)),
            None if text == "issuer" => Ok(Self::Issuer),
            None if text == "admin" => Ok(Self::Admin),
            None if text == "platform" => Ok(Self::Platform),
            None if text == "service" => Ok(Self::Service),
            _ => Err(ParseError::new("a role: edge/POOL, issuer, admin, platform or service", text)),
        }
    }
}

/// An authenticated caller: `spiffe://TRUST-DOMAIN/ROLE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The role, which says what the caller may do.
    pub role: Role,
    /// Which of those with this role it is.
    pub name: String,
}

impl Caller {
    /// Reads a caller from a SPIFFE ID of the trust domain `domain`.
    ///
    /// # Errors
    /// Another trust domain, an unknown role, or a name that is not 1 to 64 characters of `a-z 0-9 . -`.
    pub fn from_spiffe_id(uri: &str, domain: &TrustDomain) -> Result<Self, ParseError> {
        let error = || ParseError::new("a SPIFFE ID of this trust domain: spiffe://TRUST-DOMAIN/ROLE/NAME", uri);
        let path = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.strip_prefix(domain.0.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(error)?;
        let (role, name) = path.rsplit_once('/').ok_or_else(error)?;
        let well_formed = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b));
        if !well_formed {
            return Err(error());
        }
        Ok(Self { role: role.parse()?, name: name.to_owned() })
    }

    /// The SPIFFE ID of this caller in `domain`.
    pub fn spiffe_id(&self, domain: &TrustDomain) -> String {
        format!("spiffe://{domain}/{}/{}", self.role, self.name)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_from_a_spiffe_id_of_our_trust_domain_only() {
        let domain: TrustDomain = "platform.example".parse().unwrap();
        let caller = Caller::from_spiffe_id("spiffe://platform.example/edge/eu/edge-1", &domain).unwrap();
        assert_eq!(caller.role, Role::Edge("eu".parse().unwrap()));
        assert_eq!(caller.spiffe_id(&domain), "spiffe://platform.example/edge/eu/edge-1");
        for bad in [
            "spiffe://platform.example.evil.example/admin/a",
            "spiffe://platform.exampl/admin/a",
            "spiffe://platform.example/admin",
            "spiffe://platform.example/admin/",
            "spiffe://platform.example/root/a",
            "spiffe://platform.example/edge/a",
            "spiffe://platform.example/edge/eu/us/a",
            "https://platform.example/admin/a",
        ] {
            assert!(Caller::from_spiffe_id(bad, &domain).is_err(), "{bad} was taken for a caller");
        }
    }
}
