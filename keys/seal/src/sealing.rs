//! Making envelopes.

use certseal_wire::{Digest, EnvelopeId, Epoch, KeyId, NameSet, PoolName};

use crate::{
    Envelope, Header, MAX_STANZAS, PayloadKeys, Secret, SigningKey, Stanza, Suite, TlsPrivateKey, envelope,
    hpke::KeySchedule, names_digest, stanza_info,
};

/// An unseal key to seal to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pool: PoolName,
    epoch: Epoch,
    suite: Suite,
    key_id: KeyId,
    public_key: Vec<u8>,
}

impl Recipient {
    /// The unseal key of `pool` and `epoch` with the public half `public_key`, as HPKE serializes it.
    ///
    /// # Errors
    /// [`SealError::BadPublicKey`] when it does not have the suite's length or form. Whether the point is on the curve
    /// shows when it is sealed to.
    pub fn new(pool: PoolName, epoch: Epoch, suite: Suite, public_key: Vec<u8>) -> Result<Self, SealError> {
        let uncompressed = suite != Suite::P256 || public_key.first() == Some(&4);
        if public_key.len() != suite.kem().public_key_len() || !uncompressed {
            return Err(SealError::BadPublicKey { pool, epoch });
        }
        let key_id = suite.key_id(&public_key);
        Ok(Self { pool, epoch, suite, key_id, public_key })
    }

    /// The key's id.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The pool that holds the private half.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The key's suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }
}

/// What to bind a sealed key to, and who may open it.
#[derive(Debug)]
pub struct SealRequest<'a> {
    /// The algorithms; every recipient's key must be of this suite.
    pub suite: Suite,
    /// The certificate's names.
    pub names: &'a NameSet,
    /// Digest of the certificate's public key.
    pub spki: Digest,
    /// The bundle version that the key belongs to.
    pub key_version: u64,
    /// 1 to 16 unseal keys, no pool and epoch twice.
    pub recipients: &'a [Recipient],
}

/// Why a key was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No recipient, too many, or one twice.
    #[error("expected 1 to {MAX_STANZAS} different unseal keys to seal to, got {0}")]
    Recipients(usize),
    /// A recipient's key is of another suite.
    #[error("the unseal key of pool {pool} is of suite {found:?}, the envelope of suite {expected:?}")]
    Suite {
        /// The pool.
        pool: PoolName,
        /// The envelope's suite.
        expected: Suite,
        /// The key's suite.
        found: Suite,
    },
    /// A public key that is none.
    #[error("the public key of pool {pool}, epoch {epoch} is not a valid key of its suite: check the key ring")]
    BadPublicKey {
        /// The pool.
        pool: PoolName,
        /// The epoch.
        epoch: Epoch,
    },
    /// A private key that is too long for an envelope.
    #[error("expected a TLS private key of at most {MAX_KEY} octets, got {0}")]
    KeyTooLong(usize),
    /// No randomness.
    #[error("the operating system gave no random octets")]
    Randomness,
}

/// Seals `key`: a fresh content key, one stanza for each recipient, and the issuer's signature.
///
/// # Errors
/// [`SealError`]; nothing of the key is left anywhere then.
pub fn seal(request: &SealRequest<'_>, key: &TlsPrivateKey, issuer: &SigningKey) -> Result<Envelope, SealError> {
    if key.expose_pkcs8().len() > MAX_KEY {
        return Err(SealError::KeyTooLong(key.expose_pkcs8().len()));
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| SealError::Randomness)?;
    let header = Header {
        suite: request.suite,
        id: EnvelopeId(id),
        names: names_digest(request.names),
        spki: request.spki,
        key_version: request.key_version,
        issuer: issuer.verifying_key().id(),
    };
    let content_key: Secret<32> = Secret::fill(|out| getrandom::fill(out)).map_err(|_| SealError::Randomness)?;
    let header_hash = header.hash();
    let stanzas = stanzas(request, &header_hash, &content_key)?;
    let keys = PayloadKeys::derive(&content_key, &header_hash);
    let payload = keys.seal(key);
    let signature = envelope::sign(&header, keys.commitment(), &payload, issuer);
    Ok(Envelope { header, commitment: *keys.commitment(), payload, signature, stanzas })
}

fn stanzas(request: &SealRequest<'_>, header: &Digest, content_key: &Secret<32>) -> Result<Vec<Stanza>, SealError> {
    let count = request.recipients.len();
    if !(1..=MAX_STANZAS).contains(&count) {
        return Err(SealError::Recipients(count));
    }
    let mut stanzas = request
        .recipients
        .iter()
        .map(|recipient| stanza(request.suite, recipient, header, content_key))
        .collect::<Result<Vec<_>, _>>()?;
    stanzas.sort_by(|a, b| a.place().cmp(&b.place()));
    if stanzas.windows(2).any(|pair| pair[0].pool == pair[1].pool && pair[0].epoch == pair[1].epoch) {
        return Err(SealError::Recipients(count));
    }
    Ok(stanzas)
}

fn stanza(suite: Suite, recipient: &Recipient, header: &Digest, content_key: &Secret<32>) -> Result<Stanza, SealError> {
    let Recipient { pool, epoch, key_id, public_key, .. } = recipient;
    if recipient.suite != suite {
        return Err(SealError::Suite { pool: pool.clone(), expected: suite, found: recipient.suite });
    }
    let bad_key = || SealError::BadPublicKey { pool: pool.clone(), epoch: *epoch };
    let (shared, enc) = suite.kem().encap(public_key).ok_or_else(bad_key)?;
    let info = stanza_info(header, pool, *epoch, key_id);
    let sealed = KeySchedule::base(suite.kem(), suite.aead(), &shared, &info).seal_once(content_key.expose());
    Ok(Stanza {
        pool: pool.clone(),
        epoch: *epoch,
        key_id: *key_id,
        enc,
        sealed_key: sealed.try_into().expect("a content key of 32 octets and a tag of 16"),
    })
}

/// The longest private key: RSA-4096 needs 2,400 octets.
const MAX_KEY: usize = 4096;
