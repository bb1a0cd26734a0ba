//! Where requests for a site go: the signed route, in its two forms.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::{DnsName, Document, DocumentError, NameSet, Origin, PoolName, Upstream, documents};

/// Where requests for a site go, and how.
///
/// As JSON, the second form of the document: `{"format":"2", ...}`. Members of later releases are ignored, unless `crit`
/// names them (see [`Document`]); the first form, with one upstream, is still read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename = "2")]
pub struct Route {
    /// The site.
    pub site: DnsName,
    /// The names that lead to it.
    pub names: NameSet,
    /// Counts up from 1 with each change.
    pub version: u64,
    /// The pools that may serve it, sorted.
    pub pools: Vec<PoolName>,
    /// The servers behind the edge, at most [`Route::MAX_UPSTREAMS`]; none when the site has left, and edges drop what they
    /// hold for it.
    pub upstreams: Vec<Endpoint>,
    /// The treatment of requests without TLS.
    pub https: HttpsMode,
}

impl Route {
    /// The most servers behind the edge.
    pub const MAX_UPSTREAMS: usize = 32;

    /// Whether the site has left.
    pub fn has_left(&self) -> bool {
        self.upstreams.is_empty()
    }
}

impl Document for Route {
    const LABEL: &'static str = "certseal route v2";

    fn label(payload: &[u8]) -> &'static str {
        // The label that is chosen here is part of what the signature covers: nobody turns one form into the other.
        if payload.starts_with(br#"{"format":"2","#) { Self::LABEL } else { FIRST_LABEL }
    }

    fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        if Self::label(payload) == FIRST_LABEL {
            let first: FirstRoute = serde_json::from_slice(payload)?;
            return Ok(first.into());
        }
        let route: Self = documents::read(payload, &[])?;
        if route.upstreams.len() > Self::MAX_UPSTREAMS {
            let count = route.upstreams.len();
            return Err(DocumentError::new(format!("expected at most {} upstreams, got {count}", Self::MAX_UPSTREAMS)));
        }
        Ok(route)
    }
}

/// One server behind the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it is.
    pub origin: Origin,
    /// Its part of the requests, in proportion to the other weights.
    pub weight: NonZeroU16,
    /// Over `https`: the name that its certificate must be for; the host of the origin when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<DnsName>,
}

impl From<Upstream> for Endpoint {
    /// The one server of a site, without TLS.
    fn from(upstream: Upstream) -> Self {
        Self { origin: upstream.into(), weight: NonZeroU16::MIN, server_name: None }
    }
}

/// The treatment of requests without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpsMode {
    /// They are sent to HTTPS.
    #[default]
    Redirect,
}

/// A route in the first form.
#[derive(Deserialize)]
struct FirstRoute {
    site: DnsName,
    names: NameSet,
    version: u64,
    pools: Vec<PoolName>,
    upstream: Option<Upstream>,
}

impl From<FirstRoute> for Route {
    fn from(FirstRoute { site, names, version, pools, upstream }: FirstRoute) -> Self {
        let upstreams = upstream.into_iter().map(Endpoint::from).collect();
        Self { site, names, version, pools, upstreams, https: HttpsMode::Redirect }
    }
}

const FIRST_LABEL: &str = "certseal route v1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;

    const FIRST: &str =
        r#"{"site":"a.example","names":["a.example"],"version":7,"pools":["eu"],"upstream":"http://10.0.0.7:8080"}"#;
    const SECOND: &str = r#"{"format":"2","site":"a.example","names":["a.example"],"version":7,"pools":["eu"],"upstreams":[{"origin":"http://10.0.0.7:8080","weight":1}],"https":"redirect"}"#;

    #[test]
    fn both_forms_say_the_same_each_under_its_own_label() {
        let (first, second) = (Route::read(FIRST.as_bytes()).unwrap(), Route::read(SECOND.as_bytes()).unwrap());
        assert_eq!(first, second);
        assert_eq!(serde_json::to_string(&first).unwrap(), SECOND, "what is written is of the second form");
        assert_eq!(Route::label(FIRST.as_bytes()), "certseal route v1");
        assert_eq!(Route::label(SECOND.as_bytes()), "certseal route v2");
        let left = FIRST.replace(r#""http://10.0.0.7:8080""#, "null");
        assert!(Route::read(left.as_bytes()).unwrap().has_left());
    }

    #[test]
    fn members_of_a_later_release_are_ignored_unless_they_are_critical() {
        let with = |more: &str| SECOND.replace(r#""https""#, &format!(r#"{more},"https""#));
        let ignored = with(r#""hsts":{"max_age":86400,"stage":2},"report":[1]"#);
        assert_eq!(Route::read(ignored.as_bytes()).unwrap(), Route::read(SECOND.as_bytes()).unwrap());
        let critical = with(r#""rewrite":[],"crit":["rewrite"]"#);
        assert_eq!(Route::read(critical.as_bytes()), Err(DocumentError::NotUnderstood("rewrite".into())));
        // A value that this release does not know, of a member that it knows, is no less critical.
        assert!(Route::read(SECOND.replace("redirect", "offered").as_bytes()).is_err());
        assert!(Route::read(with(r#""crit":"rewrite""#).as_bytes()).is_err());
        // The control: a member of that name elsewhere says nothing.
        let elsewhere = with(r#""hsts":{"crit":["rewrite"]}"#);
        assert!(Route::read(elsewhere.as_bytes()).is_ok());
    }

    #[test]
    fn a_site_has_several_upstreams_with_or_without_tls() {
        let several = r#"[{"origin":"http://10.0.0.7:8080","weight":3},{"origin":"https://b.internal:8443","weight":1,"server_name":"b.example"}]"#;
        let text = SECOND.replace(r#"[{"origin":"http://10.0.0.7:8080","weight":1}]"#, several);
        let route = Route::read(text.as_bytes()).unwrap();
        let tls = &route.upstreams[1];
        assert_eq!((tls.origin.scheme(), tls.origin.authority()), (Scheme::Https, "b.internal:8443"));
        assert_eq!(serde_json::to_string(&route).unwrap(), text);
        assert!(Route::read(text.replace(r#""weight":3"#, r#""weight":0"#).as_bytes()).is_err());
        let one = r#"{"origin":"http://10.0.0.7:8080","weight":1}"#;
        let of = |count| SECOND.replace(one, &vec![one; count].join(","));
        assert!(Route::read(of(Route::MAX_UPSTREAMS).as_bytes()).is_ok());
        assert!(Route::read(of(Route::MAX_UPSTREAMS + 1).as_bytes()).is_err());
    }
}
