//! The audit log's hash chain: each entry's link covers all entries before it.
//!
//! A reader who knows one link notices a change to any entry up to it. A cut at the end shows only against a link that
//! was kept elsewhere: that is what signed audit checkpoints are for.

use std::fmt;

use certseal_seal::audit_link;
use certseal_wire::Digest;

/// A place in the audit log: the number of an entry and the link of the chain there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditLink {
    /// The entry's number; the first is 1.
    pub number: u64,
    /// SHA-256 over this entry and the link before.
    pub hash: [u8; 32],
}

impl AuditLink {
    /// Before the first entry of a new log.
    pub const START: Self = Self { number: 0, hash: [0; 32] };

    /// The link of the entry after this one.
    pub fn next(&self, entry: &[u8]) -> Self {
        let number = self.number + 1;
        Self { number, hash: audit_link(&Digest(self.hash), number, entry).0 }
    }
}

impl fmt::Debug for AuditLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLink({}, ", self.number)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The first and the last link that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEnds {
    /// The link before the first entry that is kept.
    pub start: AuditLink,
    /// The link of the last entry.
    pub head: AuditLink,
}

/// One entry of the audit log.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the chain.
    pub link: AuditLink,
    /// The bytes its writer gave it.
    pub body: Vec<u8>,
}

impl fmt::Debug for AuditEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditEntry({:?}, {} bytes)", self.link, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: hashlib.sha256(b"certseal audit v1" + bytes(32) + (1).to_bytes(8, "big") + b"a").
    #[test]
    fn a_link_is_the_digest_that_the_format_says() {
        let first = AuditLink::START.next(b"a");
        assert_eq!(
            format!("{first:?}"),
            "AuditLink(1, 60463f04ca3911525b598125efe80c0072c605747eaa91e5a0588dd44cd0416f)"
        );
        assert_ne!(first.next(b"b").hash, AuditLink::START.next(b"b").hash);
    }
}
