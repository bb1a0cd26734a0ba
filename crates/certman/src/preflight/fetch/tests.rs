//! Fetches from servers of all kinds.

use tokio::net::TcpListener;

use super::*;

const ACCOUNT: &str = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";

fn fetches(port: u16, more: &str) -> anyhow::Result<Arc<Fetches>> {
    let text = format!(
        "resolvers = []\ntarget = \"edge.example.net\"\naddresses = [\"127.0.0.1\"]\nfetch_port = {port}\n\
         private_networks = [\"127.0.0.0/8\"]\n{more}"
    );
    let config: Dns = toml::from_str(&text).unwrap();
    let survey = Survey::new([], certseal_dns::AllowedServers::new(|_| false));
    let permitted = Permitted::new(&config.private_networks);
    Ok(Arc::new(Fetches::new(&config, survey, permitted)?))
}

fn targets() -> Targets {
    Targets { addresses: vec!["127.0.0.1".parse().unwrap()], ..Targets::default() }
}

/// A server that answers requests by their host and path: with a status line and headers, and with a body.
async fn serve(answer: fn(&str, &str) -> (String, String)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = String::from_utf8(head_of(&mut stream).await).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
                let (head, body) = answer(host, path);
                let whole = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(whole.as_bytes()).await;
            });
        }
    });
    address
}

async fn head_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
    head
}

fn as_an_edge(path: &str) -> (String, String) {
    let token = path.strip_prefix(CHALLENGES).unwrap();
    ("200 OK".to_owned(), format!("{token}.{}\n", Challenge::probed(token).unwrap()))
}

fn among_others(host: &str, path: &str) -> (String, String) {
    match host.split(':').next().unwrap() {
        "strange.example.com" => ("404 Not Found\r\nserver: nginx".to_owned(), "no such file".repeat(1000)),
        "circle.example.com" => ("302 Found\r\nlocation: /again".to_owned(), String::new()),
        "away.example.com" => ("302 Found\r\nlocation: ftp://a.example/".to_owned(), String::new()),
        "once.example.com" if !path.ends_with("?again") => {
            (format!("301 Moved Permanently\r\nlocation: {path}?again"), String::new())
        }
        _ => as_an_edge(path.trim_end_matches("?again")),
    }
}

/// What is seen of a name at 127.0.0.1.
async fn seen(fetches: &Arc<Fetches>, name: &str) -> Vec<Fetched> {
    let addresses = [IpAddr::from([127, 0, 0, 1])];
    let site = SiteShare::new(ACCOUNT.to_owned());
    let seen = fetches.seen(&name.parse().unwrap(), &addresses, &targets(), &site).await;
    seen.into_iter().flat_map(|place| place.fetches).map(|(_, fetched)| fetched).collect()
}

#[tokio::test]
async fn a_fetch_tells_our_answer_from_others_and_follows_redirects_as_cas_do() {
    let server = serve(among_others).await;
    let fetches = fetches(server.port(), "").unwrap();
    assert_eq!(seen(&fetches, "good.example.com").await, [Fetched::Right]);
    assert_eq!(seen(&fetches, "once.example.com").await, [Fetched::Right]);
    let strange = seen(&fetches, "strange.example.com").await;
    let [Fetched::Strange(StrangeAnswer { status: 404, server: Some(server), said })] = &strange[..] else {
        panic!("{strange:?}")
    };
    assert_eq!((server.as_str(), said.len()), ("nginx", MOST_BODY));
    let circle = seen(&fetches, "circle.example.com").await;
    assert!(matches!(&circle[..], [Fetched::LeadsOn(at)] if at.contains("/again")), "{circle:?}");
    let away = seen(&fetches, "away.example.com").await;
    assert!(matches!(&away[..], [Fetched::Broken(why)] if why.contains("ftp://")), "{away:?}");
}

#[tokio::test]
async fn a_failure_that_the_platform_has_too_says_nothing_of_a_name() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failed = seen(&fetches(nobody.port(), "").unwrap(), "good.example.com").await;
    assert!(matches!(failed[..], [Fetched::NotAsked(_)]), "{failed:?}");
    // An edge of a release before answers no probe.
    let old = serve(|_, _| ("404 Not Found".to_owned(), String::new())).await;
    let failed = seen(&fetches(old.port(), "").unwrap(), "good.example.com").await;
    assert!(matches!(failed[..], [Fetched::NotAsked(_)]), "{failed:?}");
}

#[tokio::test]
async fn an_edge_that_is_away_is_no_failure_of_the_names_that_lead_to_it() {
    let edge = serve(|_, path| as_an_edge(path)).await;
    let fetches = fetches(edge.port(), "").unwrap();
    // Nobody listens at the second and the third.
    let addresses = [1, 2, 3].map(|last: u8| IpAddr::from([127, 0, 0, last]));
    let targets = Targets { addresses: addresses[..2].to_vec(), ..Targets::default() };
    let site = SiteShare::new(ACCOUNT.to_owned());
    let seen = fetches.seen(&"a.example.com".parse().unwrap(), &addresses, &targets, &site).await;
    let seen: Vec<_> = seen.into_iter().flat_map(|place| place.fetches).map(|(_, fetched)| fetched).collect();
    let [Fetched::Right, Fetched::NotAsked(why), Fetched::Unreachable(_)] = &seen[..] else { panic!("{seen:?}") };
    assert!(why.contains("platform's own"), "{why}");
    let warned = *fetches.places[0].warned.lock().unwrap();
    assert!(warned.is_some(), "nobody tells the operator");
}

#[tokio::test]
async fn a_site_with_slow_servers_leaves_fetches_to_others() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let fetches = fetches(listener.local_addr().unwrap().port(), "").unwrap();
    let (slow, mut kept) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let slow = slow.clone();
            tokio::spawn(async move {
                let head = String::from_utf8(head_of(&mut stream).await).unwrap();
                if head.contains("slow.example.com") {
                    let _ = slow.send(stream);
                    return;
                }
                let (head, body) = as_an_edge(head.split(' ').nth(1).unwrap_or_default());
                let whole = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(whole.as_bytes()).await;
            });
        }
    });
    let (all, site) = (fetches.clone(), SiteShare::new(ACCOUNT.to_owned()));
    let addresses: Vec<IpAddr> = (1..=100_u8).map(|last| IpAddr::from([127, 0, 0, last])).collect();
    tokio::spawn(async move {
        all.seen(&"slow.example.com".parse().unwrap(), &addresses, &targets(), &site).await;
    });
    let mut open = Vec::new();
    while open.len() < AT_ONCE_OF_A_SITE {
        open.push(kept.recv().await.unwrap());
    }
    let quick = tokio::time::timeout(PATIENCE / 2, seen(&fetches, "quick.example.com")).await;
    assert_eq!(quick.expect("a site holds all fetches"), [Fetched::Right]);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_connected_to() {
    let edge = serve(|_, path| as_an_edge(path)).await;
    let fetches = fetches(edge.port(), "").unwrap();
    let addresses: Vec<IpAddr> =
        ["10.0.0.1", "::1", "169.254.169.254"].iter().map(|text| text.parse().unwrap()).collect();
    let site = SiteShare::new(ACCOUNT.to_owned());
    let seen = fetches.seen(&"a.example.com".parse().unwrap(), &addresses, &targets(), &site).await;
    assert!(seen.iter().all(|place| place.fetches.is_empty()), "{seen:?}");
}

#[tokio::test]
async fn a_vantage_point_is_a_proxy_that_is_told_the_address() {
    let edge = serve(|_, path| as_an_edge(path)).await;
    let refusing = serve(|_, _| ("403 Forbidden".to_owned(), String::new())).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut visitor, _) = proxy.accept().await.unwrap();
            let head = head_of(&mut visitor).await;
            assert!(head.starts_with(format!("CONNECT {edge} HTTP/1.1\r\n").as_bytes()));
            let mut there = TcpStream::connect(edge).await.unwrap();
            visitor.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut visitor, &mut there).await;
        }
    });
    let points = format!(
        "vantage_points = [{{ name = \"us\", proxy = \"http://{address}\" }}, \
         {{ name = \"asia\", proxy = \"http://{refusing}\" }}]"
    );
    let seen = seen(&fetches(edge.port(), &points).unwrap(), "good.example.com").await;
    let [Fetched::Right, Fetched::Right, Fetched::NotAsked(why)] = &seen[..] else { panic!("{seen:?}") };
    assert!(why.contains("403"), "{why}");
}

#[test]
fn vantage_points_that_are_none_are_refused_at_the_start() {
    for bad in [
        "{ name = \"us\", proxy = \"https://10.0.0.1:3128\" }",
        "{ name = \"us\", proxy = \"http://10.0.0.1\" }",
        "{ name = \"\", proxy = \"http://10.0.0.1:3128\" }",
        "{ name = \"us\", proxy = \"http://10.0.0.1:1\" }, { name = \"us\", proxy = \"http://10.0.0.1:2\" }",
    ] {
        let error = fetches(80, &format!("vantage_points = [{bad}]")).err().unwrap();
        assert!(format!("{error:#}").contains("expected"), "{error:#}");
    }
}
