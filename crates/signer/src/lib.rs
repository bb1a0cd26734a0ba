//! Signatures for TLS handshakes from another process.
//!
//! ```text
//!   network-facing process                      signer
//!   SealedResolver                              LocalKeys: unseal keys
//!        |                                         |
//!   RemoteKeys --- sealed key, the message ------> Service --> opened keys, bounded and wiped
//!              <-- signature, or why not --------
//!                 Unix socket, both sides look at the other's user
//! ```
//!
//! The process that talks to the network holds no unseal key and no opened key: [`RemoteKeys`] is the
//! [`certseal_resolver::KeyHolder`] that it has in their place. The signer gives out signatures, key ids and public
//! reasons, and nothing else; and it signs nothing but what a TLS server signs ([`is_tls_input`]), so that whoever reaches
//! its socket cannot have certificate requests, tokens or ACME messages signed.
//!
//! One request, one response, on each of a few connections, in frames of at most [`MAX_FRAME`] octets. All of it blocks,
//! with time-outs: rustls asks for signatures in the middle of a handshake.

mod client;
mod frame;
mod opened;
mod peer;
mod protocol;
mod server;
mod service;
mod tls_input;

pub use client::{GiveWay, RemoteKeys};
pub use frame::MAX_FRAME;
pub use protocol::{FrameError, Request, Response};
pub use server::Server;
pub use service::Service;
pub use tls_input::is_tls_input;
