//! The ceremonies around the unseal keys: those of the security team, and those that a platform performs once.
//!
//! ```text
//! pki         the private CA, the identities and the signing keys; files only
//! keys        a pool's first unseal key, in the key ring that the security team signs
//! ring_client reads and changes the key ring in certstore, and remembers the newest one that was seen
//! rotation    a pool's next unseal key, by a plan that two people agree on
//! issuers     certman's next issuer key
//! import      sites that a platform has already, with keys as it sealed them
//! onboarding  new sites, in steps that stop on bad signs
//! migration   from those keys to keys of our own
//! export      everything handed back
//! ```
//!
//! This crate opens envelopes: it runs where the security team keeps unseal keys, and nowhere else.
//!
//! ```
//! use certseal_ceremonies::pki::{self, PkiOptions};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path().join("pki");
//! let options = PkiOptions { pools: vec!["eu".parse()?], ..PkiOptions::default() };
//! pki::init(&dir, &options)?;
//! let server = pki::tls_files(&dir, "certstore").server_config()?;
//! let client = pki::tls_files(&dir, "edge-eu").client_config(&[certseal_service::tls::CERTSTORE])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cores;
mod error;
pub mod export;
mod files;
pub mod import;
pub mod issuers;
pub mod keys;
pub mod legacy;
pub mod migration;
pub mod onboarding;
pub mod pki;
pub mod ring_client;
mod ring_memory;
pub mod rotation;
mod sealed_pages;
mod site_bundle;
mod tls_key;

pub use error::{
    Error, ExportError, FolderError, ImportError, IssuerError, KeyError, KeyRingError, LegacyError, MigrationError,
    OnboardingError, PkiError, RotationError,
};
pub use files::{FileError, MadeFile};
pub use sealed_pages::PagesError;
pub use site_bundle::SiteBundleError;
