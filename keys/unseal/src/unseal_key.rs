//! The unseal key, and the file of one in software.

use certseal_seal::{Recipient, SealError, Secret, Suite, hpke::Kem, secret_pem};
use certseal_wire::{Epoch, KeyId, ParseError, PoolName};
use zeroize::Zeroizing;

use crate::{Agreement, AwsLc};

/// The private half of one pool's and epoch's unseal key.
pub struct UnsealKey {
    epoch: Epoch,
    recipient: Recipient,
    agreement: Box<dyn Agreement>,
    /// None for a key that this process cannot read.
    scalar: Option<Secret<32>>,
}

/// Why a file is not an unseal key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// No PEM, or of something else.
    #[error("expected one PEM block \"{TAG}\" as `certctl keys generate` writes it")]
    NotAnUnsealKey,
    /// A name that is none.
    #[error(transparent)]
    Pool(#[from] ParseError),
    /// A scalar that is not below the group's order.
    #[error("the private scalar is not a valid one: the file is damaged")]
    BadScalar,
    /// No randomness.
    #[error("the operating system gave no random octets")]
    Randomness,
}

impl UnsealKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(pool: PoolName, epoch: Epoch, suite: Suite) -> Result<Self, KeyFileError> {
        loop {
            let scalar = Secret::fill(|out| getrandom::fill(out)).map_err(|_| KeyFileError::Randomness)?;
            // A P-256 scalar is out of range once in 2^32 draws.
            match Self::new(pool.clone(), epoch, suite, scalar) {
                Err(KeyFileError::BadScalar) => continue,
                done => return done,
            }
        }
    }

    fn new(pool: PoolName, epoch: Epoch, suite: Suite, scalar: Secret<32>) -> Result<Self, KeyFileError> {
        let agreement = AwsLc::new(suite.kem(), &scalar).map_err(|_| KeyFileError::BadScalar)?;
        let key = Self::with_agreement(pool, epoch, Box::new(agreement)).map_err(|_| KeyFileError::BadScalar)?;
        Ok(Self { scalar: Some(scalar), ..key })
    }

    /// The key of `pool` and `epoch` whose private half is behind `agreement`, and cannot be read.
    ///
    /// # Errors
    /// [`SealError::BadPublicKey`] when its public half does not have the form of one.
    pub fn with_agreement(pool: PoolName, epoch: Epoch, agreement: Box<dyn Agreement>) -> Result<Self, SealError> {
        let suite = match agreement.kem() {
            Kem::P256 => Suite::P256,
            Kem::X25519 => Suite::X25519,
        };
        let recipient = Recipient::new(pool, epoch, suite, agreement.public_key().to_vec())?;
        Ok(Self { epoch, recipient, agreement, scalar: None })
    }

    /// Reads a key file.
    ///
    /// The PEM block holds: suite u16, epoch u32, length of the pool's name u8, the pool's name, the scalar in 32 octets.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong with it.
    pub fn from_pem(text: &str) -> Result<Self, KeyFileError> {
        let (tag, body) = secret_pem::decode(text.as_bytes()).ok_or(KeyFileError::NotAnUnsealKey)?;
        if tag != TAG {
            return Err(KeyFileError::NotAnUnsealKey);
        }
        let fields = || {
            let (suite, rest) = body.split_first_chunk::<2>()?;
            let (epoch, rest) = rest.split_first_chunk::<4>()?;
            let (len, rest) = rest.split_first()?;
            let (pool, scalar) = rest.split_at_checked(usize::from(*len))?;
            let suite = Suite::try_from(u16::from_be_bytes(*suite)).ok()?;
            let pool = std::str::from_utf8(pool).ok()?;
            let scalar = <&[u8; 32]>::try_from(scalar).ok()?;
            Some((suite, Epoch(u32::from_be_bytes(*epoch)), pool, scalar))
        };
        let (suite, epoch, pool, scalar) = fields().ok_or(KeyFileError::NotAnUnsealKey)?;
        Self::new(pool.parse()?, epoch, suite, Secret::copy_of(scalar))
    }

    /// The key as the text of its file. None for a key whose private half is not in this process.
    pub fn expose_pem(&self) -> Option<Zeroizing<String>> {
        let scalar = self.scalar.as_ref()?;
        let pool = self.pool().as_str().as_bytes();
        let mut body = Zeroizing::new(Vec::with_capacity(2 + 4 + 1 + pool.len() + 32));
        body.extend_from_slice(&(self.suite() as u16).to_be_bytes());
        body.extend_from_slice(&self.epoch.0.to_be_bytes());
        body.push(pool.len() as u8); // at most 32
        body.extend_from_slice(pool);
        body.extend_from_slice(scalar.expose());
        Some(secret_pem::encode_crlf(TAG, &body))
    }

    /// The recipient for this key.
    pub fn recipient(&self) -> Recipient {
        self.recipient.clone()
    }

    /// The pool whose edges hold the key.
    pub fn pool(&self) -> &PoolName {
        self.recipient.pool()
    }

    /// The key's generation.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key's suite.
    pub fn suite(&self) -> Suite {
        self.recipient.suite()
    }

    /// The key's id.
    pub fn key_id(&self) -> KeyId {
        self.recipient.key_id()
    }

    /// The public half as HPKE serializes it.
    pub fn public_key(&self) -> &[u8] {
        self.agreement.public_key()
    }

    pub(crate) fn agreement(&self) -> &dyn Agreement {
        &*self.agreement
    }
}

const TAG: &str = "CERTSEAL UNSEAL KEY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_reads_back() {
        for suite in [Suite::P256, Suite::X25519] {
            let key = UnsealKey::generate("eu".parse().unwrap(), Epoch(7), suite).unwrap();
            let again = UnsealKey::from_pem(&key.expose_pem().unwrap()).unwrap();
            assert_eq!(key.recipient(), again.recipient());
        }
    }

    #[test]
    fn other_files_are_refused() {
        let key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
        let text = key.expose_pem().unwrap();
        let renamed = text.replace("UNSEAL KEY", "PRIVATE KEY");
        for bad in ["", "text", &renamed] {
            assert!(UnsealKey::from_pem(bad).is_err());
        }
        let body = |body: &[u8]| pem::encode(&pem::Pem::new(TAG, body));
        let head = [0, 1, 0, 0, 0, 1, 2, b'e', b'u'];
        assert!(UnsealKey::from_pem(&body(&[head.as_slice(), &[1; 31]].concat())).is_err());
        assert!(UnsealKey::from_pem(&body(&[head.as_slice(), &[1; 33]].concat())).is_err());
        assert!(matches!(
            UnsealKey::from_pem(&body(&[head.as_slice(), &[0xff; 32]].concat())),
            Err(KeyFileError::BadScalar)
        ));
        assert!(UnsealKey::from_pem(&body(&[head.as_slice(), &[1; 32]].concat())).is_ok());
    }
}
