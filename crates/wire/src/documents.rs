//! The documents that edges act on. Each is signed at its source, carried and stored as the bytes that were signed,
//! and checked where it is used.
//!
//! certman signs [`BundleInfo`], [`crate::Route`], [`Challenge`], [`AcmeAccounts`], [`Checkpoint`] and [`crate::Staple`] with its
//! issuer key; the security team signs the [`KeyRing`].

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Base64, Digest, DnsName, Epoch, KeyId, Kind, NameSet, PoolName, SignerId};

/// A signed document: the exact JSON that was signed, and by which key.
///
/// `certseal-seal` makes and checks the signature. There is no way from here to the document without that check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signed {
    /// The document as JSON, byte for byte as it was signed.
    pub payload: Base64,
    /// Which key signed.
    pub signer: SignerId,
    /// Ed25519 over the document's label and the payload; 64 octets.
    pub signature: Base64,
}

/// A type of document that can be signed.
///
/// A signed document outlives the release that wrote it. A reader ignores members that it does not know, unless the
/// document's member `crit` lists their names: then the reader refuses the document (as RFC 7515, 4.1.11 has it for
/// signatures). A reader also refuses a value that it does not know of a member that it knows. docs/compatibility.md
/// has the rules.
pub trait Document: Serialize + DeserializeOwned {
    /// The label that separates signatures over this type from those over any other. New documents are signed under it.
    const LABEL: &'static str;

    /// The label that `payload` must be signed under: another one where earlier forms of the document are still read.
    fn label(_payload: &[u8]) -> &'static str {
        Self::LABEL
    }

    /// The document of a payload whose signature was checked.
    ///
    /// # Errors
    /// [`DocumentError`].
    fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        read(payload, &[])
    }
}

/// Why a signed payload is no document to this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It has another form.
    #[error("{0}")]
    Malformed(String),
    /// It has a critical member of a later release.
    #[error("it has {0:?}, which whoever acts on it must understand: that takes a later release")]
    NotUnderstood(String),
}

impl DocumentError {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self::Malformed(detail.into())
    }
}

impl From<serde_json::Error> for DocumentError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Reads a document of which a reader of this release understands the critical members `understood`.
pub(crate) fn read<D: DeserializeOwned>(payload: &[u8], understood: &[&str]) -> Result<D, DocumentError> {
    // Only where the word is at all: nothing is read twice for it.
    if payload.windows(CRITICAL.len()).any(|window| window == CRITICAL) {
        let Critical { crit } = serde_json::from_slice(payload)?;
        if let Some(unknown) = crit.into_iter().find(|name| !understood.contains(&name.as_str())) {
            return Err(DocumentError::NotUnderstood(unknown.chars().take(MAX_MEMBER).collect()));
        }
    }
    Ok(serde_json::from_slice(payload)?)
}

/// The critical members of a document.
#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    crit: Vec<String>,
}

const CRITICAL: &[u8] = br#""crit""#;

/// Characters of a member's name that an error shows.
const MAX_MEMBER: usize = 64;

/// The statement of certman about one certificate; part of every bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BundleInfo {
    /// The site that the certificate is for.
    pub site: DnsName,
    /// The names in the certificate.
    pub names: NameSet,
    /// Counts up from 1 with each certificate of the site; also the key version in the envelope.
    pub version: u64,
    /// The pools that may serve it, sorted.
    pub pools: Vec<PoolName>,
    /// SHA-256 of the chain as the bundle carries it.
    pub chain: Digest,
    /// SHA-256 of the envelope's header.
    pub envelope: Digest,
    /// Start of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
    /// The issuing CA's name, as the certificate states it.
    pub authority: String,
}

impl Document for BundleInfo {
    const LABEL: &'static str = "certseal bundle v1";
}

/// An answer to a CA that validates a name: by http-01 (RFC 8555, 8.3) or by tls-alpn-01 (RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Challenge {
    /// The name under validation.
    pub host: DnsName,
    /// The CA's token, base64url.
    pub token: String,
    /// The answer to give: token, a dot, and the account key's thumbprint.
    pub key_authorization: String,
    /// When the answer stops being one.
    pub expires_at: Timestamp,
    /// The one way in which it may be given.
    #[serde(default, skip_serializing_if = "ChallengeMethod::is_usual")]
    pub method: ChallengeMethod,
}

impl Challenge {
    /// What stands in the place of the token where certstore keeps a challenge for tls-alpn-01: who is asked to validate over
    /// TLS learns the host and no token. No challenge for http-01 stands there.
    pub const TLS_ALPN: &'static str = "tls-alpn-01";

    /// Whether `token` has the form of RFC 8555, 8.1: base64url, here of 1 to 128 characters.
    pub fn is_token(token: &str) -> bool {
        (1..=128).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }

    /// The token of a probe: certman fetches it over the addresses of a name before a CA is asked for anything. An edge answers it
    /// for every host as if it were a challenge of that account, if the account is one of the platform's. A CA's tokens do not
    /// begin like this (RFC 8555, 8.1: they are random), so that nothing is validated by the answer.
    pub fn probe(nonce: u128, thumbprint: &str) -> String {
        format!("{PROBE}{nonce:032x}-{thumbprint}")
    }

    /// The account thumbprint in the token of a probe.
    pub fn probed(token: &str) -> Option<&str> {
        let (nonce, rest) = token.strip_prefix(PROBE)?.split_at_checked(32)?;
        let thumbprint = rest.strip_prefix('-').filter(|thumbprint| !thumbprint.is_empty());
        thumbprint.filter(|_| nonce.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// The account thumbprint in the key authorization, if that begins with the token.
    pub fn thumbprint(&self) -> Option<&str> {
        self.key_authorization.strip_prefix(self.token.as_str())?.strip_prefix('.')
    }
}

/// How an edge answers a challenge. A name that this release does not know is refused, never taken for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChallengeMethod {
    /// With the key authorization, in the clear (RFC 8555, 8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http,
    /// With a certificate that has the key authorization's digest in it (RFC 8737, 3).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl ChallengeMethod {
    /// What names a challenge for a host at certstore: its token, or [`Challenge::TLS_ALPN`], which a host has once.
    pub fn place(self, token: &str) -> &str {
        match self {
            Self::Http => token,
            Self::TlsAlpn => Challenge::TLS_ALPN,
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::Http
    }
}

impl Document for Challenge {
    const LABEL: &'static str = "certseal challenge v1";
}

/// The beginning of a probe's token.
const PROBE: &str = "certseal-probe-";

/// The thumbprints (RFC 7638) of the platform's own ACME accounts: edges answer challenges for no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcmeAccounts {
    /// Counts up from 1 with each change.
    pub version: u64,
    /// base64url SHA-256 thumbprints of account keys.
    pub thumbprints: Vec<String>,
}

impl Document for AcmeAccounts {
    const LABEL: &'static str = "certseal acme accounts v1";
}

/// The changes that certman stored lately for one pool: an edge that has less is kept from news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// The pool.
    pub pool: PoolName,
    /// Counts up from 1 with each checkpoint of the pool.
    pub version: u64,
    /// When it was made, by certman's clock.
    pub issued_at: Timestamp,
    /// Nothing that was stored for the pool between this instant and `issued_at` is left out of `changes`.
    pub complete_since: Timestamp,
    /// The newest version of each record that changed, and of the key ring that certman goes by.
    pub changes: Vec<Change>,
}

impl Checkpoint {
    /// The most octets of `changes` as JSON: signed and in base64, a checkpoint then fits into 128 KiB. That is enough
    /// for some 1,300 changes under names of usual length.
    pub const MAX_CHANGES_OCTETS: usize = 90 * 1024;
}

impl Document for Checkpoint {
    const LABEL: &'static str = "certseal checkpoint v1";
}

/// One record that certstore acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// The kind of record that changed.
    pub kind: Kind,
    /// The site; empty for the ring. As in [`crate::Event`].
    pub name: String,
    /// The version that was stored.
    pub version: u64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} version {}", self.kind, self.name, self.version)
    }
}

/// All unseal keys by their public halves, and the issuers whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRing {
    /// Counts up from 1 with each change.
    pub version: u64,
    /// The unseal keys of every pool and epoch.
    pub keys: Vec<UnsealEntry>,
    /// The signing keys of certman.
    pub issuers: Vec<IssuerEntry>,
    /// A document of an issuer that is listed no more counts as if it had never been, but for this: up to this version
    /// it goes on keeping out older ones. 0 when nothing of it counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version_floor: u64,
}

impl KeyRing {
    /// The key of `pool` that new envelopes are sealed to.
    pub fn active(&self, pool: &PoolName) -> Option<&UnsealEntry> {
        self.keys.iter().find(|entry| entry.pool == *pool && entry.state == KeyState::Active)
    }

    /// Whether this is the signing key of a certman that counts.
    pub fn lists_issuer(&self, id: SignerId) -> bool {
        self.issuers.iter().any(|entry| entry.id == id)
    }

    /// The versions that a record of `version` keeps out: everything up to this version. A record of a signer who is no
    /// issuer any more keeps out no more than [`KeyRing::version_floor`].
    pub fn standing(&self, signer: SignerId, version: u64) -> u64 {
        if self.lists_issuer(signer) { version } else { version.min(self.version_floor) }
    }
}

impl Document for KeyRing {
    const LABEL: &'static str = "certseal key ring v1";
}

/// Whether a field is left out, so that the octets of rings that do not have it stay what they were.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The public half of one unseal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnsealEntry {
    /// The pool whose edges hold the private half.
    pub pool: PoolName,
    /// The key's generation within the pool.
    pub epoch: Epoch,
    /// Where the key is in its life.
    pub state: KeyState,
    /// The id of the suite, as in envelopes.
    pub suite: u16,
    /// The key's id.
    pub key_id: KeyId,
    /// The public half, as HPKE serializes it (RFC 9180, 7.1.1).
    pub public_key: Base64,
}

/// Where an unseal key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyState {
    /// Known, not yet sealed to.
    Pending,
    /// The key that new envelopes are sealed to: one for each pool.
    Active,
    /// Still opens envelopes; nothing new is sealed to it.
    Retiring,
    /// Gone.
    Retired,
}

impl KeyState {
    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One signing key of certman.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuerEntry {
    /// The key's id.
    pub id: SignerId,
    /// The Ed25519 public key, 32 octets.
    pub public_key: Base64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_read_only_after_its_own_token() {
        let challenge = |key_authorization: &str| Challenge {
            host: "a.example".parse().unwrap(),
            token: "tok".into(),
            key_authorization: key_authorization.into(),
            expires_at: Timestamp::UNIX_EPOCH,
            method: ChallengeMethod::default(),
        };
        assert_eq!(challenge("tok.print").thumbprint(), Some("print"));
        assert_eq!(challenge("other.print").thumbprint(), None);
        assert_eq!(challenge("token.print").thumbprint(), None);
    }

    #[test]
    fn a_probe_is_a_token_that_names_an_account_and_no_other_token_is_one() {
        let thumbprint = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";
        let token = Challenge::probe(7, thumbprint);
        assert!(Challenge::is_token(&token), "{token}");
        assert_eq!(Challenge::probed(&token), Some(thumbprint));
        for other in [
            "DGyRejmCefe7v4NfDGDKfA",
            "certseal-probe-",
            "certseal-probe-0123",
            &format!("certseal-probe-{:032x}-", 7),
            &format!("certseal-probe-{:032x}{thumbprint}", 7),
            &format!("certseal-probe-{}-{thumbprint}", "z".repeat(32)),
            &format!("x{token}"),
        ] {
            assert_eq!(Challenge::probed(other), None, "{other}");
        }
    }

    #[test]
    fn a_challenge_for_http_01_keeps_its_bytes_and_an_unknown_method_is_refused() {
        let http =
            r#"{"host":"a.example","token":"tok","key_authorization":"tok.print","expires_at":"2026-11-01T00:00:00Z"}"#;
        let read = Challenge::read(http.as_bytes()).unwrap();
        assert_eq!(read.method, ChallengeMethod::Http);
        assert_eq!(serde_json::to_string(&read).unwrap(), http);

        let by = |method: &str| http.replace('}', &format!(r#","method":"{method}"}}"#));
        let read = Challenge::read(by("tls-alpn-01").as_bytes()).unwrap();
        assert_eq!(read.method, ChallengeMethod::TlsAlpn);
        assert_eq!(serde_json::to_string(&read).unwrap(), by("tls-alpn-01"));
        assert!(Challenge::read(by("dns-account-01").as_bytes()).is_err());
    }

    #[test]
    fn members_of_a_later_release_are_ignored_unless_they_are_critical() {
        let read = |text: &str| AcmeAccounts::read(text.as_bytes());
        assert!(read(r#"{"version":1,"thumbprints":[],"more":1}"#).is_ok());
        let critical = read(r#"{"version":1,"thumbprints":[],"more":1,"crit":["more"]}"#);
        assert_eq!(critical, Err(DocumentError::NotUnderstood("more".into())));
    }
}
