//! Fetches of a challenge of our own over the addresses of a name, as a CA makes them by http-01 (RFC 8555, 8.3; `va/http.go` of
//! Boulder): from certman's own place, and through proxies from others.
//!
//! Customers choose the addresses, and whoever answers there chooses the redirects: [`Permitted`] addresses are connected to and no
//! others, for a few seconds, and little of an answer is read.
//!
//! Whether certman comes to the platform's edges from its place is not known beforehand: there may be no IPv6 here, or a firewall.
//! So a failure counts only if a fetch succeeds at one of the platform's addresses, for the same name or for another host.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use certseal_dns::Survey;
use certseal_issuance::preflight::{Fetched, Perspective, StrangeAnswer, Targets};
use certseal_service::networks::{Denied, NOT_PUBLIC, Network};
use certseal_wire::{Challenge, DnsName, causes};
use http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{CONNECTION, HOST, HeaderName, LOCATION, SERVER, USER_AGENT},
};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{Dns, VantagePoint},
    presented::{self, Presented},
};

/// Fetches, some at a time.
pub(super) struct Fetches {
    port: u16,
    places: Vec<Place>,
    permitted: Permitted,
    survey: Survey,
    /// A host that the platform's edges answer for, whatever becomes of the customers'.
    control: DnsName,
    tls: TlsConnector,
    at_once: Semaphore,
}

/// A place from which a fetch is made.
struct Place {
    /// None for certman's own.
    name: Option<String>,
    /// The HTTP proxy there, with its port.
    proxy: Option<String>,
}

/// The addresses that may be connected to, of those that customers name.
#[derive(Debug, Clone)]
pub(super) struct Permitted {
    denied: Denied,
    private: Arc<[Network]>,
}

impl Permitted {
    /// Public addresses, and those of `private` networks.
    pub(super) fn new(private: &[Network]) -> Self {
        Self { denied: Denied::new(&NOT_PUBLIC), private: private.into() }
    }

    pub(super) fn allows(&self, address: IpAddr) -> bool {
        self.denied.allows(address) || self.private.iter().any(|network| network.contains(address))
    }
}

impl Fetches {
    /// # Errors
    /// When a vantage point is none.
    pub(super) fn new(config: &Dns, survey: Survey, permitted: Permitted) -> anyhow::Result<Self> {
        let points = &config.vantage_points;
        ensure!(
            points.len() <= MOST_VANTAGE_POINTS,
            "expected at most {MOST_VANTAGE_POINTS} dns.vantage_points, got {}",
            points.len()
        );
        let mut places = vec![Place { name: None, proxy: None }];
        for VantagePoint { name, proxy } in points {
            let is_new = places.iter().all(|place| place.name.as_ref() != Some(name));
            ensure!(
                !name.is_empty() && is_new,
                "expected a name of its own for each of dns.vantage_points, got {name:?}"
            );
            places.push(Place { name: Some(name.clone()), proxy: Some(proxy_address(proxy)?) });
        }
        let control = match &config.target {
            Some(target) => target.clone(),
            None => ANY_HOST.parse().context("the host that stands for a platform without a target")?,
        };
        let mut tls = presented::client(Presented::Any)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            port: config.fetch_port,
            places,
            permitted,
            survey,
            control,
            tls: TlsConnector::from(Arc::new(tls)),
            at_once: Semaphore::new(AT_ONCE),
        })
    }

    /// The outcomes of fetches for a name at each of `addresses`, from all places. Edges answer for `account`, which is the
    /// thumbprint of its key.
    pub(super) async fn seen(
        self: &Arc<Self>,
        name: &DnsName,
        addresses: &[IpAddr],
        targets: &Targets,
        account: &str,
    ) -> Vec<Perspective> {
        let mut places = JoinSet::new();
        for index in 0..self.places.len() {
            let (fetches, name, targets) = (self.clone(), name.clone(), targets.clone());
            let (addresses, account) = (addresses.to_vec(), account.to_owned());
            places.spawn(async move { (index, fetches.seen_from(index, &name, &addresses, &targets, &account).await) });
        }
        let mut seen = places.join_all().await;
        seen.sort_by_key(|(index, _)| *index);
        let named = |(index, fetches): (usize, Vec<(IpAddr, Fetched)>)| Perspective {
            vantage_point: self.places[index].name.clone(),
            fetches,
        };
        seen.into_iter().map(named).collect()
    }

    async fn seen_from(
        self: &Arc<Self>,
        place: usize,
        name: &DnsName,
        addresses: &[IpAddr],
        targets: &Targets,
        account: &str,
    ) -> Vec<(IpAddr, Fetched)> {
        let mut fetches = self.fetch_all(place, name, addresses, account).await;
        let mut reached = right(&fetches);
        if fetches.iter().any(|(address, fetched)| !counts(*address, fetched, &reached)) {
            let own = || targets.addresses.iter().chain(&targets.found).copied();
            let ipv6 = own().filter(IpAddr::is_ipv6).take(MOST_CONTROLS);
            let ipv4 = own().filter(IpAddr::is_ipv4).take(MOST_CONTROLS);
            let controls: Vec<IpAddr> = ipv6.chain(ipv4).collect();
            reached.extend(right(&self.fetch_all(place, &self.control, &controls, account).await));
        }
        for (address, fetched) in &mut fetches {
            if !counts(*address, fetched, &reached) {
                *fetched = Fetched::NotAsked("no edge of the platform answers from there either".to_owned());
            }
        }
        fetches
    }

    /// A fetch at each address that may be connected to.
    async fn fetch_all(
        self: &Arc<Self>,
        place: usize,
        name: &DnsName,
        addresses: &[IpAddr],
        account: &str,
    ) -> Vec<(IpAddr, Fetched)> {
        let mut all = JoinSet::new();
        for address in addresses.iter().copied().filter(|address| self.permitted.allows(*address)) {
            let (fetches, name, account) = (self.clone(), name.clone(), account.to_owned());
            all.spawn(async move {
                // It is never closed.
                let _one = fetches.at_once.acquire().await;
                (address, fetches.fetch(&fetches.places[place], &name, address, &account).await)
            });
        }
        let mut all = all.join_all().await;
        all.sort_by_key(|(address, _)| (address.is_ipv4(), *address));
        all
    }

    async fn fetch(&self, place: &Place, name: &DnsName, address: IpAddr, account: &str) -> Fetched {
        let mut nonce = [0; 16];
        if let Err(error) = getrandom::fill(&mut nonce) {
            return Fetched::NotAsked(format!("no randomness: {error}"));
        }
        let token = Challenge::probe(u128::from_be_bytes(nonce), account);
        let expected = format!("{token}.{account}");
        let path = format!("{CHALLENGES}{token}");
        let first = Location { host: name.clone(), port: self.port, is_tls: false, path };
        match tokio::time::timeout(PATIENCE, self.follow(place, first, address)).await {
            Ok(Ok(answer)) if answer.is(&expected) => Fetched::Right,
            Ok(Ok(answer)) => Fetched::Strange(answer.strange()),
            Ok(Err(fetched)) => fetched,
            Err(_) => Fetched::Broken(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// The answer at the end of all redirects.
    async fn follow(&self, place: &Place, first: Location, address: IpAddr) -> Result<Answer, Fetched> {
        let (name, mut at, mut is_first) = (first.host.clone(), first, true);
        for _ in 0..=MOST_REDIRECTS {
            let connected = if at.host == name {
                self.connect(place, SocketAddr::new(address, at.port)).await
            } else {
                self.connect_elsewhere(place, &at).await
            };
            let stream = connected.map_err(|error| match error {
                NoConnection::Unreachable(why) if is_first => Fetched::Unreachable(why),
                NoConnection::Unreachable(why) => {
                    Fetched::Broken(format!("it leads to {at}, where no connection comes about ({why})"))
                }
                NoConnection::NotAsked(why) => Fetched::NotAsked(why),
            })?;
            let answer = self.get(stream, &at).await.map_err(|why| {
                Fetched::Broken(if is_first { why } else { format!("it leads to {at}, where no answer comes: {why}") })
            })?;
            let Some(location) = &answer.location else { return Ok(answer) };
            let next = at.redirected(location, self.port);
            at = next.map_err(|why| Fetched::Broken(format!("it leads to {location}, where CAs do not go: {why}")))?;
            is_first = false;
        }
        Err(Fetched::LeadsOn(at.to_string()))
    }

    /// A connection to another host than the one that is looked at.
    async fn connect_elsewhere(&self, place: &Place, at: &Location) -> Result<TcpStream, NoConnection> {
        let mut found = self.survey.addresses(&at.host).await;
        found.retain(|address| self.permitted.allows(*address));
        let ipv6 = found.iter().copied().find(IpAddr::is_ipv6);
        let ipv4 = found.iter().copied().find(IpAddr::is_ipv4);
        let mut outcome = Err(NoConnection::Unreachable("it has no public address".to_owned()));
        for address in [ipv6, ipv4].into_iter().flatten() {
            outcome = self.connect(place, SocketAddr::new(address, at.port)).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn connect(&self, place: &Place, to: SocketAddr) -> Result<TcpStream, NoConnection> {
        let connect = async {
            match &place.proxy {
                Some(proxy) => through(proxy, to).await,
                None => TcpStream::connect(to).await.map_err(|error| NoConnection::Unreachable(error.to_string())),
            }
        };
        let late = |_| Err(NoConnection::Unreachable(format!("none within {} s", CONNECT.as_secs())));
        tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(late)
    }

    async fn get(&self, stream: TcpStream, at: &Location) -> Result<Answer, String> {
        if !at.is_tls {
            return exchange(stream, at).await;
        }
        let name = ServerName::try_from(at.host.to_string()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| format!("no TLS: {error}"))?;
        exchange(stream, at).await
    }
}

/// The addresses at which our answer came.
fn right(fetches: &[(IpAddr, Fetched)]) -> Vec<IpAddr> {
    fetches.iter().filter(|(_, fetched)| *fetched == Fetched::Right).map(|(address, _)| *address).collect()
}

/// Whether an outcome is to be taken for one of the name: `reached` are addresses at which our answer came.
fn counts(address: IpAddr, fetched: &Fetched, reached: &[IpAddr]) -> bool {
    match fetched {
        Fetched::Right | Fetched::NotAsked(_) => true,
        Fetched::Unreachable(_) => reached.iter().any(|other| other.is_ipv4() == address.is_ipv4()),
        Fetched::Broken(_) | Fetched::Strange(_) | Fetched::LeadsOn(_) => !reached.is_empty(),
    }
}

/// Why there is no connection.
enum NoConnection {
    Unreachable(String),
    /// The vantage point is at fault.
    NotAsked(String),
}

/// A connection through a proxy (RFC 9110, 9.3.6). It is told the address, so that nothing is looked up there.
async fn through(proxy: &str, to: SocketAddr) -> Result<TcpStream, NoConnection> {
    let away = |error: io::Error| NoConnection::NotAsked(format!("the proxy {proxy} is away: {error}"));
    let mut stream = TcpStream::connect(proxy).await.map_err(away)?;
    stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.map_err(away)?;
    let mut head = Vec::new();
    while !head.windows(4).any(|octets| octets == b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await.map_err(away)?;
        if read == 0 || head.len() > MOST_HEAD {
            return Err(NoConnection::NotAsked(format!("expected an answer of HTTP from the proxy {proxy}")));
        }
    }
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.split(' ').nth(1)?.parse::<u16>().ok());
    match status.unwrap_or_default() {
        200..=299 => Ok(stream),
        status @ 502..=504 => Err(NoConnection::Unreachable(format!("the proxy answers {status}"))),
        status => Err(NoConnection::NotAsked(format!("the proxy {proxy} answers {status} to CONNECT {to}"))),
    }
}

/// The host and the port of a proxy.
fn proxy_address(text: &str) -> anyhow::Result<String> {
    let expected = || format!("expected dns.vantage_points.proxy such as http://10.1.2.3:3128, got {text:?}");
    let url = text.parse::<Uri>().with_context(expected)?;
    ensure!(url.scheme_str() == Some("http") && matches!(url.path(), "" | "/"), expected());
    let (host, port) = (url.host().with_context(expected)?, url.port_u16().with_context(expected)?);
    Ok(format!("{host}:{port}"))
}

/// A place that a fetch is led to.
struct Location {
    host: DnsName,
    port: u16,
    is_tls: bool,
    /// With the query.
    path: String,
}

impl Location {
    fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The host, with the port where it is not the usual one.
    fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The place that a redirect leads to, if a CA goes there: to a host with a name, by HTTP or HTTPS on their usual ports, or on
    /// `port`, where fetches begin.
    fn redirected(&self, location: &str, port: u16) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = self.scheme();
        let is_scheme =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let whole = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.split_once(':').is_some_and(|(first, _)| is_scheme(first)) {
            location.to_owned()
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority())
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{}{folder}/{location}", self.authority())
        };
        let url = whole.parse::<Uri>().map_err(|error| error.to_string())?;
        let is_tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("expected http or https".to_owned()),
        };
        let host = url.host().unwrap_or_default().trim_end_matches('.');
        let host = host.parse::<DnsName>().map_err(|error| error.to_string())?;
        let to = url.port_u16().unwrap_or(if is_tls { 443 } else { port });
        if ![80, 443, port].contains(&to) {
            return Err(format!("expected port 80 or 443, got {to}"));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: to, is_tls, path })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path)
    }
}

/// An answer, as far as it was read.
struct Answer {
    status: StatusCode,
    server: Option<String>,
    location: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// Whether it is the answer that a CA expects. White space at the end is no part of it (RFC 8555, 8.3).
    fn is(&self, expected: &str) -> bool {
        self.status == StatusCode::OK && self.body.trim_ascii_end() == expected.as_bytes()
    }

    fn strange(self) -> StrangeAnswer {
        let said = String::from_utf8_lossy(&self.body).into_owned();
        StrangeAnswer { status: self.status.as_u16(), server: self.server, said }
    }
}

async fn exchange<S>(stream: S, at: &Location) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let said = |error: hyper::Error| causes(&error);
    let mut http = http1::Builder::new();
    http.max_buf_size(MOST_HEAD);
    let (mut sender, connection) = http.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(said)?;
    // The connection ends with this function, whatever the other side still sends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(&at.path)
        .header(HOST, at.authority())
        .header(USER_AGENT, "certman, before an order")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(said)?;
    let text = |name: HeaderName| {
        let value: Option<&HeaderValue> = response.headers().get(name);
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, server) = (response.status(), text(SERVER));
    let location = text(LOCATION).filter(|_| REDIRECTS.contains(&status.as_u16()));
    let (mut body, mut rest) = (Vec::new(), response.into_body());
    while location.is_none() && body.len() < MOST_BODY {
        let Some(frame) = rest.frame().await else { break };
        if let Ok(data) = frame.map_err(said)?.into_data() {
            body.extend_from_slice(&data[..data.len().min(MOST_BODY - body.len())]);
        }
    }
    Ok(Answer { status, server, location, body })
}

/// RFC 8555, 8.3.
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// A host that no customer has (RFC 2606, 2), for platforms without a target.
const ANY_HOST: &str = "edge.certseal.invalid";

/// For a connection, and for the answer with all redirects.
const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
/// Redirects that CAs follow, and the statuses of those.
const MOST_REDIRECTS: usize = 10;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// Octets of an answer's head, and of its body: our own answer is shorter, and no more of another one is shown.
const MOST_HEAD: usize = 16 * 1024;
const MOST_BODY: usize = 1024;
/// Fetches under way at one time.
const AT_ONCE: usize = 64;
/// Addresses of the platform, of each family, that are tried when those of a name fail.
const MOST_CONTROLS: usize = 2;
const MOST_VANTAGE_POINTS: usize = 8;

#[cfg(test)]
mod tests {
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
        let seen = fetches.seen(&name.parse().unwrap(), &["127.0.0.1".parse().unwrap()], &targets(), ACCOUNT).await;
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
    async fn addresses_that_are_not_public_are_not_connected_to() {
        let edge = serve(|_, path| as_an_edge(path)).await;
        let fetches = fetches(edge.port(), "").unwrap();
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "::1", "169.254.169.254"].iter().map(|text| text.parse().unwrap()).collect();
        let seen = fetches.seen(&"a.example.com".parse().unwrap(), &addresses, &targets(), ACCOUNT).await;
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

    #[test]
    fn redirects_lead_where_cas_go_and_nowhere_else() {
        let at = Location { host: "a.example".parse().unwrap(), port: 80, is_tls: false, path: "/x/y?z".to_owned() };
        let led = |location: &str| at.redirected(location, 80).map(|to| to.to_string());
        for (location, to) in [
            ("/p?q", "http://a.example/p?q"),
            ("p", "http://a.example/x/p"),
            ("https://b.example/p#f", "https://b.example/p"),
            ("//B.example:443/p", "http://b.example:443/p"),
            ("http://b.example.", "http://b.example/"),
        ] {
            assert_eq!(led(location).as_deref(), Ok(to), "{location}");
        }
        for bad in [
            "ftp://b.example/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://b.example:8080/",
            "http://localhost/",
            "a:b",
        ] {
            assert!(led(bad).is_err(), "{bad}: {:?}", led(bad));
        }
    }
}
