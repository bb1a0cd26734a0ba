//! OCSP answers for certificates: asked for at the responders that the certificates name, and verified.
//!
//! No certificate is worse for a responder that is away. So questions take no place of the orders, few are under way at one
//! time, and a responder that does not answer is left alone for a moment.

mod ocsp;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_issuance::{Failure, FailureKind};
use certseal_wire::{DnsName, Staple, causes};
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use tokio::sync::Semaphore;

pub(crate) use self::ocsp::OcspAnswer;
use self::ocsp::{OcspError, Question};
use crate::web::{PlainClient, plain_client};

/// The responders of CAs.
pub(crate) struct Responders {
    client: PlainClient,
    places: Semaphore,
    /// Until when those are left alone that did not answer, by their host and port.
    away: Mutex<HashMap<String, Instant>>,
}

/// Why there is no answer.
struct Unanswered {
    detail: String,
    /// The responder may well answer nobody now.
    is_away: bool,
}

impl Responders {
    pub(crate) fn new() -> Self {
        Self { client: plain_client(), places: Semaphore::new(AT_ONCE), away: Mutex::default() }
    }

    /// A good answer on the first certificate of a chain; none if that names no responder that is asked.
    ///
    /// # Errors
    /// When the responder does not answer, or its answer does not count or is another than that the certificate is good.
    pub(crate) async fn answer(&self, site: &DnsName, chain: &[Vec<u8>]) -> Result<Option<OcspAnswer>, Failure> {
        let Some(question) = Question::about(chain).map_err(rejected)? else { return Ok(None) };
        let response = self.ask(&question.url, &question.body).await?;
        match question.verified(response, Timestamp::now()) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                if let OcspError::Revoked { at, reason } = &error {
                    tracing::error!(%site, %at, reason, "a certificate that is served is revoked, says its CA");
                }
                Err(rejected(error))
            }
        }
    }

    async fn ask(&self, url: &Uri, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        if self.away().get(&host).is_some_and(|until| Instant::now() < *until) {
            let detail = format!("the OCSP responder {host} did not answer a moment ago");
            return Err(Failure::new(FailureKind::Unavailable, detail));
        }
        let Ok(Ok(_place)) = tokio::time::timeout(TURN, self.places.acquire()).await else {
            let detail = format!("{AT_ONCE} other questions to OCSP responders are under way");
            return Err(Failure::new(FailureKind::Throttled(BUSY_SECONDS), detail));
        };
        let late = |_| {
            let detail = format!("no answer from the OCSP responder {host} within {} s", PATIENCE.as_secs());
            Err(Unanswered { detail, is_away: true })
        };
        let answer = tokio::time::timeout(PATIENCE, self.post(&host, url, body)).await.unwrap_or_else(late);
        answer.map_err(|Unanswered { detail, is_away }| {
            if is_away {
                let mut away = self.away();
                // There are few CAs. Somebody who makes up hosts has some asked a moment too early.
                if away.len() >= MOST_AWAY {
                    away.clear();
                }
                away.insert(host.clone(), Instant::now() + LEFT_ALONE);
            }
            Failure::new(FailureKind::Unavailable, detail)
        })
    }

    /// Asks by POST (RFC 6960, A.1). Redirects are not followed.
    async fn post(&self, host: &str, url: &Uri, body: &[u8]) -> Result<Vec<u8>, Unanswered> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.clone())
            .header(CONTENT_TYPE, "application/ocsp-request")
            .body(Full::new(body.to_vec().into()))
            .map_err(|error| Unanswered { detail: error.to_string(), is_away: false })?;
        let response = self.client.request(request).await.map_err(|error| Unanswered {
            detail: format!("cannot reach the OCSP responder {host}: {}", causes(&error)),
            is_away: true,
        })?;
        let status = response.status();
        if status != StatusCode::OK {
            let detail = format!("expected an answer from the OCSP responder {host}, got {status}");
            return Err(Unanswered { detail, is_away: status.is_server_error() });
        }
        let body = Limited::new(response.into_body(), Staple::MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| Unanswered {
            detail: format!(
                "the answer of the OCSP responder {host} broke off, or exceeds {} octets: {}",
                Staple::MAX_RESPONSE,
                causes(&*error)
            ),
            is_away: false,
        })?;
        Ok(body.to_bytes().to_vec())
    }

    fn away(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        // Each change leaves it valid.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the first certificate of a chain names a responder that is asked.
pub(crate) fn names_responder(chain: &[Vec<u8>]) -> bool {
    matches!(Question::about(chain), Ok(Some(_)))
}

fn rejected(error: OcspError) -> Failure {
    Failure::new(FailureKind::Rejected, format!("OCSP: {error}"))
}

/// Questions at one time.
const AT_ONCE: usize = 32;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// How long one that had no turn stays away.
const BUSY_SECONDS: u64 = 60;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a responder is left alone that did not answer.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// Responders of which that is remembered.
const MOST_AWAY: usize = 64;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one question with these octets, and gives back the head of what was asked.
    async fn responder(answer: Vec<u8>) -> (Uri, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            // The question is one character.
            while !asked.ends_with("\r\n\r\n?") {
                let mut octets = [0; 1024];
                let count = stream.read(&mut octets).await.unwrap();
                assert!(count > 0, "{asked:?}");
                asked.push_str(std::str::from_utf8(&octets[..count]).unwrap());
            }
            stream.write_all(&answer).await.unwrap();
            asked
        });
        (format!("http://{address}/ocsp").parse().unwrap(), served)
    }

    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    async fn asked(answer: Vec<u8>) -> (Result<Vec<u8>, Failure>, String) {
        let (url, served) = responder(answer).await;
        let response = Responders::new().ask(&url, b"?").await;
        (response, served.await.unwrap())
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_a_redirect_is_not_followed() {
        let whole = vec![1; Staple::MAX_RESPONSE];
        let (response, head) = asked(answer("200 OK", "", &whole)).await;
        assert_eq!(response.unwrap(), whole);
        assert!(head.starts_with("POST /ocsp HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/ocsp-request\r\n"), "{head}");
        let (response, _) = asked(answer("200 OK", "", &vec![1; Staple::MAX_RESPONSE + 1])).await;
        assert!(response.unwrap_err().detail.contains("exceeds 16384 octets"));
        let (response, _) = asked(answer("302 Found", "location: http://127.0.0.1:1/\r\n", b"")).await;
        assert!(response.unwrap_err().detail.contains("got 302"));
    }

    #[tokio::test]
    async fn a_responder_that_does_not_answer_is_left_alone_for_a_moment() {
        let responders = Responders::new();
        let (url, served) = responder(answer("503 Service Unavailable", "", b"")).await;
        assert!(responders.ask(&url, b"?").await.unwrap_err().detail.contains("got 503"));
        served.await.unwrap();
        // Nobody listens there any more, which is not even noticed.
        assert!(responders.ask(&url, b"?").await.unwrap_err().detail.contains("a moment ago"));
        let unreachable = Uri::from_static("http://127.0.0.1:1/");
        assert!(responders.ask(&unreachable, b"?").await.unwrap_err().detail.contains("cannot reach"));
    }
}
