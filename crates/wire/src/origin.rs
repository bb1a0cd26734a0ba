//! Where servers behind the edge are.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// The origin of a server: `http://HOST:PORT` or `https://HOST:PORT`, without path, query or user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    scheme: Scheme,
    authority: String,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Origin {
    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port, such as `127.0.0.1:8080`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for Origin {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("an origin such as http://10.0.0.7:8080 or https://10.0.0.7:8443", text);
        let (scheme, authority) = match text.split_once("://").ok_or_else(error)? {
            ("http", authority) => (Scheme::Http, authority),
            ("https", authority) => (Scheme::Https, authority),
            _ => return Err(error()),
        };
        if !is_authority(authority) {
            return Err(error());
        }
        Ok(Self { scheme, authority: authority.to_owned() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl TryFrom<String> for Origin {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

/// Whether `text` is HOST:PORT.
fn is_authority(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&host.len()) && host.bytes().all(plain),
    };
    host_is_good && port.parse::<u16>().is_ok_and(|port| port != 0)
}

impl From<Upstream> for Origin {
    fn from(upstream: Upstream) -> Self {
        Self { scheme: Scheme::Http, authority: upstream.authority().to_owned() }
    }
}

/// The origin of a server behind the edge: `http://HOST:PORT`, without path, query or user. A copy shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upstream(Arc<str>);

impl Upstream {
    /// Host and port, such as `127.0.0.1:8080`.
    pub fn authority(&self) -> &str {
        self.0.trim_start_matches("http://")
    }
}

impl FromStr for Upstream {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("an upstream such as http://10.0.0.7:8080", text);
        let authority = text.strip_prefix("http://").ok_or_else(error)?;
        if !is_authority(authority) {
            return Err(error());
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Upstream {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.0.as_ref().to_owned()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_origin() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:80", "http://backend.internal:9000"] {
            assert!(good.parse::<Upstream>().is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1:80", "https://a:1", "http://a", "http://a:0", "http://a:99999", "http://a:1/x", "http://u@a:1",
            "http://[x]:1", "http://:1",
        ] {
            assert!(bad.parse::<Upstream>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for good in ["http://127.0.0.1:8080", "https://[::1]:443", "http://backend.internal:9000"] {
            assert_eq!(good.parse::<Origin>().unwrap().to_string(), good);
        }
        for bad in ["127.0.0.1:80", "ftp://a:1", "http://a", "https://a:0", "http://a:1/x", "http://u@a:1", "http://:1"]
        {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
