//! Making envelopes.

use certseal_wire::{Digest, EnvelopeId, Epoch, GroupId, KeyId, NameSet, PoolName, SignerId};

use crate::{
    Envelope, EnvelopeError, Header, MAX_STANZAS, PayloadKeys, Secret, SigningKey, Stanza, Suite, TlsPrivateKey,
    envelope, hpke::KeySchedule, names_digest, stanza_info,
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

    /// The key's generation within the pool.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key's suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }
}

/// The certificate to bind a sealed key to, and the recipients that may open it.
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
    /// A group is asked to seal to others than those it began with.
    #[error("expected the recipients that the group was begun with, got others: begin another group")]
    OtherGroup,
}

/// Seals `key`: a fresh content key, one stanza for each recipient, and the issuer's signature.
///
/// # Errors
/// [`SealError`]; nothing of the key is left anywhere then.
pub fn seal(request: &SealRequest<'_>, key: &TlsPrivateKey, issuer: &SigningKey) -> Result<Envelope, SealError> {
    Ok(draft(request, key, issuer.verifying_key().id())?.sign(issuer))
}

/// Seals `key` for an issuer who signs later: somewhere else, where the key is not.
///
/// # Errors
/// As [`seal`].
pub fn draft(request: &SealRequest<'_>, key: &TlsPrivateKey, issuer: SignerId) -> Result<Draft, SealError> {
    let header = header(request, issuer, None)?;
    let content_key = random_key()?;
    let stanzas = stanzas(request.suite, request.recipients, &header.hash(), &content_key)?;
    Draft::new(header, key, &content_key, stanzas)
}

/// An envelope that its issuer has not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft(Envelope);

impl Draft {
    fn new(
        header: Header,
        key: &TlsPrivateKey,
        content_key: &Secret<32>,
        stanzas: Vec<Stanza>,
    ) -> Result<Self, SealError> {
        if key.expose_pkcs8().len() > MAX_KEY {
            return Err(SealError::KeyTooLong(key.expose_pkcs8().len()));
        }
        let keys = PayloadKeys::derive(content_key, &header.hash());
        let (commitment, payload) = (*keys.commitment(), keys.seal(key));
        Ok(Self(Envelope { header, commitment, payload, signature: UNSIGNED, stanzas }))
    }

    /// Reads a draft: an envelope with zeros for a signature.
    ///
    /// # Errors
    /// As [`Envelope::parse`], and when it is signed.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = Envelope::parse(bytes)?;
        if envelope.signature != UNSIGNED {
            return Err(EnvelopeError::Malformed { expected: "an envelope that is not signed yet" });
        }
        Ok(Self(envelope))
    }

    /// The draft's one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// The header that the envelope will be bound to.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The stanzas, one for each key that will be able to open the envelope.
    pub fn stanzas(&self) -> &[Stanza] {
        &self.0.stanzas
    }

    /// The envelope, signed. It counts only if `issuer` is the one that the header names.
    pub fn sign(self, issuer: &SigningKey) -> Envelope {
        let Self(mut envelope) = self;
        envelope.signature = envelope::sign(&envelope.header, &envelope.commitment, &envelope.payload, issuer);
        envelope
    }
}

/// A bounded group of envelopes that share one content key, and so one key agreement for each recipient.
///
/// A holder of the content key can open every envelope of the group, so the key lives no longer than it must: the
/// sealing side bounds the count and the age. Each envelope's payload has keys of its own, derived with its header.
pub struct Group {
    id: GroupId,
    suite: Suite,
    recipients: Vec<Recipient>,
    content_key: Secret<32>,
    stanzas: Vec<Stanza>,
    sealed: u32,
}

impl Group {
    /// A new group, with a fresh content key that is sealed once to each recipient.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn begin(suite: Suite, recipients: &[Recipient]) -> Result<Self, SealError> {
        let id = GroupId(random_id()?);
        let content_key = random_key()?;
        let stanzas = stanzas(suite, recipients, &envelope::group_scope(suite, id), &content_key)?;
        Ok(Self { id, suite, recipients: recipients.to_vec(), content_key, stanzas, sealed: 0 })
    }

    /// How many envelopes it has.
    pub fn sealed(&self) -> u32 {
        self.sealed
    }

    /// Whether it is for exactly these recipients.
    pub fn is_for(&self, suite: Suite, recipients: &[Recipient]) -> bool {
        self.suite == suite && self.recipients == recipients
    }

    /// Seals `key` as one more envelope of the group.
    ///
    /// # Errors
    /// [`SealError`], among others when the request is for other recipients.
    pub fn seal(
        &mut self,
        request: &SealRequest<'_>,
        key: &TlsPrivateKey,
        issuer: &SigningKey,
    ) -> Result<Envelope, SealError> {
        if !self.is_for(request.suite, request.recipients) {
            return Err(SealError::OtherGroup);
        }
        let header = header(request, issuer.verifying_key().id(), Some(self.id))?;
        let draft = Draft::new(header, key, &self.content_key, self.stanzas.clone())?;
        self.sealed += 1;
        Ok(draft.sign(issuer))
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

fn header(request: &SealRequest<'_>, issuer: SignerId, group: Option<GroupId>) -> Result<Header, SealError> {
    Ok(Header {
        suite: request.suite,
        id: EnvelopeId(random_id()?),
        names: names_digest(request.names),
        spki: request.spki,
        key_version: request.key_version,
        issuer,
        group,
    })
}

fn stanzas(
    suite: Suite,
    recipients: &[Recipient],
    scope: &Digest,
    content_key: &Secret<32>,
) -> Result<Vec<Stanza>, SealError> {
    let count = recipients.len();
    if !(1..=MAX_STANZAS).contains(&count) {
        return Err(SealError::Recipients(count));
    }
    let sealed = recipients.iter().map(|recipient| seal_stanza(suite, recipient, scope, content_key));
    let mut stanzas = sealed.collect::<Result<Vec<_>, _>>()?;
    stanzas.sort_by(|a, b| a.place().cmp(&b.place()));
    if stanzas.windows(2).any(|pair| pair[0].pool == pair[1].pool && pair[0].epoch == pair[1].epoch) {
        return Err(SealError::Recipients(count));
    }
    Ok(stanzas)
}

/// Seals a content key to one recipient: a stanza for envelopes of `suite` with [`Header::scope`] `scope`.
///
/// # Errors
/// [`SealError::Suite`] and [`SealError::BadPublicKey`].
pub fn seal_stanza(
    suite: Suite,
    recipient: &Recipient,
    scope: &Digest,
    content_key: &Secret<32>,
) -> Result<Stanza, SealError> {
    let Recipient { pool, epoch, key_id, public_key, .. } = recipient;
    if recipient.suite != suite {
        return Err(SealError::Suite { pool: pool.clone(), expected: suite, found: recipient.suite });
    }
    let bad_key = || SealError::BadPublicKey { pool: pool.clone(), epoch: *epoch };
    let (shared, enc) = suite.kem().encap(public_key).ok_or_else(bad_key)?;
    let info = stanza_info(scope, pool, *epoch, key_id);
    let sealed = KeySchedule::base(suite.kem(), suite.aead(), &shared, &info).seal_once(content_key.expose());
    Ok(Stanza {
        pool: pool.clone(),
        epoch: *epoch,
        key_id: *key_id,
        enc,
        sealed_key: sealed.try_into().expect("a content key of 32 octets and a tag of 16"),
    })
}

fn random_id() -> Result<[u8; 16], SealError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| SealError::Randomness)?;
    Ok(id)
}

fn random_key() -> Result<Secret<32>, SealError> {
    Secret::fill(|out| getrandom::fill(out)).map_err(|_| SealError::Randomness)
}

/// The octets in a draft that stand for the signature.
const UNSIGNED: [u8; 64] = [0; 64];

/// The longest private key: RSA-4096 needs 2,400 octets.
const MAX_KEY: usize = 4096;
