//! One service, reached over pooled mTLS connections: a daemon, or several that share a database.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use certseal_wire::{Problem, causes};
use http::{Method, Request, Response, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use serde::{Serialize, de::DeserializeOwned};

/// Where a service is: origins such as `https://certstore-1.internal:7443`, separated by commas. All of them serve the
/// same; one that does not answer, or has no room for it, is left for the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<Uri>);

impl FromStr for Origins {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::BadUrl(text.chars().take(200).collect());
        let origins: Vec<Uri> =
            text.split(',').map(|origin| origin.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
        let is_origin = |uri: &Uri| uri.scheme_str() == Some("https") && uri.authority().is_some() && uri.path() == "/";
        if origins.len() > MAX_ORIGINS || !origins.iter().all(is_origin) {
            return Err(bad());
        }
        Ok(Self(origins))
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, origin) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{origin}")?;
        }
        Ok(())
    }
}

/// A service's addresses and the connections to it.
#[derive(Debug, Clone)]
pub struct Connection {
    origins: Arc<[Uri]>,
    /// The index of the origin that answered last; shared by all clones.
    current: Arc<AtomicUsize>,
    transport: Transport,
}

/// How requests reach the service.
#[derive(Clone)]
enum Transport {
    Network(Arc<Mutex<Http>>),
    InProcess(Arc<dyn Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync>),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network(_) => "Network",
            Self::InProcess(_) => "InProcess",
        })
    }
}

/// The configuration of a connection's TLS handshakes.
pub struct Tls(Box<dyn Fn() -> Arc<ClientConfig> + Send + Sync>);

/// The current configuration: when it is another one, connections are made anew.
impl<F: Fn() -> Arc<ClientConfig> + Send + Sync + 'static> From<F> for Tls {
    fn from(current: F) -> Self {
        Self(Box::new(current))
    }
}

/// One that stays as it is.
impl From<ClientConfig> for Tls {
    fn from(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        Self::from(move || config.clone())
    }
}

/// Open connections, and what they were made by.
struct Http {
    tls: Tls,
    config: Arc<ClientConfig>,
    pool: Pool,
}

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Http {
    fn new(tls: Tls) -> Self {
        let config = (tls.0)();
        Self { pool: Self::pool(&config), config, tls }
    }

    /// Connections whose peers were accepted by what counts now: a certificate may have been revoked since, and whoever
    /// has it would keep a connection open for ever.
    fn current(&mut self) -> Pool {
        let config = (self.tls.0)();
        if !Arc::ptr_eq(&config, &self.config) {
            (self.pool, self.config) = (Self::pool(&config), config);
        }
        self.pool.clone()
    }

    fn pool(config: &ClientConfig) -> Pool {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config.clone())
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector)
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is not one of a daemon.
    #[error("expected up to 16 URLs such as https://certstore.internal:7443, separated by commas, got {0}")]
    BadUrl(String),
    /// No connection, or it broke.
    #[error("cannot reach {base}: {detail}")]
    Unreachable {
        /// The daemon's URL.
        base: Uri,
        /// The chain of causes.
        detail: String,
    },
    /// No answer in time.
    #[error("no answer from {base} within {seconds} s")]
    TimedOut {
        /// The daemon's URL.
        base: Uri,
        /// How long was waited.
        seconds: u64,
    },
    /// The daemon says no, and why.
    #[error("{0}")]
    Refused(Problem),
    /// The answer is not one that this version understands.
    #[error("{base} answered {status}, which is not what was expected: {detail}")]
    Unexpected {
        /// The daemon's URL.
        base: Uri,
        /// The HTTP status.
        status: StatusCode,
        /// The defect of the answer.
        detail: String,
    },
}

impl ClientError {
    /// Whether the same call may succeed later without a change.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused(problem) => problem.status == 503,
            _ => false,
        }
    }
}

impl Connection {
    /// A connection to the service at `origins`. Nothing is sent yet.
    pub fn new(origins: Origins, tls: impl Into<Tls>) -> Self {
        let transport = Transport::Network(Arc::new(Mutex::new(Http::new(tls.into()))));
        Self { origins: origins.0.into(), current: Arc::default(), transport }
    }

    /// A connection to whatever `answer` is, in this process: requests and answers are those of the network, and there is
    /// none. For a service that is embedded, and for tests that need very many requests.
    pub fn in_process(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        let origins = Arc::new([Uri::from_static("https://in-process")]);
        Self { origins, current: Arc::default(), transport: Transport::InProcess(Arc::new(answer)) }
    }

    pub(crate) async fn bytes(&self, call: Call<'_>) -> Result<Option<Bytes>, ClientError> {
        let (status, body) = self.send(call).await?;
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(status, &body)),
        }
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let (status, body) = self.send(call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        self.parse(status, &body)
    }

    /// Like [`Self::json`], but None when there is no such thing.
    pub(crate) async fn found_json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Option<T>, ClientError> {
        match self.bytes(call).await? {
            Some(body) => self.parse(StatusCode::OK, &body).map(Some),
            None => Ok(None),
        }
    }

    /// Sends to the origin that answered last. Where that one does not answer or has no room, the next is asked: at once
    /// for a request that may be repeated, and with the next request otherwise.
    async fn send(&self, call: Call<'_>) -> Result<(StatusCode, Bytes), ClientError> {
        let is_repeatable = call.method != Method::POST || call.key.is_some();
        let mut busy = 0;
        let mut left = self.origins.len();
        loop {
            let index = self.current.load(Ordering::Relaxed) % self.origins.len();
            let outcome = self.send_to(&self.origins[index], &call).await;
            let is_out = match &outcome {
                // Its storage does not answer, or it has no room: the next one may have the data, if it lies on a disk
                // of its own.
                Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE, _)) => true,
                // Nothing was done: a busy daemon says when to come back.
                Ok((StatusCode::TOO_MANY_REQUESTS, body)) if busy < call.most_busy => {
                    busy += 1;
                    let wait = serde_json::from_slice::<Problem>(body).ok().and_then(|problem| problem.retry_after);
                    tokio::time::sleep(Duration::from_secs(wait.unwrap_or(1).min(LONGEST_BUSY))).await;
                    continue;
                }
                Ok(_) => false,
                Err(ClientError::Unreachable { .. } | ClientError::TimedOut { .. }) => true,
                Err(_) => false,
            };
            left -= 1;
            if !is_out {
                return outcome;
            }
            // The first call that notices moves on for all.
            let next = (index + 1) % self.origins.len();
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            if left == 0 || !is_repeatable {
                return outcome;
            }
        }
    }

    async fn send_to(&self, origin: &Uri, call: &Call<'_>) -> Result<(StatusCode, Bytes), ClientError> {
        let Call { method, path, body, content_type, key, patience, limit, .. } = call;
        let unreachable = |detail| ClientError::Unreachable { base: origin.clone(), detail };
        // An origin has an authority, and paths are made of names that need no escaping.
        let uri = format!("https://{}{path}", origin.authority().expect("checked when it was read"));
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, *content_type);
        let request = key.iter().fold(request, |request, key| request.header(IDEMPOTENCY_KEY, *key));
        let request = request.body(body.clone()).map_err(|e| unreachable(e.to_string()))?;
        let http = match &self.transport {
            Transport::Network(http) => http.lock().unwrap_or_else(PoisonError::into_inner).current(),
            Transport::InProcess(answer) => {
                let (head, body) = answer(request).into_parts();
                return Ok((head.status, body));
            }
        };
        let exchange = async {
            let response = http.request(request.map(Full::new)).await.map_err(|e| unreachable(causes(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), *limit).collect().await;
            let body = body
                .map_err(|e| unreachable(format!("its answer broke off or exceeds {limit} octets: {}", causes(&*e))))?;
            Ok((status, body.to_bytes()))
        };
        let seconds = patience.as_secs();
        let timed_out = || ClientError::TimedOut { base: origin.clone(), seconds };
        tokio::time::timeout(*patience, exchange).await.unwrap_or_else(|_| Err(timed_out()))
    }

    fn parse<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.unexpected(status, e.to_string()))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => self.unexpected(status, "no problem document".to_owned()),
        }
    }

    fn unexpected(&self, status: StatusCode, detail: String) -> ClientError {
        let index = self.current.load(Ordering::Relaxed) % self.origins.len();
        ClientError::Unexpected { base: self.origins[index].clone(), status, detail }
    }
}

/// One request.
pub(crate) struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    content_type: &'static str,
    key: Option<&'a str>,
    patience: Duration,
    limit: usize,
    /// How often a busy service is asked again.
    most_busy: u32,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self::new(Method::DELETE, path, Bytes::new())
    }

    pub(crate) fn post(path: &'a str) -> Self {
        Self::new(Method::POST, path, Bytes::new())
    }

    pub(crate) fn put(path: &'a str, body: Bytes) -> Self {
        Self { content_type: "application/octet-stream", ..Self::new(Method::PUT, path, body) }
    }

    pub(crate) fn put_json(path: &'a str, body: &impl Serialize) -> Self {
        // Serialization fails for maps with other than text keys only; no request has one.
        Self::new(Method::PUT, path, serde_json::to_vec(body).expect("a request serializes").into())
    }

    pub(crate) fn post_json(path: &'a str, body: &impl Serialize) -> Self {
        Self { method: Method::POST, ..Self::put_json(path, body) }
    }

    /// May be sent again: the service tells by the key that it is the same call.
    pub(crate) fn repeatable(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Takes the word of a busy service for the answer.
    pub(crate) fn impatient(self) -> Self {
        Self { most_busy: 0, ..self }
    }

    /// Waits `extra` longer for the answer.
    pub(crate) fn patient(self, extra: Duration) -> Self {
        Self { patience: self.patience + extra, ..self }
    }

    /// Waits `extra` longer for the answer, of up to `limit` octets.
    pub(crate) fn long_poll(self, extra: Duration, limit: usize) -> Self {
        Self { patience: self.patience + extra, limit, ..self }
    }

    fn new(method: Method, path: &'a str, body: Bytes) -> Self {
        Self {
            method,
            path,
            body,
            content_type: "application/json",
            key: None,
            patience: PATIENCE,
            limit: 1024 * 1024,
            most_busy: MAX_BUSY,
        }
    }
}

/// How long an answer may take, unless the call says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

const MAX_ORIGINS: usize = 16;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How often a busy service is asked again.
const MAX_BUSY: u32 = 5;

/// The longest wait for a busy service, in seconds.
const LONGEST_BUSY: u64 = 10;

#[cfg(test)]
mod tests;
