//! An edge's mirror of sealed bundles, and a rustls certificate resolver over it that any rustls server can embed.
//!
//! ```text
//!   certstore --feed--> Follower --verified--> Mirror (redb, on disk)
//!                                                |
//!   ClientHello --name--> SealedResolver --site--+--> chain from the cache, or verified and parsed
//!                                                          |
//!                            first signature --> envelope opened, once --> aws-lc key
//! ```
//!
//! The mirror is what an edge starts from: it opens in constant time and serves with certstore down. The follower keeps
//! it up to date. `examples/axum.rs` is a whole server.
//!
//! ```no_run
//! # fn example(
//! #     unseal_key: certseal_unseal::UnsealKey,
//! #     security: certseal_seal::VerifyingKey,
//! #     store: certseal_client::StoreClient,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, sync::Arc};
//!
//! use certseal_resolver::{Follower, Mirror, SealedResolver};
//! use certseal_unseal::UnsealKeys;
//!
//! let mirror = Arc::new(Mirror::open(Path::new("/var/lib/certedge"), unseal_key.pool().clone(), security)?);
//! let resolver = SealedResolver::new(mirror.clone(), UnsealKeys::from_iter([unseal_key]), 256 << 20)?;
//! tokio::spawn(Follower::new(mirror, store).run());
//! let tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
//! # Ok(())
//! # }
//! ```

#[cfg(test)]
extern crate self as certseal_resolver;

mod backoff;
mod cache;
mod counts;
mod drill;
mod error;
mod follower;
mod key_holder;
mod leaf_key;
mod mirror;
mod resolver;
mod sealed_key;

pub use counts::Counts;
pub use error::MirrorError;
pub use follower::{Follower, FollowerStatus};
pub use key_holder::{KeyHolder, LocalKeys, Unopened};
pub use leaf_key::LeafKey;
pub use mirror::{Applied, Mirror, Refused};
pub use resolver::SealedResolver;
