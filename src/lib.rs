//! certseal: automatic HTTPS on every customer-owned domain of a platform, with private keys that stay sealed.
//!
//! ```text
//!   platform --sites--> certman --ACME--> CA
//!                          |
//!                          | sealed bundles, routes, challenges (signed)
//!                          v
//!                       certstore            keeps ciphertext, can open none of it
//!                          |
//!                          | feed (mTLS)
//!                          v
//!   browser --HTTPS--> certedge --HTTP--> the customer's site
//!                       opens a key only where a handshake is signed
//! ```
//!
//! This package is all of it on one machine, for a first look and for development: [`platform::start`] runs the real
//! daemons on loopback, with a private PKI of their own. In production each daemon runs by itself; see `README.md`.
//!
//! The parts: `certseal-wire` (vocabulary), `certseal-seal` (sealing), `certseal-unseal` (opening), `certseal-store`
//! (storage), `certseal-service` and `certseal-client` (daemons and their clients), `certseal-resolver` (sealed
//! certificates for any rustls server), and the daemons `certstore`, `certman`, `certedge` with their tool `certctl`.

pub mod customers_dns;
pub mod onboarding;
pub mod platform;
pub mod upstream;
pub mod verification;
