//! The signed document that carries a CA's word that a certificate is not revoked.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Base64, Digest, DnsName, Document, DocumentError, PoolName, documents};

/// An OCSP answer for a site's certificate (RFC 6960), as certman fetched and verified it. Edges send it along with the
/// certificate to clients that ask for it (RFC 6066, 8; RFC 8446, 4.4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Staple {
    /// The site.
    pub site: DnsName,
    /// Counts up from 1 with each answer for the site, whatever its certificate.
    pub version: u64,
    /// The pools that may serve it, sorted.
    pub pools: Vec<PoolName>,
    /// SHA-256 of the certificate that the answer is about, as DER: it goes with no other one.
    pub certificate: Digest,
    /// The answer: an OCSPResponse as DER, of at most [`Staple::MAX_RESPONSE`] octets.
    pub response: Base64,
    /// From when on it holds.
    pub this_update: Timestamp,
    /// When it has run out. Nobody sends it any more then.
    pub next_update: Timestamp,
}

impl Staple {
    /// The most octets of a response. Usual ones have 300 to 2,000.
    pub const MAX_RESPONSE: usize = 16 * 1024;
}

impl Document for Staple {
    const LABEL: &'static str = "certseal staple v1";

    fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        let staple: Self = documents::read(payload, &[])?;
        let octets = staple.response.0.len();
        if octets > Self::MAX_RESPONSE {
            let most = Self::MAX_RESPONSE;
            return Err(DocumentError::new(format!("expected a response of at most {most} octets, got {octets}")));
        }
        if staple.next_update <= staple.this_update {
            return Err(DocumentError::new(format!(
                "expected a response that holds for a while, got one from {} to {}",
                staple.this_update, staple.next_update
            )));
        }
        Ok(staple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"{"site":"a.example","version":7,"pools":["eu","us"],"certificate":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","response":"MAMKAQE","this_update":"2026-11-01T00:00:00Z","next_update":"2026-11-08T00:00:00Z"}"#;

    #[test]
    fn a_staple_keeps_its_bytes_and_members_of_a_later_release_are_ignored_unless_they_are_critical() {
        let staple = Staple::read(GOLDEN.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&staple).unwrap(), GOLDEN);
        assert_eq!(staple.response.0, [0x30, 3, 0x0a, 1, 1]);
        assert_eq!(Staple::label(GOLDEN.as_bytes()), "certseal staple v1");
        let with = |more: &str| GOLDEN.replace(r#""response""#, &format!(r#"{more},"response""#));
        assert_eq!(Staple::read(with(r#""log":[1]"#).as_bytes()), Ok(staple));
        let critical = with(r#""chain":[],"crit":["chain"]"#);
        assert_eq!(Staple::read(critical.as_bytes()), Err(DocumentError::NotUnderstood("chain".into())));
    }

    #[test]
    fn a_response_is_bounded_and_holds_for_a_while() {
        let of = |octets: usize| {
            let staple = Staple { response: Base64(vec![1; octets]), ..Staple::read(GOLDEN.as_bytes()).unwrap() };
            Staple::read(&serde_json::to_vec(&staple).unwrap())
        };
        assert!(of(Staple::MAX_RESPONSE).is_ok());
        assert!(of(Staple::MAX_RESPONSE + 1).is_err());
        assert!(Staple::read(GOLDEN.replace("11-08", "11-01").as_bytes()).is_err());
    }
}
