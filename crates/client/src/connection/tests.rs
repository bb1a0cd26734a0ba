use std::sync::atomic::AtomicU32;

use certseal_wire::ProblemKind;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

#[test]
fn origins_are_read_from_a_list_and_nothing_else() {
    let two: Origins = "https://a.internal:7443, https://b.internal:7443".parse().unwrap();
    assert_eq!(two.to_string(), "https://a.internal:7443/, https://b.internal:7443/");
    for bad in ["", "http://a", "https://a/path", "https://a,", "a.internal:7443", "https://a, ftp://b"] {
        assert!(bad.parse::<Origins>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn one_whose_storage_does_not_answer_is_left_for_the_next() {
    let world = World::new([503, 200]).await;
    world.connection.bytes(Call::get("/")).await.unwrap();
    assert_eq!(world.asked(), [1, 1]);
    // The next request, of a clone too, begins where the last one ended.
    world.connection.clone().bytes(Call::delete("/")).await.unwrap();
    assert_eq!(world.asked(), [1, 2]);
}

#[tokio::test]
async fn when_no_storage_answers_the_last_ones_word_is_told() {
    let world = World::new([503, 503]).await;
    let Err(ClientError::Refused(problem)) = world.connection.bytes(Call::get("/")).await else { panic!() };
    assert_eq!((problem.kind, world.asked()), (ProblemKind::Unavailable, [1, 1]));
}

/// Snapshots lie on a certstore's own disk: another one with the same database may have room for them.
#[tokio::test]
async fn one_that_has_no_room_is_left_for_the_next() {
    let put = || Call::put("/", Bytes::new());
    for call in [Call::get("/"), put()] {
        let world = World::new([507, 200]).await;
        world.connection.bytes(call).await.unwrap();
        assert_eq!(world.asked(), [1, 1]);
    }
    // The control: a single thing to be done is sent once, and the next request goes elsewhere.
    let world = World::new([507, 200]).await;
    assert!(world.connection.bytes(Call::post("/")).await.is_err());
    assert_eq!(world.asked(), [1, 0]);
    world.connection.bytes(put()).await.unwrap();
    assert_eq!(world.asked(), [1, 1]);
}

#[tokio::test]
async fn when_none_has_room_the_last_ones_word_is_told() {
    let world = World::new([507, 507]).await;
    let Err(ClientError::Refused(problem)) = world.connection.bytes(Call::get("/")).await else { panic!() };
    assert_eq!((problem.kind, world.asked()), (ProblemKind::Full, [1, 1]));
}

/// A request that may have been done is not made again: the next one goes to the next origin.
#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let world = World::new([503, 200]).await;
    assert!(world.connection.bytes(Call::post("/")).await.is_err());
    assert_eq!(world.asked(), [1, 0]);
    world.connection.bytes(Call::post("/")).await.unwrap();
    assert_eq!(world.asked(), [1, 1]);
}

#[tokio::test]
async fn the_word_of_a_busy_service_is_taken_for_the_answer_where_the_caller_says_so() {
    let world = World::new([429, 200]).await;
    let answer = world.connection.bytes(Call::post("/").impatient()).await;
    assert!(matches!(answer, Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::Busy));
    assert_eq!(world.asked(), [1, 0]);
}

/// The control: another certstore with the same database would say the same.
#[tokio::test]
async fn other_refusals_are_told_and_nobody_else_is_asked() {
    for status in [500, 409] {
        let world = World::new([status, 200]).await;
        assert!(matches!(world.connection.bytes(Call::get("/")).await, Err(ClientError::Refused(_))), "{status}");
        assert_eq!(world.asked(), [1, 0], "{status}");
    }
}

/// Two origins that answer everything with their status, and a connection to both.
struct World {
    connection: Connection,
    asked: [Arc<AtomicU32>; 2],
}

impl World {
    async fn new(statuses: [u16; 2]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider.clone());
        let client = client.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));

        let asked: [Arc<AtomicU32>; 2] = Default::default();
        let mut origins = Vec::new();
        for (status, asked) in statuses.into_iter().zip(&asked) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            origins.push(format!("https://localhost:{}", listener.local_addr().unwrap().port()));
            tokio::spawn(serve(listener, acceptor.clone(), status, asked.clone()));
        }
        let connection = Connection::new(origins.join(",").parse().unwrap(), client.with_no_client_auth());
        Self { connection, asked }
    }

    fn asked(&self) -> [u32; 2] {
        self.asked.each_ref().map(|asked| asked.load(Ordering::Relaxed))
    }
}

/// One request on each connection.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, status: u16, asked: Arc<AtomicU32>) {
    let kind = match status {
        409 => ProblemKind::Conflict,
        429 => ProblemKind::Busy,
        503 => ProblemKind::Unavailable,
        507 => ProblemKind::Full,
        _ => ProblemKind::Internal,
    };
    let body = serde_json::to_string(&Problem::new(kind, "as the test says")).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        // None has a body.
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        asked.fetch_add(1, Ordering::Relaxed);
        let answer =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}
