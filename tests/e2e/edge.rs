//! The edge before clients: from its mirror, with its proxy, and when things are missing.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use certseal_wire::DnsName;

use crate::{
    platform::{Authority, Platform},
    process::{Process, free_address, program, run},
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_serves_from_its_mirror_while_certstore_is_down() {
    let (mut platform, name) = with_one_site().await;
    platform.certstore.kill();
    platform.certman.kill();
    platform.edge.kill();
    platform.restart_edge();
    let output = platform.curl(&platform.pki("local-ca.pem"), &name);
    assert!(output.status.success(), "{output:?}\n{}", platform.edge.log());

    // And it hears of news by itself once certstore is back.
    platform.restart_certstore();
    platform.restart_certman();
    let other: DnsName = "later.customers.test".parse().unwrap();
    platform.add_site(&other).await;
    platform.wait_active(&other, 1).await;
    eventually(Duration::from_secs(15), || platform.curl(&platform.pki("local-ca.pem"), &other).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocols_headers_redirects_and_unknown_names() {
    let (platform, name) = with_one_site().await;
    let root = platform.pki("local-ca.pem");
    for arguments in [["--http1.1", "--tlsv1.3"], ["--http2", "--tlsv1.3"], ["--http2", "--tls-max=1.2"]] {
        let arguments: Vec<_> = arguments.iter().flat_map(|argument| argument.split('=')).collect();
        let output = run(Command::new("curl")
            .args(["-s", "--noproxy", "*", "-H", "X-Forwarded-Proto: gopher", "--cacert"])
            .arg(&root)
            .args(arguments)
            .args(["--connect-to", &format!("::{}", platform.addresses["https"]), &format!("https://{name}/")]));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hello from {name} over https\n"));
    }

    // A name without a certificate gets no handshake, and never a certificate of another name.
    let unknown: DnsName = "unknown.customers.test".parse().unwrap();
    assert!(Connection::open(platform.addresses["https"], &unknown, &root).await.is_err());
    // A request for another site over this site's connection is misdirected (RFC 9110, 15.5.20).
    let other: DnsName = "other.customers.test".parse().unwrap();
    platform.add_site(&other).await;
    platform.wait_active(&other, 1).await;
    eventually(Duration::from_secs(2), || platform.curl(&root, &other).status.success());
    let output = run(Command::new("curl")
        .args(["-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
        .arg(&root)
        .args(["-H", &format!("Host: {other}"), "--connect-to", &format!("::{}", platform.addresses["https"])])
        .args(["--http1.1", &format!("https://{name}/")]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "421");

    let redirect = platform.http(name.as_str(), "/some/where?x=1");
    assert!(redirect.starts_with("HTTP/1.1 308"), "{redirect}");
    assert!(redirect.contains(&format!("https://{name}/some/where?x=1")), "{redirect}");
    assert!(platform.http("unknown.customers.test", "/").starts_with("HTTP/1.1 404"));
    assert!(platform.http(name.as_str(), "/.well-known/acme-challenge/unknown-token").starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_leaves_is_no_longer_served_and_may_come_back() {
    let (platform, name) = with_one_site().await;
    let root = platform.pki("local-ca.pem");
    assert!(platform.certctl(&["site", "remove", name.as_str()]).status.success());
    eventually(Duration::from_secs(5), || !platform.curl(&root, &name).status.success());
    assert_eq!(platform.certctl(&["site", "status", name.as_str()]).status.code(), Some(4));

    platform.add_site(&name).await;
    platform.wait_active(&name, 2).await;
    eventually(Duration::from_secs(5), || platform.curl(&root, &name).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certctl_shows_what_is_going_on() {
    let (platform, name) = with_one_site().await;
    let json = |args: &[&str]| -> serde_json::Value {
        let output = platform.certctl(args);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let status = json(&["--json", "site", "status", name.as_str()]);
    assert_eq!((&status["state"], &status["version"]), (&"active".into(), &1.into()));
    let listed = platform.certctl(&["site", "list"]);
    let table = String::from_utf8(listed.stdout).unwrap();
    assert!(table.contains(name.as_str()) && table.contains("active"), "{table}");
    let bundle = platform.certctl(&["bundle", "show", name.as_str()]);
    let text = String::from_utf8(bundle.stdout).unwrap();
    assert!(bundle.status.success() && text.contains(name.as_str()) && text.contains("eu"), "{text}");
    let missing = platform.certctl(&["bundle", "show", "unknown.customers.test"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_rustls_server_can_serve_sealed_certificates_with_the_resolver() {
    let (platform, name) = with_one_site().await;
    let (address, mirror) = (free_address(), platform.dir.path().join("example-mirror"));
    let mut command = Command::new(program("examples/axum"));
    command.arg(address.to_string()).arg(format!("https://{}", platform.addresses["store"]));
    for file in ["ca.pem", "edge-eu.pem", "edge-eu.key", "eu-1.unseal.pem", "security.pub"] {
        command.arg(platform.pki(file));
    }
    let mut example = Process::start(command.arg(mirror), &platform.dir.path().join("example.log"));
    example.wait_for(address);
    let root = platform.pki("local-ca.pem");
    let began = Instant::now();
    let mut connection = loop {
        match Connection::open(address, &name, &root).await {
            Ok(connection) => break connection,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(5), "{error}\n{}", example.log()),
        }
    };
    assert_eq!(connection.get().await.unwrap().into_body(), "served with a sealed key\n");
}

pub async fn with_one_site() -> (Platform, DnsName) {
    let platform = Platform::start(Authority::Local).await;
    let name: DnsName = "shop.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    platform.wait_active(&name, 1).await;
    eventually(Duration::from_secs(2), || platform.curl(&platform.pki("local-ca.pem"), &name).status.success());
    (platform, name)
}

pub fn eventually(patience: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < patience, "it did not come true within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub async fn eventually_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
