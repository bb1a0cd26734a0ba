//! Key agreement: the one operation that needs the unseal key's private half.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use certseal_seal::{Secret, hpke::Kem};

/// A private key that can do ECDH: in memory, or in a token.
pub trait Agreement: Send + Sync {
    /// Which KEM the key is for.
    fn kem(&self) -> Kem;

    /// The public half as HPKE serializes it (RFC 9180, 7.1.1).
    fn public_key(&self) -> &[u8];

    /// The raw ECDH output with `peer`: for P-256 the x-coordinate (RFC 9180, 4.1).
    ///
    /// # Errors
    /// [`AgreementFailed::Invalid`] when `peer` is not a valid public key, or the output would be all zeros (RFC 7748,
    /// 6.1); [`AgreementFailed::Unavailable`] when the key cannot be reached, whatever `peer` is.
    fn agree(&self, peer: &[u8]) -> Result<Secret<32>, AgreementFailed>;
}

/// A key agreement that gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementFailed {
    /// The peer's key or our own is none. It says no more, so that it tells an attacker nothing.
    #[error("the key agreement failed")]
    Invalid,
    /// The token that holds the key does not answer. The same call may succeed later.
    #[error("the token that holds the unseal key cannot be reached: {0}")]
    Unavailable(String),
}

/// Agreement by aws-lc, on either curve.
pub struct AwsLc {
    kem: Kem,
    key: PrivateKey,
    public_key: Vec<u8>,
}

impl AwsLc {
    /// The private key with the given scalar (RFC 9180, 7.1.2: SerializePrivateKey).
    ///
    /// # Errors
    /// When the scalar is zero or not below the group's order.
    pub fn new(kem: Kem, scalar: &Secret<32>) -> Result<Self, AgreementFailed> {
        let key =
            PrivateKey::from_private_key(algorithm(kem), scalar.expose()).map_err(|_| AgreementFailed::Invalid)?;
        let public_key = key.compute_public_key().map_err(|_| AgreementFailed::Invalid)?.as_ref().to_vec();
        Ok(Self { kem, key, public_key })
    }
}

impl Agreement for AwsLc {
    fn kem(&self) -> Kem {
        self.kem
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn agree(&self, peer: &[u8]) -> Result<Secret<32>, AgreementFailed> {
        if peer.len() != self.kem.public_key_len() {
            return Err(AgreementFailed::Invalid);
        }
        let peer = UnparsedPublicKey::new(algorithm(self.kem), peer);
        agreement::agree(&self.key, peer, AgreementFailed::Invalid, |dh| {
            dh.try_into().map(Secret::copy_of).map_err(|_| AgreementFailed::Invalid)
        })
    }
}

pub(crate) fn algorithm(kem: Kem) -> &'static agreement::Algorithm {
    match kem {
        Kem::P256 => &agreement::ECDH_P256,
        Kem::X25519 => &agreement::X25519,
    }
}

/// Agreement by the `p256` crate: pure Rust.
#[cfg(feature = "p256")]
pub struct PureP256 {
    key: p256::SecretKey,
    public_key: Vec<u8>,
}

#[cfg(feature = "p256")]
impl PureP256 {
    /// The private key with the given scalar.
    ///
    /// # Errors
    /// When the scalar is zero or not below the group's order.
    pub fn new(scalar: &Secret<32>) -> Result<Self, AgreementFailed> {
        use p256::elliptic_curve::sec1::ToSec1Point;
        let key = p256::SecretKey::from_slice(scalar.expose()).map_err(|_| AgreementFailed::Invalid)?;
        let public_key = key.public_key().to_sec1_point(false).as_bytes().to_vec();
        Ok(Self { key, public_key })
    }
}

#[cfg(feature = "p256")]
impl Agreement for PureP256 {
    fn kem(&self) -> Kem {
        Kem::P256
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn agree(&self, peer: &[u8]) -> Result<Secret<32>, AgreementFailed> {
        if peer.len() != Kem::P256.public_key_len() {
            return Err(AgreementFailed::Invalid);
        }
        let peer = p256::PublicKey::from_sec1_bytes(peer).map_err(|_| AgreementFailed::Invalid)?;
        let dh = p256::ecdh::diffie_hellman(self.key.to_nonzero_scalar(), peer.as_affine());
        Ok(Secret::copy_of(dh.raw_secret_bytes().as_ref()))
    }
}
