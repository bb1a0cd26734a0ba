//! Fetches of a challenge of our own over the addresses of a name, as a CA makes them by http-01 (RFC 8555, 8.3; `va/http.go` of
//! Boulder): from certman's own place, and through proxies from others.
//!
//! Customers choose the addresses, and whoever answers there chooses the redirects: [`Permitted`] addresses are connected to and no
//! others, for a few seconds, and little of an answer is read.
//!
//! Whether certman comes to the platform's edges from its place is not known beforehand: there may be no IPv6 here, or a firewall.
//! So a failure counts only if a fetch succeeds at one of the platform's addresses, for the same name or for another host. At an
//! address of the platform's own it does not count if the other host fails there in the same way: an edge is away then.

mod location;

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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

use self::location::Location;
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
    /// The last warning of edges that do not answer there.
    warned: Mutex<Option<Instant>>,
}

impl Place {
    /// The platform's addresses `away` give no answer here, whatever the host: that is for the operator to put right.
    fn warn_of(&self, away: &[IpAddr]) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_empty() || warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        let place = self.name.as_deref().unwrap_or("certman's own");
        tracing::warn!(place, ?away, "addresses of the platform give no answer to a challenge from there");
    }
}

/// A look at one site, which has its share of the fetches.
pub(super) struct SiteShare {
    /// The thumbprint of the key of the account that edges answer for.
    account: String,
    at_once: Semaphore,
}

impl SiteShare {
    pub(super) fn new(account: String) -> Arc<Self> {
        Arc::new(Self { account, at_once: Semaphore::new(AT_ONCE_OF_A_SITE) })
    }
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
        let mut places = vec![Place { name: None, proxy: None, warned: Mutex::default() }];
        for VantagePoint { name, proxy } in points {
            let is_new = places.iter().all(|place| place.name.as_ref() != Some(name));
            ensure!(
                !name.is_empty() && is_new,
                "expected a name of its own for each of dns.vantage_points, got {name:?}"
            );
            let (name, proxy) = (Some(name.clone()), Some(proxy_address(proxy)?));
            places.push(Place { name, proxy, warned: Mutex::default() });
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

    /// The outcomes of fetches for a name of a site at each of `addresses`, from all places.
    pub(super) async fn seen(
        self: &Arc<Self>,
        name: &DnsName,
        addresses: &[IpAddr],
        targets: &Targets,
        site: &Arc<SiteShare>,
    ) -> Vec<Perspective> {
        let mut places = JoinSet::new();
        for index in 0..self.places.len() {
            let (fetches, name, targets) = (self.clone(), name.clone(), targets.clone());
            let (addresses, site) = (addresses.to_vec(), site.clone());
            places.spawn(async move { (index, fetches.seen_from(index, &name, &addresses, &targets, &site).await) });
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
        site: &Arc<SiteShare>,
    ) -> Vec<(IpAddr, Fetched)> {
        let mut fetches = self.fetch_all(place, name, addresses, site).await;
        let mut reached = right(&fetches);
        let is_ours = |(address, fetched): &&(IpAddr, Fetched)| is_failure(fetched) && targets.is_ours(*address);
        let mut controls: Vec<IpAddr> = fetches.iter().filter(is_ours).map(|(address, _)| *address).collect();
        if fetches.iter().any(|(address, fetched)| !counts(*address, fetched, &reached)) {
            let own = || targets.addresses.iter().chain(&targets.found).copied();
            controls.extend(own().filter(IpAddr::is_ipv6).take(MOST_CONTROLS));
            controls.extend(own().filter(IpAddr::is_ipv4).take(MOST_CONTROLS));
        }
        controls.sort();
        controls.dedup();
        let controls = self.fetch_all(place, &self.control, &controls, site).await;
        reached.extend(right(&controls));
        let mut away = Vec::new();
        for (address, fetched) in &mut fetches {
            let fails_too = controls.iter().any(|(at, control)| *at == *address && is_alike(control, fetched));
            if is_failure(fetched) && targets.is_ours(*address) && fails_too {
                away.push(*address);
                *fetched = Fetched::NotAsked("the platform's own address does not answer from there".to_owned());
            } else if !counts(*address, fetched, &reached) {
                *fetched = Fetched::NotAsked("no edge of the platform answers from there either".to_owned());
            }
        }
        self.places[place].warn_of(&away);
        fetches
    }

    /// A fetch at each address that may be connected to.
    async fn fetch_all(
        self: &Arc<Self>,
        place: usize,
        name: &DnsName,
        addresses: &[IpAddr],
        site: &Arc<SiteShare>,
    ) -> Vec<(IpAddr, Fetched)> {
        let mut all = JoinSet::new();
        for address in addresses.iter().copied().filter(|address| self.permitted.allows(*address)) {
            let (fetches, name, site) = (self.clone(), name.clone(), site.clone());
            all.spawn(async move {
                // They are never closed.
                let _one = (site.at_once.acquire().await, fetches.at_once.acquire().await);
                (address, fetches.fetch(&fetches.places[place], &name, address, &site.account).await)
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

fn is_alike(one: &Fetched, other: &Fetched) -> bool {
    mem::discriminant(one) == mem::discriminant(other)
}

fn is_failure(fetched: &Fetched) -> bool {
    !matches!(fetched, Fetched::Right | Fetched::NotAsked(_))
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
/// Fetches under way at one time, and those of one site: its slow servers leave most places to the others.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_A_SITE: usize = 16;
/// Addresses of the platform, of each family, that are tried when those of a name fail, besides those of the name that are the
/// platform's own.
const MOST_CONTROLS: usize = 2;
/// For warnings of the platform's own addresses, from each place.
const WARN_EVERY: Duration = Duration::from_secs(600);
const MOST_VANTAGE_POINTS: usize = 8;

#[cfg(test)]
mod tests;
