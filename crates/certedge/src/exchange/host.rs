//! Which host a request is for.

use certseal_wire::DnsName;
use http::{HeaderValue, Request, StatusCode, Version, header::HOST};

/// The host of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without the port, in lower case; none where it is an address or another thing that no certificate is for.
    pub(crate) name: Option<DnsName>,
    /// As it came.
    pub(crate) sent: HeaderValue,
}

impl Host {
    /// The one host that the request states: in `Host`, in `:authority`, or in the request target, and nowhere
    /// differently (RFC 9112, 3.2; RFC 9113, 8.3.1).
    ///
    /// # Errors
    /// 400 when there is none, or more than one.
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, StatusCode> {
        let mut headers = request.headers().get_all(HOST).iter();
        let header = match (headers.next(), headers.next()) {
            (header, None) => header,
            _ => return Err(StatusCode::BAD_REQUEST),
        };
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let sent = match (header, authority) {
            (Some(header), None) => header.clone(),
            (Some(header), Some(authority)) if header.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
                header.clone()
            }
            (None, Some(authority)) if request.version() == Version::HTTP_2 => {
                HeaderValue::from_str(authority).map_err(|_| StatusCode::BAD_REQUEST)?
            }
            _ => return Err(StatusCode::BAD_REQUEST),
        };
        let name = name(sent.to_str().map_err(|_| StatusCode::BAD_REQUEST)?)?;
        Ok(Self { name, sent })
    }
}

fn name(text: &str) -> Result<Option<DnsName>, StatusCode> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand before its bracket.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let port_is_one = port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5;
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-_[]:*".contains(&b);
    if host.is_empty() || !port_is_one || !host.bytes().all(is_host) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(host.parse().ok().filter(|name: &DnsName| !name.is_wildcard()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_without_its_port_and_in_lower_case() {
        for (host, want) in [
            ("a.example", Some("a.example")),
            ("A.Example:8443", Some("a.example")),
            ("a.example:", Some("a.example")),
            ("127.0.0.1", None),
            ("127.0.0.1:80", None),
            ("[::1]", None),
            ("[::1]:80", None),
            ("localhost", None),
            ("*.a.example", None),
        ] {
            let found = Host::of(&request(&[host], "/", Version::HTTP_11)).unwrap();
            assert_eq!(found.name.as_ref().map(DnsName::as_str), want, "{host}");
            assert_eq!(found.sent, host);
        }
    }

    #[test]
    fn a_missing_double_or_malformed_host_is_refused() {
        let cases: [&[&str]; 9] = [
            &[],
            &["a.example", "a.example"],
            &["a.example", "b.example"],
            &[""],
            &[":80"],
            &["user@a.example"],
            &["a.example/x"],
            &["a.example:80x"],
            &["a.example, b.example"],
        ];
        for hosts in cases {
            let refused = Host::of(&request(hosts, "/", Version::HTTP_11));
            assert_eq!(refused, Err(StatusCode::BAD_REQUEST), "{hosts:?}");
        }
    }

    #[test]
    fn the_request_target_and_the_host_must_agree() {
        let target = "https://a.example/x";
        assert!(Host::of(&request(&["A.example"], target, Version::HTTP_11)).is_ok());
        assert!(Host::of(&request(&["b.example"], target, Version::HTTP_11)).is_err());
        assert!(Host::of(&request(&[], target, Version::HTTP_11)).is_err());
        // In HTTP/2 the target carries :authority.
        assert!(Host::of(&request(&[], target, Version::HTTP_2)).is_ok());
        assert!(Host::of(&request(&["a.example"], target, Version::HTTP_2)).is_ok());
        assert!(Host::of(&request(&["b.example"], target, Version::HTTP_2)).is_err());
    }

    fn request(hosts: &[&str], target: &str, version: Version) -> Request<()> {
        let mut builder = Request::builder().uri(target).version(version);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }
}
