use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use ::http::{Method, Request};
use bytes::Bytes;
use certseal_service::tls;
use instant_acme::{BodyWrapper, HttpClient};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
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
    let server = server(certificate.der(), private);
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

/// instant-acme sees none of it: a nonce that came with an answer is used before another one is asked for, a wait is handed
/// over with the answer, and an error keeps its status, its wait and its words.
#[tokio::test]
async fn what_instant_acme_drops_is_kept_below_it() {
    let answers = [
        "200 OK\r\nReplay-Nonce: first\r\n\r\n",
        "200 OK\r\nReplay-Nonce: second\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}",
        "502 Bad Gateway\r\nContent-Length: 16\r\n\r\n<html>away</html",
        "429 Too Many Requests\r\nRetry-After: 9\r\nContent-Length: 2\r\n\r\n{}",
        "400 Bad Request\r\nContent-Length: 16\r\n\r\n{\"status\": 400 }",
        &format!("200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000)),
    ]
    .map(str::to_owned);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let server = server(certificate.der(), PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || answers.into_iter().for_each(|text| answer(&listener, &server, &text)));
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, certificate.pem()).unwrap();
    let requests = Requests::default();
    let http = Http::new(&roots, Pace::of(None), requests.clone()).unwrap();
    let ask = async |method| {
        let request = Request::builder().method(method).uri(format!("https://{address}/"));
        let request = request.body(BodyWrapper::from(Bytes::new().to_vec())).unwrap();
        let (response, wait) = with_retry_after(http.request(request)).await;
        let response = response.map(|response| response.parts);
        (response.map_err(failure), wait)
    };
    let nonce =
        |parts: ::http::response::Parts| parts.headers.get("replay-nonce").map(|nonce| nonce.as_bytes().to_vec());

    assert_eq!(nonce(ask(Method::HEAD).await.0.unwrap()).as_deref(), Some(&b"first"[..]));
    let (answered, wait) = ask(Method::POST).await;
    assert_eq!(wait, Some(SignedDuration::from_secs(7)));
    assert_eq!(nonce(answered.unwrap()), None, "it is kept for the next request, and used once");
    let (kept, wait) = ask(Method::HEAD).await;
    assert_eq!((nonce(kept.unwrap()).as_deref(), wait), (Some(&b"second"[..]), None));
    assert_eq!((requests.nonces.get(), requests.others.get()), (1, 1));

    let away = ask(Method::POST).await.0.unwrap_err();
    assert_eq!(away.kind, FailureKind::Unanswered, "what is behind it may have done what it was asked for");
    assert!(away.detail.contains("502 Bad Gateway") && away.detail.contains("<html>away"), "{}", away.detail);
    assert_eq!(ask(Method::POST).await.0.unwrap_err().kind, FailureKind::Throttled(9));
    assert_eq!(ask(Method::POST).await.0.unwrap().status, 400, "a problem document is read by instant-acme");
    let endless = ask(Method::POST).await.0.unwrap_err();
    assert!(endless.detail.contains("length limit exceeded"), "{}", endless.detail);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let request = Request::get(format!("https://{nobody}/")).body(BodyWrapper::default()).unwrap();
    let unreached = failure(http.request(request).await.map(drop).unwrap_err());
    assert_eq!(unreached.kind, FailureKind::Unavailable, "{}", unreached.detail);
}

/// What follows from each error of RFC 8555, 6.7 and RFC 9773, 5, and from Boulder's word for a paused name.
#[test]
fn each_error_of_a_ca_has_its_consequence_and_keeps_its_words() {
    let kind = |name: &str, detail: &str| {
        let problem = json!({ "type": format!("urn:ietf:params:acme:error:{name}"), "detail": detail, "status": 403 });
        let failure = failure(Error::Api(serde_json::from_value(problem).unwrap()));
        assert!(failure.detail.contains(detail), "{}", failure.detail);
        failure.kind
    };
    for name in ["caa", "connection", "dns", "tls", "unauthorized", "incorrectResponse", "malformed", "badCSR"] {
        assert_eq!(kind(name, "why"), FailureKind::Rejected, "{name}");
    }
    for name in ["serverInternal", "badNonce", "orderNotReady"] {
        assert_eq!(kind(name, "why"), FailureKind::Unavailable, "{name}");
    }
    for name in ["rejectedIdentifier", "unsupportedIdentifier", "userActionRequired", "invalidProfile"] {
        assert_eq!(kind(name, "why"), FailureKind::Hopeless, "{name}");
    }
    assert_eq!(kind("alreadyReplaced", "why"), FailureKind::AlreadyReplaced);
    assert_eq!(kind("rateLimited", "too many new orders"), FailureKind::Throttled(60));
    let paused = "Your account is temporarily prevented from requesting certificates for a.example and possibly others. \
                  Please visit: https://ca.example/sfe/v1/unpause?jwt=x";
    assert_eq!(kind("rateLimited", paused), FailureKind::Hopeless, "nobody tries again; the page is in the diagnosis");
}

#[test]
fn a_certificates_id_is_that_of_the_rfc_and_never_long() {
    let issuer = rcgen::KeyPair::generate().unwrap();
    let id = |serial: Vec<u8>| {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.into());
        certificate_id(params.self_signed(&issuer).unwrap().der())
    };
    // RFC 9773, 4.1: the serial number of its example, with the octet that keeps it positive.
    let short = id(vec![0x87, 0x65, 0x43, 0x21]).unwrap();
    assert!(short.ends_with(".AIdlQyE"), "{short}");
    assert_eq!(id(vec![7; 5000]), None);
    let plain = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
    assert_eq!(certificate_id(plain.self_signed(&issuer).unwrap().der()), None, "it names no key of its issuer");
}

#[test]
fn an_answer_by_a_key_that_the_account_has_no_more_is_told_from_others() {
    let answer = |token: &str, key_authorization: &str| Answer {
        host: "a.example".parse().unwrap(),
        token: token.into(),
        key_authorization: key_authorization.into(),
        method: Default::default(),
    };
    assert!(is_for(&answer("t", "t.new"), "new") && !is_for(&answer("t", "t.old"), "new"));
    assert!(!is_for(&answer("t", "new"), "new") && !is_for(&answer("t.n", "t.new"), "new"));
    assert!(is_for(&answer("", ""), "new"), "a record that stays is for the account, whatever its key");
}

#[tokio::test]
async fn an_alternate_chain_that_cannot_be_had_holds_a_certificate_up_once() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), refusing());
    let (default, alternates) = (vec![vec![1]], ["https://127.0.0.1/alternate".to_owned()]);
    let failure = ca.preferred(default.clone(), &alternates, "Root X").await.unwrap_err();
    assert!(failure.may_pass(), "{}", failure.detail);
    assert_eq!(ca.preferred(default.clone(), &alternates, "Root X").await.map_err(|it| it.detail), Ok(default));
}

#[tokio::test]
async fn a_revocation_waits_when_the_account_has_ended_and_an_order_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let note = json!({ "deactivation": { "account": "https://ca.example/account/1", "is_done": true } });
    std::fs::write(dir.path().join("account.key.account"), note.to_string()).unwrap();
    let ca = authority(dir.path(), refusing());
    let revoked = ca.revoke(b"leaf", RevocationReason::Superseded).await.unwrap_err();
    assert_eq!(revoked.kind, FailureKind::Unavailable, "{}", revoked.detail);
    assert!(revoked.detail.contains("has ended"), "{}", revoked.detail);
    let reported = ca.order_report("https://ca.example/order/1").await.map(drop).unwrap_err();
    assert_eq!(reported.kind, FailureKind::Rejected, "{}", reported.detail);
}

fn server(certificate: &CertificateDer<'static>, key: PrivateKeyDer<'static>) -> ServerConfig {
    ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap()
}

/// Answers one request, and closes its connection.
fn answer(listener: &std::net::TcpListener, server: &ServerConfig, text: &str) {
    let stream: TcpStream = listener.accept().unwrap().0;
    let mut stream = StreamOwned::new(ServerConnection::new(server.clone().into()).unwrap(), stream);
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        read.extend(octet);
    }
    let (status, rest) = text.split_once("\r\n").unwrap();
    // A client that does not read to the end hangs up.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{rest}");
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// The text of a failed request to this port of the machine.
async fn said_of(port: u16) -> String {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path(), port).thumbprint().await.unwrap_err().detail
}

/// The CA at this port of the machine, with an account's key in `dir`.
pub(super) fn authority(dir: &Path, port: u16) -> AcmeAuthority {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::new(vec!["root".into()]).unwrap().self_signed(&key).unwrap();
    let roots = dir.join("roots.pem");
    std::fs::write(&roots, root.pem()).unwrap();
    let directory = format!("https://127.0.0.1:{port}/dir");
    AcmeAuthority::new(directory, &roots, dir.join("account.key"), Choices::default(), Requests::default())
        .map_err(io::Error::other)
        .unwrap()
}

/// A port at which nobody answers.
pub(super) fn refusing() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
