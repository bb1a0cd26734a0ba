//! TLS identities, and the caller behind a client certificate.

mod client;
mod files;
mod live;
mod revocation;

pub use client::{CERTMAN, CERTSTORE, Peer, web_client};
pub use files::{TlsFiles, caller, certificates, certified, own_name, provider};
pub use live::LiveTls;
