//! Bad input: each gets a clear error, and nothing is lost.

use std::{fs, path::Path, process::Command, time::Duration};

use certseal_client::ClientError;
use certseal_seal::{SigningKey, VerifyingKey};
use certseal_wire::{
    Challenge, ChallengeMethod, Checkpoint, DnsName, HttpsMode, PoolName, ProblemKind, Route, SiteRequest, SiteState,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    edge::{eventually, with_one_site},
    hostile_store::{HostileStore, Hostility},
    platform::{Authority, Platform, daemon},
    process::{Process, free_address, program},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_its_own_and_nothing_else() {
    let (platform, name) = with_one_site().await;
    let bundle = platform.store_as("admin").bundle(&name).await.unwrap().unwrap().to_vec();
    let route = platform.store_as("admin").route(&name).await.unwrap().unwrap();
    let ring = platform.store_as("admin").ring().await.unwrap().unwrap();
    let (eu, us): (PoolName, PoolName) = ("eu".parse().unwrap(), "us".parse().unwrap());
    for identity in ["edge-eu", "admin", "platform"] {
        let store = platform.store_as(identity);
        refused(store.put_bundle(&name, bundle.clone()).await, ProblemKind::Forbidden, "needs role issuer");
        refused(store.put_route(&name, &route).await, ProblemKind::Forbidden, "needs role issuer");
        refused(store.put_accounts(&route).await, ProblemKind::Forbidden, "needs role issuer");
        refused(store.put_checkpoint(&eu, &route).await, ProblemKind::Forbidden, "needs role issuer");
        refused(store.put_challenge(&name, "token", &route).await, ProblemKind::Forbidden, "needs role issuer");
        refused(store.delete_challenge(&name, "token").await, ProblemKind::Forbidden, "needs role issuer");
    }
    for identity in ["edge-eu", "certman", "platform"] {
        refused(platform.store_as(identity).put_ring(&ring).await, ProblemKind::Forbidden, "needs role admin");
    }
    refused(platform.store_as("platform").bundle(&name).await, ProblemKind::Forbidden, "needs role edge");
    refused(platform.certman_as("edge-eu").site(&name).await, ProblemKind::Forbidden, "needs role platform");
    // An edge of another pool gets nothing: not by name, not in the feed.
    assert!(platform.store_as("edge-eu").bundle(&name).await.unwrap().is_some());
    assert!(platform.store_as("edge-us").bundle(&name).await.unwrap().is_none());
    assert!(platform.store_as("edge-eu").checkpoint(&eu).await.unwrap().is_some());
    assert!(platform.store_as("edge-eu").checkpoint(&us).await.unwrap().is_none());
    let events = platform.snapshot_as("edge-us").await;
    assert!(events.iter().all(|event| event.name != name.as_str() && event.name != "eu"), "{events:?}");
    assert!(platform.snapshot_as("edge-eu").await.iter().any(|event| event.name == name.as_str()));
    // Nor the segments of another pool's snapshot.
    let theirs = platform.store_as("edge-eu").snapshot().await.unwrap().segments[0];
    refused(platform.store_as("edge-us").segment(&theirs).await, ProblemKind::Gone, "no such segment");
    refused(platform.store_as("platform").snapshot().await, ProblemKind::Forbidden, "needs role edge");
    refused(platform.store_as("edge-eu").audit(&Default::default()).await, ProblemKind::Forbidden, "needs role admin");
    let query = certseal_wire::FeedQuery { after: None, limit: None, wait: None };
    refused(platform.store_as("edge-eu").feed(&query).await, ProblemKind::Malformed, "begin with GET /v1/snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_good_certificate_is_refused() {
    let platform = Platform::start(Authority::Local).await;
    let url = format!("https://{}/v1/ring", platform.addresses["store"]);
    let ask = |identity: Option<&str>| {
        let mut command = Command::new("curl");
        command.args(["-sf", "-o", "/dev/null", "--noproxy", "*", "--cacert"]).arg(platform.pki("ca.pem"));
        if let Some(name) = identity {
            command.arg("--cert").arg(platform.pki(&format!("{name}.pem")));
            command.arg("--key").arg(platform.pki(&format!("{name}.key")));
        }
        command.arg(&url).status().unwrap().success()
    };
    assert!(ask(Some("admin")), "the control: a good certificate is accepted");
    assert!(!ask(None), "no certificate");
    for (name, lifetime, uri, authority) in [
        ("expired", SignedDuration::from_hours(-1), "spiffe://certseal.internal/admin/a", "ca"),
        ("other-ca", SignedDuration::from_hours(1), "spiffe://certseal.internal/admin/a", "local-ca"),
        ("other-domain", SignedDuration::from_hours(1), "spiffe://other.internal/admin/a", "ca"),
        ("no-role", SignedDuration::from_hours(1), "spiffe://certseal.internal/root/a", "ca"),
    ] {
        make_identity(&platform, name, lifetime, uri, authority);
        assert!(!ask(Some(name)), "{name}");
    }
    make_identity(&platform, "control", SignedDuration::from_hours(1), "spiffe://certseal.internal/admin/a", "ca");
    assert!(ask(Some("control")), "the control: an identity made the same way is accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_that_are_not_genuine_or_not_next_are_refused() {
    let (platform, name) = with_one_site().await;
    let store = platform.store_as("certman");
    let good = store.bundle(&name).await.unwrap().unwrap().to_vec();
    assert!(!store.put_bundle(&name, good.clone()).await.unwrap().changed, "the same again is no change");

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused(store.put_bundle(&name, flipped).await, ProblemKind::Conflict, "expected a version above 1");
    for at in [3, 20, good.len() / 4, good.len() / 2, good.len() - 300] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let error = store.put_bundle(&name, flipped).await.unwrap_err();
        let ClientError::Refused(problem) = &error else { panic!("{error}") };
        assert!(matches!(problem.kind, ProblemKind::Malformed | ProblemKind::Unverified), "octet {at}: {problem}");
    }
    let envelope = memchr::memmem::find(&good, b"CSEV").unwrap();
    let mut suite = good.clone();
    suite[envelope + 6] = 9;
    refused(store.put_bundle(&name, suite).await, ProblemKind::Malformed, "expected suite 1");
    let truncated = good[..good.len() - 1].to_vec();
    refused(store.put_bundle(&name, truncated).await, ProblemKind::Malformed, "more octets");
    let oversized = vec![0; 200 * 1024];
    refused(store.put_bundle(&name, oversized).await, ProblemKind::TooLarge, "at most 131072 octets");
    let other: DnsName = "other.customers.test".parse().unwrap();
    refused(store.put_bundle(&other, good.clone()).await, ProblemKind::Unverified, "the document is for site");

    let stranger = SigningKey::generate().unwrap();
    let route: Route = serde_json::from_slice(&store.route(&name).await.unwrap().unwrap().payload.0).unwrap();
    let forged = stranger.sign(&Route { version: 2, ..route.clone() });
    refused(store.put_route(&name, &forged).await, ProblemKind::Unverified, "none of the trusted ones");
    let issuer = issuer(&platform);
    let stale = issuer.sign(&Route { upstreams: Vec::new(), ..route });
    let says = "expected a version above 1, which is stored, got 1";
    refused(store.put_route(&name, &stale).await, ProblemKind::Conflict, says);
    let (eu, us): (PoolName, PoolName) = ("eu".parse().unwrap(), "us".parse().unwrap());
    let checkpoint = Checkpoint {
        pool: us,
        version: 0,
        issued_at: Timestamp::now(),
        complete_since: Timestamp::now(),
        changes: vec![],
    };
    let forged = stranger.sign(&checkpoint);
    refused(store.put_checkpoint(&checkpoint.pool, &forged).await, ProblemKind::Unverified, "none of the trusted ones");
    let of_us = issuer.sign(&checkpoint);
    refused(store.put_checkpoint(&eu, &of_us).await, ProblemKind::Unverified, "the document is for pool us");
    refused(store.put_checkpoint(&checkpoint.pool, &of_us).await, ProblemKind::Conflict, "expected a version above");
    assert_eq!(store.bundle(&name).await.unwrap().unwrap(), good, "something was changed all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certman_goes_on_above_what_certstore_has_already() {
    let (platform, name) = with_one_site().await;
    let (store, certman) = (platform.store_as("certman"), platform.certman_as("platform"));
    // As if a journal came back from a backup: certstore is ahead of it.
    let route: Route = serde_json::from_slice(&store.route(&name).await.unwrap().unwrap().payload.0).unwrap();
    store.put_route(&name, &issuer(&platform).sign(&Route { version: 5, ..route })).await.unwrap();
    let moved: certseal_wire::Upstream = "http://127.0.0.1:8001".parse().unwrap();
    certman.put_site(&name, &SiteRequest { upstream: moved.clone(), ..platform.request(&name) }).await.unwrap();
    platform.wait_active(&name, 1).await;
    let route: Route = serde_json::from_slice(&store.route(&name).await.unwrap().unwrap().payload.0).unwrap();
    assert_eq!((route.version, route.upstreams), (6, vec![moved.into()]));

    // A pool that the ring does not have is refused before anything is stored.
    let nowhere = SiteRequest { pools: vec!["nowhere".parse().unwrap()], ..platform.request(&name) };
    refused(certman.put_site(&name, &nowhere).await, ProblemKind::Malformed, "no active unseal key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_of_another_signer_or_an_older_one_is_refused() {
    let platform = Platform::start(Authority::Local).await;
    let admin = platform.store_as("admin");
    let ring = admin.ring().await.unwrap().unwrap();
    let mut payload: certseal_wire::KeyRing = serde_json::from_slice(&ring.payload.0).unwrap();
    payload.version += 1;
    let stranger = SigningKey::generate().unwrap();
    refused(admin.put_ring(&stranger.sign(&payload)).await, ProblemKind::Unverified, "does not count");
    let security = SigningKey::from_pem(&fs::read_to_string(platform.pki("security.key")).unwrap()).unwrap();
    payload.version = 1;
    refused(admin.put_ring(&security.sign(&payload)).await, ProblemKind::Conflict, "expected a version above 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_understood_say_what_was_expected() {
    let (platform, name) = with_one_site().await;
    let ask = |path: &str, body: Option<&str>| {
        let mut command = Command::new("curl");
        command.args(["-s", "-w", "\n%{http_code} %{content_type}", "--noproxy", "*", "--cacert"]);
        command.arg(platform.pki("ca.pem")).arg("--cert").arg(platform.pki("platform.pem"));
        command.arg("--key").arg(platform.pki("platform.key"));
        if let Some(body) = body {
            command.args(["-X", "PUT", "-H", "Content-Type: application/json", "-d", body]);
        }
        let output = command.arg(format!("https://{}{path}", platform.addresses["man"])).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (path, body, status, says) in [
        ("/v1/sites/localhost", None, 400, "expected a DNS name"),
        ("/v1/sites/unknown.customers.test", None, 404, "there is no site"),
        ("/v1/nothing", None, 404, "there is no /v1/nothing"),
        ("/v1/sites?more=1", None, 400, "unknown field"),
        ("/v1/sites/a.customers.test", Some("{"), 400, "EOF"),
        (
            "/v1/sites/a.customers.test",
            Some(r#"{"names":["b.customers.test"],"upstream":"http://a:1","pools":["eu"]}"#),
            400,
            "to be among",
        ),
        (
            "/v1/sites/a.customers.test",
            Some(r#"{"names":["a.customers.test"],"upstream":"gopher://a","pools":["eu"]}"#),
            400,
            "expected an upstream",
        ),
        (
            "/v1/sites/a.customers.test",
            Some(r#"{"names":["a.customers.test"],"upstream":"http://a:1","pools":[]}"#),
            400,
            "expected 1 to 8 pools",
        ),
        (
            "/v1/sites/a.customers.test",
            Some(&format!(r#"{{"names":["a.customers.test","{name}"],"upstream":"http://a:1","pools":["eu"]}}"#)),
            409,
            "remove it there first",
        ),
    ] {
        let answer = ask(path, body);
        assert!(answer.contains(says), "{path} {body:?}: {answer}");
        assert!(answer.ends_with(&format!("\n{status} application/problem+json")), "{path} {body:?}: {answer}");
    }
}

#[test]
fn a_configuration_that_is_not_usable_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let certctl = |args: &[&str]| {
        crate::process::run(Command::new(program("certctl")).args(args));
    };
    let pki = dir.path().join("pki");
    certctl(&["pki", "init", "--pool", "eu", "--dir", pki.to_str().unwrap()]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = |listen: &str, more: &str, key: &str| {
        let pki = pki.display();
        format!(
            "listen = \"{listen}\"\ndata_dir = \"{}\"\ntrust_domain = \"certseal.internal\"\n{more}\
             security_key = \"{pki}/security.pub\"\n[tls]\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/certstore.pem\"\n\
             key = \"{pki}/{key}\"\n",
            dir.path().join("data").display(),
        )
    };
    let exposed = pki.join("exposed.key");
    fs::copy(pki.join("certstore.key"), &exposed).unwrap();
    fs::set_permissions(&exposed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let free = free_address().to_string();
    for (text, says) in [
        (config(&free, "lissten = 1\n", "certstore.key"), "unknown field `lissten`"),
        (config(&free, "", "missing.key"), "cannot read"),
        (config(&free, "", "exposed.key"), "chmod 600"),
        (config("nowhere", "", "certstore.key"), "invalid socket address"),
        (config(&taken.local_addr().unwrap().to_string(), "", "certstore.key"), "another process listens there"),
    ] {
        fs::write(dir.path().join("certstore.toml"), text).unwrap();
        let mut certstore = daemon(dir.path(), "certstore", &Default::default());
        let status = certstore.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(1));
        assert!(certstore.log().contains(says), "expected {says:?} in:\n{}", certstore.log());
        fs::remove_file(dir.path().join("certstore.log")).unwrap();
    }
    let missing = Command::new(program("certstore")).args(["--config", "/nowhere/x.toml"]).output().unwrap();
    let certctl = Command::new(program("certctl"))
        .args([
            "--store",
            "https://127.0.0.1:9",
            "--cert",
            "/x",
            "--key",
            "/x",
            "--ca",
            "/nowhere/x.toml",
            "keys",
            "list",
        ])
        .output()
        .unwrap();
    for output in [missing, certctl] {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("cannot read /nowhere/x.toml"), "{error}");
        assert_eq!(error.matches("No such file").count(), 1, "the cause is said once: {error}");
    }
    assert_eq!(Command::new(program("certstore")).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_process_of_the_same_user_cannot_read_a_daemons_memory() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let pki_text = pki.to_str().unwrap();
    crate::process::run(Command::new(program("certctl")).args(["pki", "init", "--dir", pki_text]));
    let address = free_address();
    let config = format!(
        "listen = \"{address}\"\ndata_dir = \"{0}/data\"\ntrust_domain = \"certseal.internal\"\n\
         security_key = \"{0}/pki/security.pub\"\n[tls]\nca = \"{0}/pki/ca.pem\"\n\
         certificate = \"{0}/pki/certstore.pem\"\nkey = \"{0}/pki/certstore.key\"\n",
        dir.path().display()
    );
    fs::write(dir.path().join("certstore.toml"), config).unwrap();
    fs::copy(program("certstore"), dir.path().join("certstore")).unwrap();
    crate::process::run(Command::new("chown").args(["-R", "65534:65534"]).arg(dir.path()));
    let as_nobody = |command: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).args(command);
        setpriv
    };
    let log = dir.path().join("log");
    let (program, config) = (dir.path().join("certstore"), dir.path().join("certstore.toml"));
    let start = [program.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let mut certstore = Process::start(&mut as_nobody(&start), &log);
    certstore.wait_for(address);
    let control = Process::start(&mut as_nobody(&["sleep", "60"]), &log);
    let reads = |pid: u32| {
        let maps = format!("/proc/{pid}/mem");
        as_nobody(&["sh", "-c", &format!("exec 3<{maps}")]).status().unwrap().success()
    };
    eventually(Duration::from_secs(5), || reads(control.pid()));
    assert!(!reads(certstore.pid()), "the memory of certstore can be read");
    let limits = fs::read_to_string(format!("/proc/{}/limits", certstore.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_certstore_is_visible_and_recovered_from() {
    let mut platform = Platform::start(Authority::Local).await;
    platform.certstore.kill();
    let name: DnsName = "shop.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    let certman = platform.certman_as("platform");
    loop {
        let status = certman.site(&name).await.unwrap().unwrap();
        if status.state == SiteState::Waiting {
            let order = status.order.unwrap();
            assert!(order.diagnosis.unwrap().contains("cannot reach") && order.retry_at.is_some());
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Changed twice more meanwhile: a version that certstore never saw is no obstacle.
    for port in [8001, 8002] {
        let upstream = format!("http://127.0.0.1:{port}").parse().unwrap();
        certman.put_site(&name, &SiteRequest { upstream, ..platform.request(&name) }).await.unwrap();
    }
    platform.restart_certstore();
    platform.wait_active(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_ca_is_visible_and_recovered_from() {
    let pebble = crate::pebble::Pebble::start(0);
    let later = free_address();
    let directory = format!("https://{later}/dir");
    let authority = Authority::Acme { directory: &directory, roots: &pebble.tls_root };
    let platform = Platform::start_with_http(authority, pebble.http).await;
    let name: DnsName = "shop.customers.test".parse().unwrap();
    platform.add_site(&name).await;
    let certman = platform.certman_as("platform");
    loop {
        let status = certman.site(&name).await.unwrap().unwrap();
        if let Some(diagnosis) = status.order.and_then(|order| order.diagnosis) {
            assert!(diagnosis.starts_with("the CA: "), "{diagnosis}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _proxy = crate::fault_proxy::FaultProxy::start_at(&pebble, later).await;
    platform.wait_active(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
        .arg(disk.path())
        .status()
        .is_ok_and(|status| status.success());
    assert!(mounted, "this test mounts a small tmpfs: run it as root");
    let _unmount = Unmount(disk.path());
    let mut platform = Platform::start(Authority::Local).await;
    platform.certstore.kill();
    let config = platform.dir.path().join("certstore.toml");
    let text = fs::read_to_string(&config).unwrap();
    let old = platform.dir.path().join("certstore");
    crate::process::run(Command::new("cp").arg("-r").arg(&old).arg(disk.path()));
    let text = text.replace(old.to_str().unwrap(), disk.path().join("certstore").to_str().unwrap());
    fs::write(&config, text.replace("reserve_bytes = 1048576", "reserve_bytes = 16777216")).unwrap();
    platform.restart_certstore();

    let (store, issuer) = (platform.store_as("certman"), issuer(&platform));
    let request = platform.request(&"shop.customers.test".parse().unwrap());
    let mut acknowledged = Vec::new();
    let (refused, problem) = loop {
        let site: DnsName = format!("n{}.customers.test", acknowledged.len()).parse().unwrap();
        // A large route: 90 long names.
        let long = (0..90).map(|i| format!("{}{i:02}.{}.{site}", "x".repeat(60), "y".repeat(60)).parse().unwrap());
        let route = Route {
            site: site.clone(),
            names: long.collect::<Vec<_>>().try_into().unwrap(),
            version: 1,
            pools: request.pools.clone(),
            upstreams: vec![request.upstream.clone().into()],
            https: HttpsMode::Redirect,
        };
        match store.put_route(&site, &issuer.sign(&route)).await {
            Ok(put) => assert!(put.changed),
            Err(ClientError::Refused(problem)) => break (site, problem),
            Err(other) => panic!("{other}\n{}", platform.certstore.log()),
        }
        acknowledged.push(site);
        assert!(acknowledged.len() < 10_000, "the disk never filled up");
    };
    assert_eq!(problem.kind, ProblemKind::Full, "{problem}");
    platform.certstore.kill();
    platform.restart_certstore();
    assert!(acknowledged.len() > 100, "only {} fitted", acknowledged.len());
    for site in &acknowledged {
        assert!(store.route(site).await.unwrap().is_some(), "{site} was acknowledged and is gone");
    }
    assert!(store.route(&refused).await.unwrap().is_none(), "the refused one was written");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_or_challenge_altered_in_the_store_is_not_acted_on() {
    let (mut platform, name) = with_one_site().await;
    let root = platform.pki("local-ca.pem");
    let token = "a-token";
    publish_challenge(&platform, &name, token).await;
    let path = format!("/.well-known/acme-challenge/{token}");
    assert!(platform.http(name.as_str(), &path).contains("a-token."), "the control: unaltered, it is answered");
    // As genuine, for a host that the edge has no route of.
    let unserved: DnsName = "unserved.customers.test".parse().unwrap();
    publish_challenge(&platform, &unserved, token).await;
    let answer = platform.http(unserved.as_str(), &path);
    assert!(answer.starts_with("HTTP/1.1 404"), "a host without a route was answered for: {answer}");

    // From here on the edge talks to a store that alters what it hands out.
    let hostile = HostileStore::start(&platform, Hostility::Alter).await;
    platform.lead_edge_to(hostile.address);
    let answer = platform.http(name.as_str(), &path);
    assert!(answer.starts_with("HTTP/1.1 404"), "an altered challenge was answered: {answer}");

    // The next version of the route reaches the edge with another upstream: the edge keeps the one it has.
    let elsewhere = free_address();
    let request = SiteRequest { upstream: format!("http://{elsewhere}").parse().unwrap(), ..platform.request(&name) };
    platform.certman_as("platform").put_site(&name, &request).await.unwrap();
    eventually(Duration::from_secs(10), || hostile.acted() > 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let output = platform.curl(&root, &name);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("hello from"), "{output:?}");
    assert!(platform.edge.log().contains("altered"), "{}", platform.edge.log());
    // A refused item is missing like a withheld one.
    eventually(Duration::from_secs(5), || platform.edge_gauge("certedge_withheld_items") == 1.0);
}

async fn publish_challenge(platform: &Platform, name: &DnsName, token: &str) {
    let store = platform.store_as("certman");
    let issuer = issuer(platform);
    let accounts = certseal_wire::AcmeAccounts { version: 1, thumbprints: vec!["our-print".into()] };
    store.put_accounts(&issuer.sign(&accounts)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (token, print) in [(token, "our-print"), ("foreign", "foreign-print")] {
        let challenge = Challenge {
            host: name.clone(),
            token: token.to_owned(),
            key_authorization: format!("{token}.{print}"),
            expires_at: Timestamp::now() + SignedDuration::from_hours(1),
            method: ChallengeMethod::Http,
        };
        store.put_challenge(name, token, &issuer.sign(&challenge)).await.unwrap();
    }
    // Genuine, but of an account that is not the platform's own.
    let answer = platform.http(name.as_str(), "/.well-known/acme-challenge/foreign");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

fn issuer(platform: &Platform) -> SigningKey {
    let key = SigningKey::from_pem(&fs::read_to_string(platform.pki("issuer.key")).unwrap()).unwrap();
    let public = VerifyingKey::from_pem(&fs::read_to_string(platform.pki("issuer.pub")).unwrap()).unwrap();
    assert_eq!(key.verifying_key(), public);
    key
}

fn make_identity(platform: &Platform, name: &str, lifetime: SignedDuration, uri: &str, authority: &str) {
    let read = |file: String| fs::read_to_string(platform.pki(&file)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read(format!("{authority}.key"))).unwrap();
    let ca = rcgen::Issuer::from_ca_cert_pem(&read(format!("{authority}.pem")), ca_key).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let now = std::time::SystemTime::now();
    let end = if lifetime.is_negative() { now - lifetime.unsigned_abs() } else { now + lifetime.unsigned_abs() };
    params.not_before = (now - Duration::from_secs(7200)).into();
    params.not_after = end.into();
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(platform.pki(&format!("{name}.pem")), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
    fs::write(platform.pki(&format!("{name}.key")), key.serialize_pem()).unwrap();
}

pub fn refused<T: std::fmt::Debug>(outcome: Result<T, ClientError>, kind: ProblemKind, says: &str) {
    match outcome {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.kind, kind, "{problem}");
            assert!(problem.detail.contains(says), "{problem}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}
