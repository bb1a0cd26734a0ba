//! Large bodies that never end: certstore's memory stays what it was, and others are served meanwhile.

use std::{fs, sync::Arc, time::Duration};

use certseal_ceremonies::pki;
use certseal_wire::DnsName;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::platform::{Authority, Platform};

/// An identity that may restore gets its share and no more, one that may not gets nothing: neither of them takes memory
/// or attention from those who do their work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_uploads_of_anybody_cost_the_others_nothing() {
    let platform = Platform::start(Authority::Local).await;
    let before = resident_mib(&platform);
    let mut held = Vec::new();
    for (n, (identity, expected)) in
        [("platform", " 403 "), ("edge-eu", " 403 "), ("admin", " 429 ")].into_iter().enumerate()
    {
        let mut uploads = Vec::new();
        for _ in 0..UPLOADS {
            uploads.push(Upload::begin(&platform, "store", identity, RESTORE, OCTETS).await);
        }
        let after = resident_mib(&platform);
        println!(
            "{UPLOADS} stalled uploads of {} MB as {identity}: {before} MiB before, {after} MiB then",
            OCTETS / 1_000_000
        );
        assert!(after < before + 160, "{before} MiB grew to {after} MiB");
        let answered = uploads.iter().filter(|upload| upload.answer.contains(expected)).count();
        let open = uploads.iter().filter(|upload| upload.answer.is_empty()).count();
        // The share of one caller has room for two.
        let is_let_in = if identity == "admin" { 2 } else { 0 };
        let answers: Vec<_> = uploads.iter().map(|upload| upload.answer.lines().next().unwrap_or("none yet")).collect();
        assert_eq!((answered, open), (UPLOADS - is_let_in, is_let_in), "{identity}: {answers:?}");
        held.extend(uploads);
        // A site needs puts of all sizes by certman, and reads by the edge.
        let name: DnsName = format!("site-{n}.example.com").parse().unwrap();
        platform.add_site(&name).await;
        platform.wait_active(&name, 1).await;
        assert!(platform.store_as("admin").ring().await.unwrap().is_some());
    }
    // An upload that was let in is given up once it took too long; a small one soon.
    let mut small = Upload::begin(&platform, "store", "admin", RESTORE, 100_000).await;
    let answer =
        timeout(Duration::from_secs(60), small.read()).await.expect("certstore waits for a body without an end");
    assert!(answer.contains(" 408 "), "{answer}");
}

/// A caller who may not do something hears so before a body is read: in certstore, for all that can be done with one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_send_a_body_is_refused_before_it_is_read() {
    let platform = Platform::start(Authority::Local).await;
    let described = include_str!("../../docs/openapi.json");
    let described: serde_json::Value = serde_json::from_str(described).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.replace("{pool}", "eu").replace("{id}", &"0".repeat(32)).replace(['{', '}'], "");
        let methods =
            methods.as_object().unwrap().iter().filter(|(_, operation)| operation.get("requestBody").is_some());
        operations
            .extend(methods.map(|(method, _)| ("store", "platform", format!("{} {path}", method.to_uppercase()))));
    }
    assert!(operations.len() >= 14, "{operations:?}");
    for (role, path) in [
        ("edge-eu", ""),
        ("edge-eu", "/renew"),
        ("edge-eu", "/import"),
        ("platform", "/envelope"),
        ("platform", "/replacement"),
        ("platform", "/revocation"),
    ] {
        let method = if path.is_empty() { "PUT" } else { "POST" };
        operations.push(("man", role, format!("{method} /v1/sites/shop.example.com{path}")));
    }
    for (daemon, identity, operation) in operations {
        let upload = Upload::begin(&platform, daemon, identity, &operation, 100_000).await;
        assert!(upload.answer.contains(" 403 "), "{identity}, {operation}: {:?}", upload.answer);
    }
}

/// A request all of whose octets come but the last.
struct Upload {
    stream: TlsStream<TcpStream>,
    answer: String,
}

impl Upload {
    async fn begin(platform: &Platform, daemon: &str, identity: &str, operation: &str, octets: usize) -> Self {
        let address = platform.addresses[daemon];
        let tls = pki::tls_files(&platform.pki(""), identity).client_config(&["certstore", "certman"]).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::from(address.ip());
        let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let head = format!("{operation} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {octets}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut upload = Self { stream, answer: String::new() };
        // A refused caller hears so at once.
        if let Ok(answer) = timeout(Duration::from_secs(1), upload.read()).await {
            upload.answer = answer;
        }
        let part = vec![b' '; 1_000_000];
        let mut left = octets - 1;
        while left > 0 {
            let part = &part[..left.min(part.len())];
            // A connection that was ended, or is not read from, takes no more.
            if !matches!(timeout(Duration::from_secs(5), upload.stream.write_all(part)).await, Ok(Ok(()))) {
                break;
            }
            left -= part.len();
        }
        let _ = timeout(Duration::from_secs(5), upload.stream.flush()).await;
        if upload.answer.is_empty()
            && let Ok(answer) = timeout(Duration::from_millis(50), upload.read()).await
        {
            upload.answer = answer;
        }
        upload
    }

    async fn read(&mut self) -> String {
        let mut answer = vec![0; 4096];
        let read = self.stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }
}

fn resident_mib(platform: &Platform) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", platform.certstore.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

const RESTORE: &str = "POST /v1/restore";
const UPLOADS: usize = 100;
const OCTETS: usize = 15_000_000;
