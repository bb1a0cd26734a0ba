//! Stand-ins for the daemons: any router over real mTLS, with the PKI of `certctl pki init`.

use std::path::Path;

use axum::Router;
use certseal_ceremonies::pki;
use certseal_service::{Shutdown, ShutdownHandle, server};

/// Serves `app` as `identity` of the PKI in `dir`, until the handle is dropped. Returns its URL.
pub(crate) async fn serve(dir: &Path, identity: &str, app: Router) -> (String, ShutdownHandle) {
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = pki::tls_files(dir, identity).server_config().unwrap().into();
    let domain = pki::PkiOptions::default().trust_domain;
    let (handle, shutdown) = Shutdown::new();
    tokio::spawn(server::serve_mtls(listener, tls, domain, app, Default::default(), shutdown));
    (format!("https://{address}"), handle)
}
