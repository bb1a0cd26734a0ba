//! The envelope's bytes. `docs/envelope.md` is the same as a page, with a worked example.
//!
//! Format 1 is an envelope with a content key of its own, format 2 one of a group that shares a content key.
//!
//! All integers are big-endian. There is exactly one encoding of an envelope: [`Envelope::to_bytes`] gives back octet
//! for octet what [`Envelope::parse`] accepts.

use certseal_wire::{Digest, EnvelopeId, Epoch, GroupId, KeyId, PoolName, SignerId};

use crate::{SignatureError, SigningKey, Suite, SuiteError, VerifyingKeys, hpke::TAG, reader::Reader, sha256};

/// The most octets an envelope may have.
pub const MAX_ENVELOPE: usize = 16 * 1024;

/// The most stanzas an envelope may have.
pub const MAX_STANZAS: usize = 16;

/// One sealed TLS private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub(crate) header: Header,
    pub(crate) commitment: [u8; 32],
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: [u8; 64],
    pub(crate) stanzas: Vec<Stanza>,
}

/// The header that an envelope is bound to. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The algorithms.
    pub suite: Suite,
    /// Random, unique.
    pub id: EnvelopeId,
    /// Digest of the certificate's names: [`crate::names_digest`].
    pub names: Digest,
    /// Digest of the certificate's public key: [`crate::spki_digest`].
    pub spki: Digest,
    /// The bundle version that the key belongs to.
    pub key_version: u64,
    /// Which issuer key signed the envelope.
    pub issuer: SignerId,
    /// The group whose content key it shares; none when it has one of its own.
    pub group: Option<GroupId>,
}

/// The content key, sealed to one unseal key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    /// The pool that can open it.
    pub pool: PoolName,
    /// The generation of that pool's key.
    pub epoch: Epoch,
    /// The key.
    pub key_id: KeyId,
    /// HPKE's encapsulated key.
    pub enc: Vec<u8>,
    /// The content key under HPKE: 32 octets and the tag.
    pub sealed_key: [u8; 32 + TAG],
}

/// Why bytes are not an envelope, or not a genuine one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// More octets than any envelope has.
    #[error("expected an envelope of at most {MAX_ENVELOPE} octets, got {0}")]
    TooLarge(usize),
    /// Something else, or cut short.
    #[error("expected {expected}: the envelope is damaged, cut short, or something else")]
    Malformed {
        /// The part that should have stood there.
        expected: &'static str,
    },
    /// Written by another version of the format.
    #[error("expected envelope format 1 or 2, got {0}: a newer certseal wrote it")]
    UnknownFormat(u8),
    /// An unknown suite.
    #[error(transparent)]
    UnknownSuite(#[from] SuiteError),
    /// The issuer's signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Header {
    /// Octets of an encoded header of an envelope in a group; without a group, 16 less.
    pub const MAX_LEN: usize = 4 + 1 + 2 + 16 + 32 + 32 + 8 + 16 + 16;

    /// The header's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::MAX_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.push(if self.group.is_some() { GROUPED } else { SINGLE });
        bytes.extend_from_slice(&(self.suite as u16).to_be_bytes());
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.names.0);
        bytes.extend_from_slice(&self.spki.0);
        bytes.extend_from_slice(&self.key_version.to_be_bytes());
        bytes.extend_from_slice(&self.issuer.0);
        if let Some(group) = self.group {
            bytes.extend_from_slice(&group.0);
        }
        bytes
    }

    /// SHA-256 of the header's bytes, to which the payload's keys are bound.
    pub fn hash(&self) -> Digest {
        sha256(&self.to_bytes())
    }

    /// The scope that the stanzas are bound to: the header, or the group, whose envelopes have the same stanzas.
    pub fn scope(&self) -> Digest {
        match self.group {
            None => self.hash(),
            Some(group) => group_scope(self.suite, group),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, EnvelopeError> {
        if reader.take(MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err(malformed("the magic octets CSEV"));
        }
        let is_grouped = match reader.u8().ok_or(CUT_SHORT)? {
            SINGLE => false,
            GROUPED => true,
            other => return Err(EnvelopeError::UnknownFormat(other)),
        };
        Ok(Self {
            suite: Suite::try_from(reader.u16().ok_or(CUT_SHORT)?)?,
            id: EnvelopeId(reader.array().ok_or(CUT_SHORT)?),
            names: Digest(reader.array().ok_or(CUT_SHORT)?),
            spki: Digest(reader.array().ok_or(CUT_SHORT)?),
            key_version: reader.u64().ok_or(CUT_SHORT)?,
            issuer: SignerId(reader.array().ok_or(CUT_SHORT)?),
            group: if is_grouped { Some(GroupId(reader.array().ok_or(CUT_SHORT)?)) } else { None },
        })
    }
}

/// The scope that the stanzas of a group's envelopes are bound to: SHA-256 over a label, the suite and the group's id.
pub(crate) fn group_scope(suite: Suite, group: GroupId) -> Digest {
    sha256(&[b"certseal group v1\0".as_slice(), &(suite as u16).to_be_bytes(), &group.0].concat())
}

impl Envelope {
    /// Reads an envelope. Whether it is genuine, [`Envelope::verify`] tells.
    ///
    /// # Errors
    /// [`EnvelopeError`] for anything but the one canonical encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLarge(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        let commitment = reader.array().ok_or(CUT_SHORT)?;
        let payload_len = usize::from(reader.u16().ok_or(CUT_SHORT)?);
        if payload_len <= TAG {
            return Err(malformed("a payload longer than its tag"));
        }
        let payload = reader.take(payload_len).ok_or(CUT_SHORT)?.to_vec();
        let signature = reader.array().ok_or(CUT_SHORT)?;
        let count = usize::from(reader.u8().ok_or(CUT_SHORT)?);
        if !(1..=MAX_STANZAS).contains(&count) {
            return Err(malformed("1 to 16 stanzas"));
        }
        let mut stanzas: Vec<Stanza> = Vec::with_capacity(count);
        for _ in 0..count {
            let stanza = Stanza::read(&mut reader, header.suite)?;
            if stanzas.last().is_some_and(|before| before.place() >= stanza.place()) {
                return Err(malformed("stanzas in ascending order of pool, epoch and key id, each once"));
            }
            stanzas.push(stanza);
        }
        if !reader.is_empty() {
            return Err(malformed("nothing after the last stanza"));
        }
        Ok(Self { header, commitment, payload, signature, stanzas })
    }

    /// The envelope's one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&self.header.to_bytes());
        bytes.extend_from_slice(&self.commitment);
        // Sealing and parsing keep payloads below 2^16 octets.
        bytes.extend_from_slice(&(self.payload.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes.extend_from_slice(&self.signature);
        bytes.push(self.stanzas.len() as u8); // at most 16
        for stanza in &self.stanzas {
            stanza.write(&mut bytes);
        }
        bytes
    }

    /// Whether an issuer that counts made header, commitment and payload.
    ///
    /// # Errors
    /// [`EnvelopeError::Signature`] when none did.
    pub fn verify(&self, issuers: &VerifyingKeys) -> Result<(), EnvelopeError> {
        let signed = signed_bytes(&self.header, &self.commitment, &self.payload);
        Ok(issuers.verify_bytes(LABEL, self.header.issuer, &signed, &self.signature)?)
    }

    /// The header that the envelope is bound to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The commitment to the payload's key.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// The sealed key: ciphertext and tag.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The stanzas, one for each key that can open the envelope.
    pub fn stanzas(&self) -> &[Stanza] {
        &self.stanzas
    }

    /// The stanza for an unseal key.
    pub fn stanza(&self, pool: &PoolName, epoch: Epoch) -> Option<&Stanza> {
        self.stanzas.iter().find(|stanza| stanza.pool == *pool && stanza.epoch == epoch)
    }

    /// Whether `other` is the same but for its stanzas.
    pub fn is_rewrap_of(&self, other: &Self) -> bool {
        self.header == other.header
            && self.commitment == other.commitment
            && self.payload == other.payload
            && self.signature == other.signature
    }

    /// The envelope with `stanza` in addition, or in place of the one for the same pool and epoch. Whether it opens is
    /// not known here.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when there are 16 already, or the stanza is not of the envelope's suite.
    pub fn with_stanza(mut self, stanza: Stanza) -> Result<Self, EnvelopeError> {
        if stanza.enc.len() != self.header.suite.kem().public_key_len() {
            return Err(malformed("a stanza of the envelope's suite"));
        }
        self.stanzas.retain(|other| other.pool != stanza.pool || other.epoch != stanza.epoch);
        self.stanzas.push(stanza);
        self.stanzas.sort_by(|a, b| a.place().cmp(&b.place()));
        if self.stanzas.len() > MAX_STANZAS {
            return Err(malformed("1 to 16 stanzas"));
        }
        Ok(self)
    }

    /// The envelope without the stanzas of `pool` that `leaves` names.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when none for that pool would be left: its edges could not open it any more.
    pub fn without_stanzas(mut self, pool: &PoolName, leaves: impl Fn(Epoch) -> bool) -> Result<Self, EnvelopeError> {
        let was_for_pool = self.stanzas.iter().any(|stanza| stanza.pool == *pool);
        self.stanzas.retain(|stanza| stanza.pool != *pool || !leaves(stanza.epoch));
        if was_for_pool && self.stanzas.iter().all(|stanza| stanza.pool != *pool) {
            return Err(malformed("a stanza of another epoch of the pool"));
        }
        Ok(self)
    }
}

pub(crate) fn sign(header: &Header, commitment: &[u8; 32], payload: &[u8], issuer: &SigningKey) -> [u8; 64] {
    issuer.sign_bytes(LABEL, &signed_bytes(header, commitment, payload))
}

fn signed_bytes(header: &Header, commitment: &[u8; 32], payload: &[u8]) -> Vec<u8> {
    [header.to_bytes().as_slice(), commitment, &sha256(payload).0].concat()
}

impl Stanza {
    pub(crate) fn place(&self) -> (&PoolName, Epoch, KeyId) {
        (&self.pool, self.epoch, self.key_id)
    }

    fn read(reader: &mut Reader<'_>, suite: Suite) -> Result<Self, EnvelopeError> {
        let pool_len = usize::from(reader.u8().ok_or(CUT_SHORT)?);
        let pool = reader.take(pool_len).ok_or(CUT_SHORT)?;
        let pool = std::str::from_utf8(pool).ok().and_then(|text| text.parse().ok());
        Ok(Self {
            pool: pool.ok_or(malformed("a pool name"))?,
            epoch: Epoch(reader.u32().ok_or(CUT_SHORT)?),
            key_id: KeyId(reader.array().ok_or(CUT_SHORT)?),
            enc: reader.take(suite.kem().public_key_len()).ok_or(CUT_SHORT)?.to_vec(),
            sealed_key: reader.array().ok_or(CUT_SHORT)?,
        })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.pool.as_str().len() as u8); // at most 32
        bytes.extend_from_slice(self.pool.as_str().as_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.key_id.0);
        bytes.extend_from_slice(&self.enc);
        bytes.extend_from_slice(&self.sealed_key);
    }
}

const MAGIC: &[u8; 4] = b"CSEV";
const SINGLE: u8 = 1;
const GROUPED: u8 = 2;
const LABEL: &str = "certseal envelope v1";
const CUT_SHORT: EnvelopeError = malformed("more octets");

const fn malformed(expected: &'static str) -> EnvelopeError {
    EnvelopeError::Malformed { expected }
}
