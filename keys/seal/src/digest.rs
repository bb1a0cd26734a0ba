//! Digests of what envelopes are bound to.

use certseal_wire::{Digest, NameSet};
use sha2::{Digest as _, Sha256};

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// SHA-256 over a certificate's SubjectPublicKeyInfo (RFC 5280, 4.1), DER.
pub fn spki_digest(spki_der: &[u8]) -> Digest {
    sha256(spki_der)
}

/// SHA-256 over a label and the sorted names, each after its length in one octet.
pub fn names_digest(names: &NameSet) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"certseal names v1\0");
    for name in names.iter() {
        // A DnsName has at most 253 octets, so its length fits.
        hash.update([name.as_str().len() as u8]);
        hash.update(name.as_str());
    }
    Digest(hash.finalize().into())
}
