//! The server behind the edge for a first look: it says hello.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{Router, http::HeaderMap, routing::get};
use certseal_service::{
    Shutdown,
    server::{self, Limits},
};

/// Starts the server on loopback and answers where it listens.
///
/// # Errors
/// When no port is free.
pub async fn start(shutdown: Shutdown) -> std::io::Result<SocketAddr> {
    let listener = server::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let address = listener.local_addr()?;
    let app = Router::new().fallback(get(hello));
    tokio::spawn(server::serve_plain(listener, app, Limits::default(), shutdown));
    Ok(address)
}

async fn hello(headers: HeaderMap) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?").to_owned();
    format!("hello from {} over {}\n", header("host"), header("x-forwarded-proto"))
}
