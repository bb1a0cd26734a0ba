//! Typed mTLS clients of certstore and certman.
//!
//! ```no_run
//! # async fn example(tls: rustls::ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use certseal_client::{Connection, StoreClient};
//!
//! let store = StoreClient::new(Connection::new("https://certstore.internal:7443".parse()?, tls));
//! let bundle = store.bundle(&"shop.example.com".parse()?).await?;
//! # Ok(())
//! # }
//! ```

mod certman;
mod connection;
mod progress;
mod store;

pub use certman::CertmanClient;
pub use connection::{ClientError, Connection, Origins, Tls};
pub use progress::Progress;
pub use store::StoreClient;
