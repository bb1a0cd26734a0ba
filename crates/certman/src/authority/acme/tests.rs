use std::io;

use certseal_service::tls;
use tokio::net::TcpListener;

use super::*;

#[test]
fn the_ca_names_no_host_outside_the_order() {
    let names = ["shop.example.com", "www.example.com"].map(|name| name.parse().unwrap());
    let names = NameSet::try_from(names.to_vec()).unwrap();
    assert_eq!(ordered("www.example.com", &names).unwrap().as_str(), "www.example.com");
    for other in ["bank.example", "example.com", "a.www.example.com", "*.example.com", "", "not a name"] {
        let failure = ordered(other, &names).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Rejected, "{other}");
        assert!(failure.detail.contains("not a name of the order"), "{}", failure.detail);
    }
}

/// A reader of the text knows which address it is about, what is wrong, each cause once, and what to look at.
#[tokio::test]
async fn a_ca_that_cannot_be_reached_is_told_by_its_address_and_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = said_of(address.port()).await;
    assert!(refused.starts_with(&format!("the CA: cannot reach {address}: ")), "{refused}");
    assert_eq!(refused.matches("Connection refused").count(), 1, "{refused}");

    // One whose certificate no root has signed.
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut server = rustls::ServerConnection::new(server.into()).unwrap();
        let mut stream = listener.accept().await.unwrap().0.into_std().unwrap();
        tokio::task::spawn_blocking(move || {
            stream.set_nonblocking(false).unwrap();
            let _ = server.complete_io(&mut stream);
        })
        .await
        .unwrap();
    });
    let unknown = said_of(port).await;
    assert_eq!(unknown.matches("invalid peer certificate").count(), 1, "{unknown}");
    assert!(unknown.contains(&format!("127.0.0.1:{port}")) && unknown.contains("`roots`"), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_does_not_answer_is_told_by_its_address_and_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = said_of(address.port()).await;
    assert_eq!(silent, format!("the CA: no answer from {address} within 30 s"));
}

/// The text of a failed request to this port of the machine.
async fn said_of(port: u16) -> String {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::new(vec!["root".into()]).unwrap().self_signed(&key).unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, root.pem()).unwrap();
    let directory = format!("https://127.0.0.1:{port}/dir");
    let ca =
        AcmeAuthority::new(directory, &roots, None, dir.path(), Requests::default()).map_err(io::Error::other).unwrap();
    ca.thumbprint().await.unwrap_err().detail
}
