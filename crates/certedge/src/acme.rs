//! The edge's part in issuance: answers to CAs that validate names.

mod certificate;
pub(crate) mod challenges;
