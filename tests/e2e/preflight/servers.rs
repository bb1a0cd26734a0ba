//! Pre-flight beyond the DNS: what servers answer at the addresses of a name, and what a server of the platform says of names.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, Uri, header::HOST},
    routing::get,
};
use certseal_wire::{Challenge, DnsName, FindingCode, Readiness, SiteState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{count, in_own_network, waits_for_its_names, zone};
use crate::{
    name_lab::{BIND, Lab, Signing, UNBOUND, Zone, resolver},
    pebble::Pebble,
    platform::{Authority, Platform},
};

#[test]
fn a_challenge_of_our_own_is_fetched_as_a_ca_would_before_it_is_asked() {
    in_own_network(|| {
        tokio::runtime::Runtime::new().unwrap().block_on(fetch_beforehand());
    });
}

async fn fetch_beforehand() {
    let good = zone("good.com", &["www 2 IN A 127.0.0.1"]);
    let six = zone("six.com", &["www 2 IN A 127.0.0.1", "www 2 IN AAAA ::1"]);
    let geo = zone("geo.com", &["www 2 IN A 127.0.0.1"]);
    let zones = [good, six, geo].map(|zone| Zone { signing: Signing::Unsigned, ..zone });
    let lab = Lab::start(&zones, &[("com", &[]), ("net", &[])]);
    let pebble = Pebble::start_resolving(resolver(UNBOUND));
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    // At the platform's IPv6 address another server stands before the edges, and answers for one name itself.
    let port = pebble.http.port();
    let strange = |headers: HeaderMap, uri: Uri| async move {
        let is_kept = headers[HOST].to_str().unwrap().starts_with("www.six.com");
        let token = uri.path().rsplit('/').next().unwrap_or_default();
        match Challenge::probed(token).filter(|_| !is_kept) {
            Some(account) => (StatusCode::OK, format!("{token}.{account}")),
            None => (StatusCode::NOT_FOUND, "welcome to nginx".to_owned()),
        }
    };
    let strange = Router::new().fallback(strange);
    let listener = TcpListener::bind(("::1", port)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, strange).await.unwrap() });
    let proxy = keep_out("www.geo.com").await;
    platform.configure_authority(&format!(
        "[dns]\nresolvers = [\"{UNBOUND}\", \"{BIND}\"]\naddresses = [\"127.0.0.1\", \"::1\"]\n\
         private_networks = [\"127.0.0.0/8\", \"::1/128\"]\nfetch_port = {port}\n\
         vantage_points = [{{ name = \"us\", proxy = \"http://{proxy}\" }}]"
    ));
    let [good, six, geo] = ["www.good.com", "www.six.com", "www.geo.com"].map(|name| name.parse::<DnsName>().unwrap());
    platform.add_site(&good).await;
    platform.wait_active(&good, 1).await;
    // There was no account at the first look: from the next start on there is.
    platform.edit_certman(|text| text);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !platform.is_ready("man-telemetry") {
        assert!(Instant::now() < deadline, "certman does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let requests = |platform: &Platform| count(&platform.metrics("man-telemetry"), "certman_acme_requests_total");
    let before = requests(&platform);
    for (name, code, said) in [
        (&six, FindingCode::FetchFailsSomewhere, "welcome to nginx"),
        (&geo, FindingCode::FetchFailsElsewhere, "from us"),
    ] {
        platform.add_site(name).await;
        let dns = waits_for_its_names(&platform, name).await.dns.unwrap();
        let finding = &dns.names[0].findings[0];
        assert_eq!((dns.readiness, finding.code), (Readiness::NotReady, code), "{dns:?}");
        assert!(finding.detail.contains(said), "{finding:?}");
    }
    assert_eq!(requests(&platform), before, "the CA was asked for names that it cannot validate");

    // An edge answers for our own accounts only.
    let token = Challenge::probe(7, "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ");
    let answer = platform.http("www.good.com", &format!("/.well-known/acme-challenge/{token}"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    lab.change(&[Zone { signing: Signing::Unsigned, ..zone("six.com", &["www 2 IN A 127.0.0.1"]) }]);
    let deadline = Instant::now() + Duration::from_secs(90);
    while !platform.certctl(&["dns", "check", "www.six.com"]).status.success() {
        assert!(Instant::now() < deadline, "still not ready");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    platform.wait_active(&six, 1).await;
}

#[test]
fn a_name_of_bad_repute_gets_no_first_certificate_and_none_comes_while_nobody_says() {
    in_own_network(|| {
        tokio::runtime::Runtime::new().unwrap().block_on(ask_for_repute());
    });
}

async fn ask_for_repute() {
    let names = ["good.com", "bad.com", "late.com"];
    let zones = names.map(|name| Zone { signing: Signing::Unsigned, ..zone(name, &["www 2 IN A 127.0.0.1"]) });
    let _lab = Lab::start(&zones, &[("com", &[])]);
    let pebble = Pebble::start_resolving(resolver(UNBOUND));
    let authority = Authority::Acme { directory: &pebble.directory(), roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/lookup/{{name}}", listener.local_addr().unwrap());
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let lookup = move |Path(name): Path<String>| {
        let answer = match name.as_str() {
            _ if away.load(Ordering::Relaxed) => (StatusCode::BAD_GATEWAY, ""),
            "www.bad.com" => (StatusCode::OK, r#"{"listed": true, "why": "phishing"}"#),
            _ => (StatusCode::OK, r#"{"listed": false}"#),
        };
        async move { answer }
    };
    let app = Router::new().route("/lookup/{name}", get(lookup));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let roots = platform.pki("ca.pem");
    platform.configure_authority(&format!(
        "[dns]\nresolvers = [\"{UNBOUND}\", \"{BIND}\"]\naddresses = [\"127.0.0.1\"]\nfetch = false\n\
         private_networks = [\"127.0.0.0/8\"]\n\
         [dns.reputation]\nurl = \"{url}\"\nroots = {roots:?}\nunavailable = \"refuse\""
    ));
    let [good, bad, late] = names.map(|name| format!("www.{name}").parse::<DnsName>().unwrap());
    platform.add_site(&good).await;
    platform.wait_active(&good, 1).await;
    platform.add_site(&bad).await;
    let dns = waits_for_its_names(&platform, &bad).await.dns.unwrap();
    let finding = &dns.names[0].findings[0];
    assert_eq!((dns.readiness, finding.code), (Readiness::NotReady, FindingCode::Denied), "{dns:?}");
    assert!(finding.detail.contains("phishing"), "{finding:?}");
    // Somebody who has the order tried all the same gets none either.
    let certman = platform.certman_as("platform");
    certman.retry_order(&bad).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = certman.site(&bad).await.unwrap().unwrap();
        assert_eq!(status.version, 0, "{status:?}");
        if status.state == SiteState::Failed {
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    is_away.store(true, Ordering::Relaxed);
    platform.add_site(&late).await;
    let dns = waits_for_its_names(&platform, &late).await.dns.unwrap();
    assert_eq!(dns.readiness, Readiness::Unknown, "{dns:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(platform.certman_as("platform").site(&late).await.unwrap().unwrap().version, 0);
    is_away.store(false, Ordering::Relaxed);
    platform.wait_active(&late, 1).await;
}

/// A proxy that lets nobody come to `host`, and everybody to others.
async fn keep_out(host: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut visitor, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = head_of(&mut visitor).await;
                let to = head.split(' ').nth(1).unwrap().to_owned();
                let Ok(mut there) = TcpStream::connect(to).await else {
                    let _ = visitor.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
                    return;
                };
                visitor.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let request = head_of(&mut visitor).await;
                if request.contains(host) {
                    let _ = visitor.write_all(b"HTTP/1.1 451 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
                    return;
                }
                there.write_all(request.as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut visitor, &mut there).await;
            });
        }
    });
    address
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
    String::from_utf8(head).unwrap()
}
