//! Ed25519 signatures (RFC 8032) of certman (the issuer) and of the security team.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use certseal_wire::{Base64, Document, DocumentError, Signed, SignerId};
use zeroize::Zeroizing;

use crate::sha256;

/// Why a signed document does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signer is none of those trusted for this.
    #[error("signed by key {0}, which is none of the trusted ones: check which issuer the key ring lists")]
    UnknownSigner(SignerId),
    /// The signature does not fit the bytes.
    #[error("the {0} is not what was signed: it was altered, or another kind of document was put in its place")]
    Altered(&'static str),
    /// The signer signed something that is no such document.
    #[error("the signed {label} cannot be read: {error}")]
    Unreadable {
        /// The kind of document.
        label: &'static str,
        /// Why not.
        error: DocumentError,
    },
    /// The key itself is not one.
    #[error("expected an Ed25519 key in PEM: PKCS#8 \"PRIVATE KEY\", or \"PUBLIC KEY\"")]
    BadKey,
}

/// An Ed25519 private key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, SignatureError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| SignatureError::BadKey)
    }

    /// Reads a key from the text of its file: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it too.
    ///
    /// # Errors
    /// [`SignatureError::BadKey`] when it is something else.
    pub fn from_pem(text: &str) -> Result<Self, SignatureError> {
        let (tag, der) = certseal_guarded::pem::decode(text.as_bytes()).ok_or(SignatureError::BadKey)?;
        if tag != PRIVATE_TAG {
            return Err(SignatureError::BadKey);
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self).map_err(|_| SignatureError::BadKey)
    }

    /// The key as the text of its file.
    ///
    /// # Errors
    /// [`SignatureError::BadKey`] when the key cannot be encoded, which no Ed25519 key is known for.
    pub fn expose_pem(&self) -> Result<Zeroizing<String>, SignatureError> {
        let der = self.0.to_pkcs8v1().map_err(|_| SignatureError::BadKey)?;
        Ok(certseal_guarded::pem::encode_crlf(PRIVATE_TAG, der.as_ref()))
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        // Ed25519 public keys have 32 octets (RFC 8032, 5.1.5).
        VerifyingKey(self.0.public_key().as_ref().try_into().expect("32 octets"))
    }

    /// Signs a document: its JSON becomes the bytes that travel.
    pub fn sign<D: Document>(&self, document: &D) -> Signed {
        // Serialization fails for maps with other than text keys only; no document has one.
        let payload = serde_json::to_vec(document).expect("a document serializes");
        let signature = self.sign_bytes(D::LABEL, &payload);
        Signed { payload: Base64(payload), signer: self.verifying_key().id(), signature: Base64(signature.to_vec()) }
    }

    pub(crate) fn sign_bytes(&self, label: &str, bytes: &[u8]) -> [u8; 64] {
        // Ed25519 signatures have 64 octets (RFC 8032, 5.1.6).
        self.0.sign(&message(label, bytes)).as_ref().try_into().expect("64 octets")
    }
}

/// An Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// A key from its 32 octets.
    ///
    /// # Errors
    /// [`SignatureError::BadKey`] for another length. Whether it is a point shows when it is used.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignatureError> {
        bytes.try_into().map(Self).map_err(|_| SignatureError::BadKey)
    }

    /// Reads a key from the text of its file: SubjectPublicKeyInfo (RFC 8410, 4) in PEM.
    ///
    /// # Errors
    /// [`SignatureError::BadKey`] when it is something else.
    pub fn from_pem(text: &str) -> Result<Self, SignatureError> {
        let block = pem::parse(text).map_err(|_| SignatureError::BadKey)?;
        match block.contents().strip_prefix(SPKI_PREFIX) {
            Some(key) if block.tag() == PUBLIC_TAG => Self::from_bytes(key),
            _ => Err(SignatureError::BadKey),
        }
    }

    /// The key as the text of its file.
    pub fn to_pem(&self) -> String {
        pem::encode(&pem::Pem::new(PUBLIC_TAG, [SPKI_PREFIX, &self.0].concat()))
    }

    /// The 32 octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's id: the first 16 octets of its SHA-256.
    pub fn id(&self) -> SignerId {
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(&self.0).0[..16]);
        SignerId(id)
    }

    pub(crate) fn verify_bytes(
        &self,
        label: &'static str,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&message(label, bytes), signature)
            .map_err(|_| SignatureError::Altered(label))
    }
}

/// The keys whose signatures count for one purpose.
#[derive(Debug, Clone, Default)]
pub struct VerifyingKeys(Vec<VerifyingKey>);

impl VerifyingKeys {
    /// Whether no key counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document, if one of these keys signed it.
    ///
    /// # Errors
    /// [`SignatureError`] says why it does not count.
    pub fn verify<D: Document>(&self, signed: &Signed) -> Result<D, SignatureError> {
        let label = D::label(&signed.payload.0);
        self.verify_bytes(label, signed.signer, &signed.payload.0, &signed.signature.0)?;
        D::read(&signed.payload.0).map_err(|error| SignatureError::Unreadable { label, error })
    }

    pub(crate) fn verify_bytes(
        &self,
        label: &'static str,
        signer: SignerId,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let key = self.0.iter().find(|key| key.id() == signer).ok_or(SignatureError::UnknownSigner(signer))?;
        key.verify_bytes(label, bytes, signature)
    }
}

impl FromIterator<VerifyingKey> for VerifyingKeys {
    fn from_iter<I: IntoIterator<Item = VerifyingKey>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// The message that is signed: the label, a zero octet, the bytes. No label contains a zero octet, so no two labels can
/// be confused.
fn message(label: &str, bytes: &[u8]) -> Vec<u8> {
    [label.as_bytes(), &[0], bytes].concat()
}

const PRIVATE_TAG: &str = "PRIVATE KEY";
const PUBLIC_TAG: &str = "PUBLIC KEY";

/// The prefix of the 32 octets in a SubjectPublicKeyInfo of Ed25519 (RFC 8410, 10.1).
const SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(test)]
mod tests {
    use certseal_wire::{AcmeAccounts, Challenge};

    use super::*;

    #[test]
    fn a_document_counts_only_unaltered_from_a_trusted_signer_and_as_its_own_kind() {
        let key = SigningKey::generate().unwrap();
        let trusted = VerifyingKeys::from_iter([key.verifying_key()]);
        let accounts = AcmeAccounts { version: 1, thumbprints: vec!["print".into()] };
        let signed = key.sign(&accounts);
        assert_eq!(trusted.verify::<AcmeAccounts>(&signed), Ok(accounts));

        let mut altered = signed.clone();
        altered.payload.0[12] ^= 1;
        assert!(matches!(trusted.verify::<AcmeAccounts>(&altered), Err(SignatureError::Altered(_))));

        assert!(matches!(trusted.verify::<Challenge>(&signed), Err(SignatureError::Altered(_))));

        let other = SigningKey::generate().unwrap().sign(&AcmeAccounts { version: 1, thumbprints: vec![] });
        assert!(matches!(trusted.verify::<AcmeAccounts>(&other), Err(SignatureError::UnknownSigner(_))));
    }

    #[test]
    fn key_files_read_back() {
        let key = SigningKey::generate().unwrap();
        let private = key.expose_pem().unwrap();
        let public = key.verifying_key().to_pem();
        assert_eq!(SigningKey::from_pem(&private).unwrap().verifying_key(), key.verifying_key());
        assert_eq!(VerifyingKey::from_pem(&public).unwrap(), key.verifying_key());
        assert!(SigningKey::from_pem(&public).is_err() && VerifyingKey::from_pem(&private).is_err());
        assert!(SigningKey::from_pem("nonsense").is_err());
    }
}
