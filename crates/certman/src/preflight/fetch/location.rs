//! The places that fetches are led to.

use std::fmt;

use certseal_wire::DnsName;
use http::Uri;

/// A place that a fetch is led to.
pub(super) struct Location {
    pub(super) host: DnsName,
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// With the query.
    pub(super) path: String,
}

impl Location {
    fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The host, with the port where it is not the usual one.
    pub(super) fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The place that a redirect leads to, if a CA goes there: to a host with a name, by HTTP or HTTPS on their usual ports, or on
    /// `port`, where fetches begin.
    pub(super) fn redirected(&self, location: &str, port: u16) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = self.scheme();
        let is_scheme =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let whole = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.split_once(':').is_some_and(|(first, _)| is_scheme(first)) {
            location.to_owned()
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority())
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{}{folder}/{location}", self.authority())
        };
        let url = whole.parse::<Uri>().map_err(|error| error.to_string())?;
        let is_tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("expected http or https".to_owned()),
        };
        let host = url.host().unwrap_or_default().trim_end_matches('.');
        let host = host.parse::<DnsName>().map_err(|error| error.to_string())?;
        let to = url.port_u16().unwrap_or(if is_tls { 443 } else { port });
        if ![80, 443, port].contains(&to) {
            return Err(format!("expected port 80 or 443, got {to}"));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: to, is_tls, path })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_cas_go_and_nowhere_else() {
        let at = Location { host: "a.example".parse().unwrap(), port: 80, is_tls: false, path: "/x/y?z".to_owned() };
        let led = |location: &str| at.redirected(location, 80).map(|to| to.to_string());
        for (location, to) in [
            ("/p?q", "http://a.example/p?q"),
            ("p", "http://a.example/x/p"),
            ("https://b.example/p#f", "https://b.example/p"),
            ("//B.example:443/p", "http://b.example:443/p"),
            ("http://b.example.", "http://b.example/"),
        ] {
            assert_eq!(led(location).as_deref(), Ok(to), "{location}");
        }
        for bad in [
            "ftp://b.example/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://b.example:8080/",
            "http://localhost/",
            "a:b",
        ] {
            assert!(led(bad).is_err(), "{bad}: {:?}", led(bad));
        }
    }
}
