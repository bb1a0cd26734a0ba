//! Sealing of TLS private keys: everything that can be done with public keys alone.
//!
//! ```text
//!   TLS private key --AES-256-GCM--> payload        content key --HPKE--> one stanza for each pool
//!                        ^                               |
//!                        +---- HKDF(content key, header) +
//!
//!   envelope = header, commitment, payload, issuer signature, stanzas
//!   bundle   = signed BundleInfo, certificate chain, envelope (or a key as a platform sealed it before)
//! ```
//!
//! Envelopes that are sealed here are opened by `certseal-unseal`, and by nothing in this crate. No I/O, no clock, no
//! async.
//!
//! ```
//! use certseal_seal::{Recipient, SealRequest, SigningKey, Suite, TlsPrivateKey, KeyKind, seal};
//! use certseal_wire::{Digest, Epoch, NameSet};
//!
//! let issuer = SigningKey::generate()?;
//! # let public_key = hex("04 fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0");
//! # fn hex(text: &str) -> Vec<u8> {
//! #     let text: String = text.split_whitespace().collect();
//! #     (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
//! # }
//! let recipient = Recipient::new("eu".parse()?, Epoch(1), Suite::P256, public_key)?;
//! let names = NameSet::try_from(vec!["shop.example.com".parse()?])?;
//! let key = TlsPrivateKey::new(KeyKind::EcdsaP256, b"PKCS#8".to_vec());
//!
//! let envelope = seal(
//!     &SealRequest { suite: Suite::P256, names: &names, spki: Digest([7; 32]), key_version: 1, recipients: &[recipient] },
//!     &key,
//!     &issuer,
//! )?;
//! assert_eq!(envelope.header().key_version, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit_chain;
mod bundle;
mod digest;
mod envelope;
pub mod hpke;
mod keyring;
mod legacy;
mod payload;
mod reader;
mod sealed;
mod sealing;
mod secret;
mod signature;
mod suite;

pub use audit_chain::audit_link;
pub use bundle::{Bundle, BundleError};
pub use certseal_guarded::pem as secret_pem;
pub use digest::{names_digest, sha256, spki_digest};
pub use envelope::{Envelope, EnvelopeError, Header, MAX_ENVELOPE, MAX_STANZAS, Stanza};
pub use keyring::{
    RingChange, RingError, RingMark, accept_ring, entry_recipient, ring_changes, ring_issuers, ring_recipient,
};
pub use legacy::{LegacyKey, LegacySuite};
pub use payload::PayloadKeys;
pub use sealed::Sealed;
pub use sealing::{Draft, Group, Recipient, SealError, SealRequest, draft, seal, seal_stanza};
pub use secret::{KeyKind, Secret, TlsPrivateKey};
pub use signature::{SignatureError, SigningKey, VerifyingKey, VerifyingKeys};
pub use suite::{Suite, SuiteError, stanza_info};
