//! Types for what must not be seen: wiped when dropped, without Debug, Clone, Serialize or PartialEq.

use certseal_guarded::Locked;
use zeroize::Zeroizing;

/// `N` secret octets, at most 64. They stay at one place in locked memory, so that moving the value leaves no copy behind.
pub struct Secret<const N: usize>(Locked<N>);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes in place. It begins as zeros.
    ///
    /// # Errors
    /// The error of `fill`.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        Locked::fill(fill).map(Self)
    }

    /// A secret with a copy of `octets`, which stay with the caller to be wiped.
    pub fn copy_of(octets: &[u8; N]) -> Self {
        Self(Locked::copy_of(octets))
    }

    /// The octets. Do not copy them into anything that is not wiped.
    pub fn expose(&self) -> &[u8; N] {
        self.0.expose()
    }
}

/// The kinds of TLS private key. The number is the first octet of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256 = 1,
    /// RSA of 2048 to 4096 bits.
    Rsa = 2,
}

/// A TLS private key in the clear.
pub struct TlsPrivateKey {
    kind: KeyKind,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl TlsPrivateKey {
    /// A key of `kind`, as PKCS#8 DER (RFC 5958).
    pub fn new(kind: KeyKind, pkcs8: Vec<u8>) -> Self {
        Self { kind, pkcs8: Zeroizing::new(pkcs8) }
    }

    /// The kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key as PKCS#8 DER.
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The plaintext of a payload: the kind, then PKCS#8.
    pub fn expose_encoding(&self) -> Zeroizing<Vec<u8>> {
        // The full capacity at once: growing would leave an unwiped copy behind. The 16 octets are for the tag.
        let mut plain = Zeroizing::new(Vec::with_capacity(1 + self.pkcs8.len() + 16));
        plain.push(self.kind as u8);
        plain.extend_from_slice(&self.pkcs8);
        plain
    }

    /// Reads the plaintext of a payload. None for an unknown kind.
    pub fn from_encoding(plain: &[u8]) -> Option<Self> {
        let (kind, pkcs8) = plain.split_first()?;
        let kind = match kind {
            1 => KeyKind::EcdsaP256,
            2 => KeyKind::Rsa,
            _ => return None,
        };
        Some(Self::new(kind, pkcs8.to_vec()))
    }
}
