//! Logs, health and metrics.

use std::{io::IsTerminal, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tracing_subscriber::EnvFilter;

use crate::{
    Shutdown,
    server::{self, Limits},
};

/// Starts logs on standard error: readable text on a terminal, JSON lines elsewhere. `RUST_LOG` sets the level,
/// `level` what it is without.
pub fn start_logs(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process finds logs running already, which is as good.
    let _ = if std::io::stderr().is_terminal() { logs.try_init() } else { logs.json().try_init() };
}

/// Whether a daemon can do its work now; the error says what it lacks.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Serves `/health/live`, `/health/ready` and `/metrics` in the clear at `address` until the shutdown begins.
///
/// Nothing there is secret, but the address should be one that only monitoring reaches.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    registry: Registry,
    ready: Readiness,
    shutdown: Shutdown,
) -> std::io::Result<SocketAddr> {
    let listener = server::bind(address).await?;
    let address = listener.local_addr()?;
    let registry = Arc::new(registry);
    let app = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route(
            "/health/ready",
            get(move || async move {
                // It may ask a database.
                let lack = match tokio::task::spawn_blocking(move || ready()).await {
                    Ok(Ok(())) => return (StatusCode::OK, "ready\n".to_owned()),
                    Ok(Err(lack)) => lack,
                    Err(error) => error.to_string(),
                };
                (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {lack}\n"))
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let mut text = String::new();
                match encode(&mut text, &registry) {
                    Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }),
        );
    let limits = Limits { connections: 64, ..Limits::default() };
    tokio::spawn(server::serve_plain(listener, app, limits, shutdown));
    Ok(address)
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
