//! A TLS signing key that stays sealed until something has to be signed.

use std::sync::{Arc, OnceLock};

use certseal_seal::{Bundle, KeyKind, Sealed};
use certseal_unseal::UnsealKeys;
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::aws_lc_rs::sign::{any_ecdsa_type, any_supported_type},
    sign::{Signer, SigningKey},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use x509_parser::{
    oid_registry,
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use crate::counts::Counters;

/// The signing key of one site's certificate.
///
/// What a handshake has to know before it signs comes from the certificate. The envelope is opened by the first
/// signature, at most once, whether that succeeds or not.
pub(crate) struct SealedKey(Arc<Inner>);

struct Inner {
    site: String,
    sealed: Sealed,
    leaf: LeafKey,
    keys: Arc<UnsealKeys>,
    counters: Arc<Counters>,
    /// The opened key; none when it could not be opened, which the log says once.
    opened: OnceLock<Option<Arc<dyn SigningKey>>>,
}

/// The public key of a leaf certificate.
pub(crate) struct LeafKey {
    kind: KeyKind,
    spki: Vec<u8>,
}

impl LeafKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1); none unless it is of a kind that certseal seals.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let algorithm = &parsed.algorithm;
        let kind = if algorithm.algorithm == oid_registry::OID_PKCS1_RSAENCRYPTION {
            KeyKind::Rsa
        } else if algorithm.algorithm == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY
            && algorithm.parameters.as_ref()?.as_oid().ok()? == oid_registry::OID_EC_P256
        {
            KeyKind::EcdsaP256
        } else {
            return None;
        };
        Some(Self { kind, spki: spki.to_vec() })
    }

    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::EcdsaP256 => SignatureAlgorithm::ECDSA,
            KeyKind::Rsa => SignatureAlgorithm::RSA,
        }
    }

    /// What the key can sign, the preferred first.
    fn schemes(&self) -> &'static [SignatureScheme] {
        match self.kind {
            KeyKind::EcdsaP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            KeyKind::Rsa => &RSA_SCHEMES,
        }
    }
}

impl SealedKey {
    pub(crate) fn new(
        site: &str,
        sealed: Sealed,
        leaf: LeafKey,
        keys: Arc<UnsealKeys>,
        counters: Arc<Counters>,
    ) -> Self {
        Self(Arc::new(Inner { site: site.to_owned(), sealed, leaf, keys, counters, opened: OnceLock::new() }))
    }
}

impl SigningKey for SealedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.0.leaf.schemes().iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(SealedSigner { key: self.0.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.leaf.spki.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.leaf.algorithm()
    }
}

impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
struct SealedSigner {
    key: Arc<Inner>,
    scheme: SignatureScheme,
}

impl Signer for SealedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = || Error::General("the key of this site cannot be used".to_owned());
        let key = self.key.opened().ok_or_else(failed)?;
        key.choose_scheme(&[self.scheme]).ok_or_else(failed)?.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl Inner {
    fn opened(&self) -> Option<&Arc<dyn SigningKey>> {
        let open = || match self.open() {
            Ok(key) => {
                Counters::add(&self.counters.unsealed);
                Some(key)
            }
            Err(reason) => {
                Counters::add(&self.counters.unseal_failures);
                tracing::error!(site = self.site, reason, "cannot use a sealed key");
                None
            }
        };
        self.opened.get_or_init(open).as_ref()
    }

    fn open(&self) -> Result<Arc<dyn SigningKey>, String> {
        open(&self.keys, &self.sealed, &self.leaf)
    }
}

/// The key of a bundle, if it opens and is the certificate's. The error names nothing secret.
pub(crate) fn usable_key(keys: &UnsealKeys, bundle: &Bundle) -> Result<Arc<dyn SigningKey>, String> {
    let leaf = bundle.chain().first().and_then(|leaf| Some(X509Certificate::from_der(leaf).ok()?.1));
    let leaf = leaf.and_then(|leaf| LeafKey::from_spki(leaf.public_key().raw));
    let leaf = leaf.ok_or("expected a certificate with an ECDSA P-256 or RSA key, got another")?;
    open(keys, bundle.sealed(), &leaf)
}

/// Opens the key and reads it with the one parser for its kind.
fn open(keys: &UnsealKeys, sealed: &Sealed, leaf: &LeafKey) -> Result<Arc<dyn SigningKey>, String> {
    let private = keys.open_sealed(sealed).map_err(|error| error.to_string())?;
    if private.kind() != leaf.kind {
        return Err("the sealed key is of another kind than the certificate's".to_owned());
    }
    // Borrowed, so that no copy outlives `private`, which is wiped.
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private.expose_pkcs8()));
    let parsed = match private.kind() {
        KeyKind::EcdsaP256 => any_ecdsa_type(&der),
        // Tries RSA first; what is no RSA key does not pass the check below.
        KeyKind::Rsa => any_supported_type(&der),
    };
    let key = parsed.map_err(|_| "what was sealed is no private key".to_owned())?;
    let is_the_leafs = key.public_key().is_some_and(|spki| *spki == *leaf.spki);
    is_the_leafs.then_some(key).ok_or_else(|| "the sealed key is not the certificate's".to_owned())
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedKey").field("site", &self.site).finish_non_exhaustive()
    }
}

/// In the order in which rustls prefers them for a key that is not sealed.
const RSA_SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];
