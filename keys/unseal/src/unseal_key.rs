//! The unseal key in software, and its file.

use certseal_seal::{Recipient, Secret, Suite};
use certseal_wire::{Epoch, KeyId, ParseError, PoolName};
use zeroize::Zeroizing;

use crate::{Agreement, AwsLc};

/// The private half of one pool's and epoch's unseal key.
pub struct UnsealKey {
    pool: PoolName,
    epoch: Epoch,
    suite: Suite,
    key_id: KeyId,
    agreement: Box<dyn Agreement>,
    scalar: Secret<32>,
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
        let key_id = suite.key_id(agreement.public_key());
        Ok(Self { pool, epoch, suite, key_id, agreement: Box::new(agreement), scalar })
    }

    /// Reads a key file.
    ///
    /// The PEM block holds: suite u16, epoch u32, length of the pool's name u8, the pool's name, the scalar in 32 octets.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong with it.
    pub fn from_pem(text: &str) -> Result<Self, KeyFileError> {
        let block = pem::parse(text).map_err(|_| KeyFileError::NotAnUnsealKey)?;
        let tag_is_ours = block.tag() == TAG;
        let body = Zeroizing::new(block.into_contents());
        if !tag_is_ours {
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

    /// The key as the text of its file.
    pub fn expose_pem(&self) -> Zeroizing<String> {
        let pool = self.pool.as_str().as_bytes();
        let mut body = Zeroizing::new(Vec::with_capacity(2 + 4 + 1 + pool.len() + 32));
        body.extend_from_slice(&(self.suite as u16).to_be_bytes());
        body.extend_from_slice(&self.epoch.0.to_be_bytes());
        body.push(pool.len() as u8); // at most 32
        body.extend_from_slice(pool);
        body.extend_from_slice(self.scalar.expose());
        let block = pem::Pem::new(TAG, std::mem::take(&mut *body));
        let text = Zeroizing::new(pem::encode(&block));
        drop(Zeroizing::new(block.into_contents()));
        text
    }

    /// What to seal to for this key.
    pub fn recipient(&self) -> Recipient {
        Recipient::new(self.pool.clone(), self.epoch, self.suite, self.agreement.public_key().to_vec())
            .expect("the public half was computed from a valid private half")
    }

    /// The pool whose edges hold the key.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The key's generation.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key's suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key's id.
    pub fn key_id(&self) -> KeyId {
        self.key_id
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
            let again = UnsealKey::from_pem(&key.expose_pem()).unwrap();
            assert_eq!(key.recipient(), again.recipient());
        }
    }

    #[test]
    fn other_files_are_refused() {
        let key = UnsealKey::generate("eu".parse().unwrap(), Epoch(1), Suite::P256).unwrap();
        let text = key.expose_pem();
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
