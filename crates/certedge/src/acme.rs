//! The edge's part in issuance: answers to CAs that validate names.

pub(crate) mod challenges;
