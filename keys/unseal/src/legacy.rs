//! Opening of keys as platforms sealed them before certseal. Read-only: nothing here seals.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::{encoding::AsDer, rsa::PublicEncryptingKey};
use certseal_seal::{KeyKind, LegacySuite, Secret, TlsPrivateKey, hpke::Aead, secret_pem};
use certseal_wire::KeyId;
use zeroize::Zeroizing;

use crate::hpke::aead_open;

/// The private half of a key pair that legacy keys are sealed to.
pub struct LegacyUnsealKey {
    suite: LegacySuite,
    id: KeyId,
    public_key: Vec<u8>,
    private: Private,
}

enum Private {
    Rsa(Box<OaepPrivateDecryptingKey>),
    Secp256k1(Secret<32>),
}

/// Why a file is not a key pair of a legacy format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyKeyError {
    /// No RSA key.
    #[error(
        "expected a PEM block \"PRIVATE KEY\" (PKCS#8) or \"RSA PRIVATE KEY\" (PKCS#1) with an RSA key of 2048 to 8192 bits"
    )]
    NotRsa,
    /// No scalar.
    #[error("expected a secp256k1 private key as 64 hexadecimal digits, or as 32 octets")]
    NotSecp256k1,
}

impl LegacyUnsealKey {
    /// Reads the private half: for RSA a PEM file, for `ecies` the scalar as hexadecimal digits or as it is.
    ///
    /// # Errors
    /// [`LegacyKeyError`] says what was expected.
    pub fn from_file(suite: LegacySuite, contents: &[u8]) -> Result<Self, LegacyKeyError> {
        let (private, public_key) = match suite {
            LegacySuite::RsaOaepSha256 | LegacySuite::RsaOaepSha1 => rsa(contents).ok_or(LegacyKeyError::NotRsa)?,
            LegacySuite::EciesSecp256k1 => secp256k1(contents).ok_or(LegacyKeyError::NotSecp256k1)?,
        };
        Ok(Self { suite, id: suite.key_id(&public_key), public_key, private })
    }

    /// The suite that it opens.
    pub fn suite(&self) -> LegacySuite {
        self.suite
    }

    /// The key pair's id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The public half, in the form that [`LegacySuite::key_id`] names.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Opens what the platform wrote: PEM or DER of an ECDSA P-256 or RSA key. None without a reason.
    pub(crate) fn open(&self, blob: &[u8]) -> Option<TlsPrivateKey> {
        let plain = match &self.private {
            Private::Rsa(key) => open_rsa(key, self.suite, blob)?,
            Private::Secp256k1(scalar) => open_ecies(scalar, blob)?,
        };
        tls_private_key(&plain)
    }
}

fn open_rsa(key: &OaepPrivateDecryptingKey, suite: LegacySuite, blob: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (wrapped, rest) = blob.split_at_checked(key.key_size_bytes())?;
    let (nonce, ciphertext) = rest.split_first_chunk::<12>()?;
    let algorithm = match suite {
        LegacySuite::RsaOaepSha1 => &OAEP_SHA1_MGF1SHA1,
        _ => &OAEP_SHA256_MGF1SHA256,
    };
    let mut room = Zeroizing::new(vec![0; key.min_output_size()]);
    let aes_key: &[u8; 32] = (&*key.decrypt(algorithm, wrapped, &mut room, None).ok()?).try_into().ok()?;
    aead_open(Aead::Aes256Gcm, &Secret::copy_of(aes_key), nonce, b"", ciphertext)
}

fn open_ecies(scalar: &Secret<32>, blob: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    ecies::decrypt(scalar.expose(), blob).ok().map(Zeroizing::new)
}

/// Accepts what platforms keep: PKCS#8 or, by its kind of PEM, SEC 1 (RFC 5915) or PKCS#1 (RFC 8017).
fn tls_private_key(plain: &[u8]) -> Option<TlsPrivateKey> {
    let pkcs8 = match plain.first()? {
        b'-' => {
            let (tag, der) = secret_pem::decode(plain)?;
            match tag {
                "PRIVATE KEY" => der,
                "EC PRIVATE KEY" => wrap(P256_ALGORITHM, &der)?,
                "RSA PRIVATE KEY" => wrap(RSA_ALGORITHM, &der)?,
                _ => return None,
            }
        }
        _ => Zeroizing::new(plain.to_vec()),
    };
    let holds = |algorithm: &[u8]| pkcs8.windows(algorithm.len()).take(MAX_PREFIX).any(|found| found == algorithm);
    let kind = if holds(P256_ALGORITHM) {
        KeyKind::EcdsaP256
    } else if holds(RSA_ALGORITHM) {
        KeyKind::Rsa
    } else {
        return None;
    };
    let mut pkcs8 = pkcs8;
    Some(TlsPrivateKey::new(kind, std::mem::take(&mut *pkcs8)))
}

/// PKCS#8 (RFC 5958) around an older structure: `SEQUENCE { INTEGER 0, algorithm, OCTET STRING { key } }`.
fn wrap(algorithm: &[u8], key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const VERSION: &[u8] = &[0x02, 0x01, 0x00];
    let octets = Zeroizing::new([header(0x04, key.len())?.as_slice(), key].concat());
    let len = VERSION.len() + algorithm.len() + octets.len();
    Some(Zeroizing::new([header(0x30, len)?.as_slice(), VERSION, algorithm, &octets].concat()))
}

/// Tag and length in DER (X.690, 8.1.3).
fn header(tag: u8, len: usize) -> Option<Vec<u8>> {
    Some(match u16::try_from(len).ok()?.to_be_bytes() {
        [0, len @ 0..=127] => vec![tag, len],
        [0, len] => vec![tag, 0x81, len],
        [high, low] => vec![tag, 0x82, high, low],
    })
}

fn rsa(contents: &[u8]) -> Option<(Private, Vec<u8>)> {
    let (tag, der) = secret_pem::decode(contents)?;
    let der = match tag {
        "PRIVATE KEY" => der,
        "RSA PRIVATE KEY" => wrap(RSA_ALGORITHM, &der)?,
        _ => return None,
    };
    let key = PrivateDecryptingKey::from_pkcs8(&der).ok()?;
    let public: PublicEncryptingKey = key.public_key();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&public).ok()?.as_ref().to_vec();
    Some((Private::Rsa(Box::new(OaepPrivateDecryptingKey::new(key).ok()?)), spki))
}

fn secp256k1(contents: &[u8]) -> Option<(Private, Vec<u8>)> {
    let text = contents.trim_ascii();
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let scalar = match <&[u8; 32]>::try_from(contents) {
        Ok(raw) => Secret::copy_of(raw),
        Err(_) => Secret::fill(|out| decode_hex(text, out).ok_or(())).ok()?,
    };
    let secret = ecies::SecretKey::parse_slice(scalar.expose()).ok()?;
    let public = ecies::PublicKey::from_secret_key(&secret).serialize().to_vec();
    Some((Private::Secp256k1(scalar), public))
}

fn decode_hex(text: &[u8], out: &mut [u8; 32]) -> Option<()> {
    if text.len() != 64 {
        return None;
    }
    for (octet, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *octet = (digit(pair[0])? << 4 | digit(pair[1])?) as u8; // both below 16
    }
    Some(())
}

/// AlgorithmIdentifier of an EC key on P-256 (RFC 5480, 2.1.1).
const P256_ALGORITHM: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

/// AlgorithmIdentifier of an RSA key (RFC 8017, A.1).
const RSA_ALGORITHM: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The algorithm stands within the first octets of PKCS#8: behind tag, length and version.
const MAX_PREFIX: usize = 12;
