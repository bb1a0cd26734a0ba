//! The hash chain of certstore's audit log.
//!
//! ```text
//! link(0) = 32 zero octets
//! link(n) = SHA-256("certseal audit v1" || link(n-1) || n as u64 big-endian || entry n)
//! ```

use certseal_wire::Digest;
use sha2::{Digest as _, Sha256};

/// The link of entry `number`, the first of which is 1, after the entry with the link `before`.
pub fn audit_link(before: &Digest, number: u64, entry: &[u8]) -> Digest {
    let hash = Sha256::new().chain_update(LABEL).chain_update(before.0).chain_update(number.to_be_bytes());
    Digest(hash.chain_update(entry).finalize().into())
}

const LABEL: &[u8] = b"certseal audit v1";

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: hashlib.sha256(b"certseal audit v1" + bytes(32) + (1).to_bytes(8, "big") + b"a").
    #[test]
    fn a_link_is_the_digest_that_the_format_says() {
        let first = audit_link(&Digest([0; 32]), 1, b"a");
        assert_eq!(first.to_string(), "60463f04ca3911525b598125efe80c0072c605747eaa91e5a0588dd44cd0416f");
        assert_ne!(audit_link(&first, 2, b"b"), audit_link(&Digest([0; 32]), 2, b"b"));
    }
}
