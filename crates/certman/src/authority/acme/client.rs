//! HTTP below `instant-acme`: time-outs, bounded answers, nonces that are used before new ones are asked for, and the headers
//! and bodies that it drops.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use certseal_service::{config::ConfigError, tls};
use certseal_wire::causes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

use super::{
    breaker::{Breaker, Leave, Subject},
    chain,
    pace::Pace,
};
use crate::metrics::Requests;

/// A CA that asks to come back later: 429 or 503 (RFC 8555, 6.6).
#[derive(Debug, thiserror::Error)]
#[error("{status}, come back in {retry_after} s: {detail}")]
pub(super) struct Busy {
    status: StatusCode,
    pub(super) retry_after: u64,
    detail: String,
}

/// An error whose body is no problem document (RFC 8555, 6.7): from something in front of the CA, say.
#[derive(Debug, thiserror::Error)]
#[error("{host} answers {status} without a problem document: {excerpt:?}")]
struct Unexplained {
    host: String,
    status: StatusCode,
    excerpt: String,
}

/// No answer, and why; with the address, which neither hyper nor a time-out tells.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Unanswered {
    detail: String,
    /// The CA was not reached. Otherwise it may have done what it was asked for.
    pub(super) unsent: bool,
}

impl Unanswered {
    fn new(host: &str, error: &hyper_util::client::legacy::Error) -> Self {
        let (causes, unsent) = (causes(error), error.is_connect());
        let hint = if causes.contains("invalid peer certificate") {
            "; `roots` of [authority] names the CAs that may certify it"
        } else {
            ""
        };
        let event = if unsent { "cannot reach" } else { "no answer from" };
        Self { detail: format!("{event} {host}: {causes}{hint}"), unsent }
    }

    fn after_sending(detail: String) -> Self {
        Self { detail, unsent: false }
    }
}

/// An HTTP client with time-outs and bounded answers.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    nonces: Arc<Nonces>,
    pace: Arc<Pace>,
    requests: Requests,
    breaker: Arc<Breaker>,
}

impl Http {
    pub(super) fn new(roots: &Path, pace: Pace, requests: Requests) -> Result<Self, ConfigError> {
        let tls = tls::web_client(roots)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let (nonces, breaker) = (Arc::default(), Arc::default());
        Ok(Self { client, nonces, pace: Arc::new(pace), requests, breaker })
    }

    /// Whether the CA is left alone.
    pub(super) fn is_away(&self) -> bool {
        self.breaker.is_away(Instant::now())
    }

    /// Leave to ask the CA, until it is dropped; none while it is left alone.
    pub(super) fn leave(&self, subject: Subject) -> Option<Leave> {
        self.breaker.leave(subject, Instant::now())
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        // The one use that instant-acme has for this method.
        let is_for_nonce = request.method() == Method::HEAD;
        if let Some(nonce) = is_for_nonce.then(|| self.nonces.take(Instant::now())).flatten() {
            return Box::pin(async move { Ok(kept(nonce)) });
        }
        if is_for_nonce { &self.requests.nonces } else { &self.requests.others }.inc();
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let path = request.uri().path().to_owned();
        let (exchange, nonces, pace) = (self.client.request(request), self.nonces.clone(), self.pace.clone());
        let breaker = self.breaker.clone();
        let is_new_order = !is_for_nonce && NEW_ORDER.try_with(|it| *it).unwrap_or(false);
        let subject = if is_new_order { Subject::NewOrder } else { Subject::Other };
        Box::pin(async move {
            // Nothing is sent before it is polled.
            pace.place(&path).await;
            let answer = async {
                let response = exchange.await.map_err(|e| other(Unanswered::new(&host, &e)))?;
                let (mut parts, body) = response.into_parts();
                // The answer to the next question for a nonce. What asked for one gets it.
                if !is_for_nonce && let Some(nonce) = parts.headers.remove(REPLAY_NONCE) {
                    nonces.put(nonce, Instant::now());
                }
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let body = body.map_err(|e| {
                    other(Unanswered::after_sending(format!(
                        "the answer of {host} broke off or exceeds {MAX_ANSWER} octets: {}",
                        causes(&*e)
                    )))
                })?;
                let body = body.to_bytes();
                let excerpt = || String::from_utf8_lossy(&body).chars().take(500).collect();
                let wait = retry_after(&parts.headers, Timestamp::now());
                match parts.status {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        let retry_after = wait.map_or(60, |wait| wait.as_secs().unsigned_abs());
                        return Err(other(Busy { status: parts.status, retry_after, detail: excerpt() }));
                    }
                    status if !status.is_success() && serde_json::from_slice::<Problem>(&body).is_err() => {
                        return Err(other(Unexplained { host: host.clone(), status, excerpt: excerpt() }));
                    }
                    _ => {}
                }
                // Nobody listens outside of `with_retry_after` and `with_alternates`.
                let _ = LAST_RETRY_AFTER.try_with(|last| last.set(wait));
                let _ = LAST_ALTERNATES.try_with(|last| last.replace(chain::alternates(&parts.headers)));
                Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
            };
            let late = || format!("no answer from {host} within {} s", PATIENCE.as_secs());
            let answer = tokio::time::timeout(PATIENCE, answer)
                .await
                .unwrap_or_else(|_| Err(other(Unanswered::after_sending(late()))));
            breaker.note(subject, is_there(&answer), Instant::now());
            answer
        })
    }
}

/// Whether somebody answers who can do something: one that is busy has its own time to come back.
fn is_there(answer: &Result<BytesResponse, Error>) -> bool {
    match answer {
        Ok(response) => !response.parts.status.is_server_error(),
        Err(Error::Other(error)) => match (error.downcast_ref::<Unexplained>(), error.downcast_ref::<Busy>()) {
            (Some(unexplained), _) => !unexplained.status.is_server_error(),
            (_, Some(busy)) => busy.status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        },
        Err(_) => false,
    }
}

/// Performs requests, and says with which wait the last answer came (Retry-After; RFC 8555, 7.5.1 and 8.2).
pub(super) async fn with_retry_after<T>(exchange: impl Future<Output = T>) -> (T, Option<SignedDuration>) {
    let exchange = async {
        let outcome = exchange.await;
        (outcome, LAST_RETRY_AFTER.with(Cell::take))
    };
    LAST_RETRY_AFTER.scope(Cell::new(None), exchange).await
}

/// Performs requests, and says which alternates the last answer named (RFC 8555, 7.4.2).
pub(super) async fn with_alternates<T>(exchange: impl Future<Output = T>) -> (T, Vec<String>) {
    let exchange = async {
        let outcome = exchange.await;
        (outcome, LAST_ALTERNATES.with(RefCell::take))
    };
    LAST_ALTERNATES.scope(RefCell::default(), exchange).await
}

/// Performs requests of which those that are not for a nonce ask for a new order.
pub(super) async fn as_new_order<T>(exchange: impl Future<Output = T>) -> T {
    NEW_ORDER.scope(true, exchange).await
}

tokio::task_local! {
    static LAST_RETRY_AFTER: Cell<Option<SignedDuration>>;
    static LAST_ALTERNATES: RefCell<Vec<String>>;
    static NEW_ORDER: bool;
}

/// Seconds or a date (RFC 9110, 10.2.3); never less than nothing.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u32>() {
        Ok(seconds) => SignedDuration::from_secs(seconds.into()),
        Err(_) => rfc2822::parse(value).ok()?.timestamp().duration_since(now),
    };
    Some(wait.max(SignedDuration::ZERO))
}

/// Nonces that came with answers (RFC 8555, 6.5). The newest goes first: should the CA have forgotten them all, the one that
/// comes with its refusal is the next to be tried.
#[derive(Default)]
struct Nonces(Mutex<Vec<(HeaderValue, Instant)>>);

impl Nonces {
    fn take(&self, now: Instant) -> Option<HeaderValue> {
        let mut unused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match unused.pop() {
            Some((nonce, came)) if now.saturating_duration_since(came) < NONCE_LIFE => Some(nonce),
            // All others are older.
            _ => {
                unused.clear();
                None
            }
        }
    }

    fn put(&self, nonce: HeaderValue, now: Instant) {
        let mut unused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < MAX_NONCES && nonce.len() <= MAX_NONCE {
            unused.push((nonce, now));
        }
    }
}

/// The answer to a question for a nonce, from those that are kept.
fn kept(nonce: HeaderValue) -> BytesResponse {
    let mut response = Response::new(Full::new(Bytes::new()));
    response.headers_mut().insert(REPLAY_NONCE, nonce);
    BytesResponse::from(response)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// As many as requests are under way at once, and some more.
const MAX_NONCES: usize = 1000;
/// Octets of one.
const MAX_NONCE: usize = 512;
/// CAs keep nonces for some minutes at least; one that is refused costs a request.
const NONCE_LIFE: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of one: the longest chain that is taken has 88 KiB as PEM.
const MAX_ANSWER: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_nonce_goes_first_each_once_and_none_that_is_old() {
        let (nonces, now) = (Nonces::default(), Instant::now());
        let nonce = HeaderValue::from_static;
        nonces.put(nonce("first"), now);
        nonces.put(nonce("second"), now + NONCE_LIFE / 2);
        assert_eq!(nonces.take(now + NONCE_LIFE / 2), Some(nonce("second")));
        nonces.put(nonce("third"), now + NONCE_LIFE / 2);
        assert_eq!(nonces.take(now + NONCE_LIFE), Some(nonce("third")));
        assert_eq!(nonces.take(now + NONCE_LIFE), None, "the first is too old by now");
        nonces.put(HeaderValue::from_str(&"n".repeat(MAX_NONCE + 1)).unwrap(), now);
        assert_eq!(nonces.take(now), None, "nor one that no CA sends");
        (0..2 * MAX_NONCES).for_each(|_| nonces.put(nonce("n"), now));
        assert_eq!(nonces.0.lock().unwrap().len(), MAX_NONCES);
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date() {
        let now = "1999-12-31T23:59:00Z".parse().unwrap();
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), Some(59));
        assert_eq!(read("Fri, 31 Dec 1999 23:00:00 GMT"), Some(0), "it has passed");
        assert_eq!([read("soon"), read("-1"), read("99999999999999999999")], [None; 3]);
    }
}
