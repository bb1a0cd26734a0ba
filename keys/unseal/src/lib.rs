//! Opening of envelopes: the only crate of certseal that can. certstore and certman do not contain it, and the build
//! fails when they do.
//!
//! ```
//! use certseal_seal::{KeyKind, SealRequest, SigningKey, Suite, TlsPrivateKey, seal};
//! use certseal_unseal::{UnsealKey, UnsealKeys};
//! use certseal_wire::{Digest, Epoch, NameSet};
//!
//! let unseal_key = UnsealKey::generate("eu".parse()?, Epoch(1), Suite::P256)?;
//! let names = NameSet::try_from(vec!["shop.example.com".parse()?])?;
//! let envelope = seal(
//!     &SealRequest {
//!         suite: Suite::P256,
//!         names: &names,
//!         spki: Digest([7; 32]),
//!         key_version: 1,
//!         recipients: &[unseal_key.recipient()],
//!     },
//!     &TlsPrivateKey::new(KeyKind::EcdsaP256, b"PKCS#8".to_vec()),
//!     &SigningKey::generate()?,
//! )?;
//!
//! let key = UnsealKeys::from_iter([unseal_key]).open(&envelope)?;
//! assert_eq!(key.expose_pkcs8(), b"PKCS#8");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agreement;
mod hpke;
mod legacy;
mod open;
#[cfg(feature = "pkcs11")]
pub mod token;
mod unseal_key;

#[cfg(feature = "p256")]
pub use agreement::PureP256;
pub use agreement::{Agreement, AgreementFailed, AwsLc};
pub use hpke::{decap, open_message};
pub use legacy::{LegacyKeyError, LegacyUnsealKey};
pub use open::{OpenError, UnsealKeys};
pub use unseal_key::{KeyFileError, UnsealKey};
