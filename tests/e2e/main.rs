//! End-to-end tests: the real daemons as processes, against real peers.
//!
//! `cargo build --workspace --bins` must come first, and `tests/tools.sh` brings Pebble; `test.sh` does both.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod accounts;
mod acme;
mod audit;
mod backup;
mod bad_input;
mod boundaries;
mod bulk;
mod canary;
mod compromised;
mod demo;
mod edge;
mod fault_proxy;
mod guards;
mod hostile_store;
mod https;
mod identities;
mod interop;
mod issuance_scale;
mod issuers;
mod key_types;
mod lifetime;
mod migration;
mod name_lab;
mod on_demand;
mod onboarding;
mod openapi;
mod pebble;
mod persist;
mod planned;
mod platform;
#[path = "../../crates/store/tests/support/postgres.rs"]
mod postgres;
mod preflight;
mod press;
mod process;
mod readme;
mod releases;
mod rotation;
mod rotation_scale;
mod several_cas;
mod shared_database;
mod signer;
mod stapling;
mod store_scale;
mod storm;
mod team;
mod tls_client;
mod token;
mod twin_ca;
mod uploads;
mod webhooks;
mod withholding;
