//! Tells the platform what happens to its sites, by the Standard Webhooks specification 1.0.0
//! (<https://www.standardwebhooks.com>).
//!
//! Events are sent until the receiver takes them, in the order in which they happened. A receiver that is away, or takes nothing at
//! all, is tried again after at most a minute. An event that it refuses holds up the later ones of the same site alone, and is put
//! aside after a while. Each may come more than once, with the same id.

mod refusals;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use certseal_service::{Shutdown, config as files, tls};
use certseal_wire::{DnsName, causes};
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use self::refusals::{Fate, Refusals, is_about_the_event};
use crate::{
    config::Webhooks as WebhooksConfig,
    events::{self, Waiting},
    journal::Journal,
    metrics::Metrics,
    web::{MOST_ANSWER, WebClient, web_client, web_url},
};

/// The sender.
pub(crate) struct Webhooks {
    receiver: Arc<Receiver>,
    journal: Journal,
    metrics: Metrics,
    at_once: usize,
    refusals: Refusals,
    /// The receiver itself, if it is away.
    away: Pause,
}

/// How often something failed in a row, and until when nothing is tried.
#[derive(Clone, Copy, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    fn longer(&mut self, most: Duration) {
        let wait = Duration::from_secs(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        self.until = Some(Instant::now() + wait);
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}

/// What became of an attempt.
enum Attempt {
    Taken,
    /// The receiver does not want this event.
    Refused(StatusCode),
    /// The receiver takes nothing, and why.
    Away(String),
}

impl Webhooks {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When a file or the address is not usable.
    pub(crate) fn new(config: &WebhooksConfig, journal: Journal, metrics: Metrics) -> anyhow::Result<Self> {
        let WebhooksConfig { url, secret_file, roots, at_once } = config;
        ensure!((1..=64).contains(at_once), "expected webhooks.at_once between 1 and 64, got {at_once}");
        let receiver = Arc::new(Receiver {
            url: web_url(url).context("webhooks.url")?,
            secrets: secrets(&files::read_private(secret_file)?).with_context(|| secret_file.display().to_string())?,
            client: web_client(tls::web_client(roots)?),
        });
        let (refusals, away) = (Refusals::default(), Pause::default());
        Ok(Self { receiver, journal, metrics, at_once: *at_once, refusals, away })
    }

    /// Sends until the shutdown begins. Of several processes one does.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        while !shutdown.has_begun() {
            if self.journal.leases().leads() && self.away.is_over() {
                tokio::select! {
                    sent = self.send_waiting() => if let Err(error) = sent {
                        tracing::error!(error = causes(error.as_ref()), "cannot read or write the outbox of webhooks");
                    },
                    // What is under way is sent again.
                    () = shutdown.begun() => return,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = shutdown.begun() => {}
            }
        }
    }

    /// Sends what is to be sent, until the receiver takes no more.
    async fn send_waiting(&mut self) -> anyhow::Result<()> {
        self.refusals.prune(Instant::now());
        let mut last = None::<Vec<u8>>;
        loop {
            let storage = self.journal.storage();
            let page = tokio::task::spawn_blocking(move || events::waiting(&*storage, last.as_deref(), PAGE));
            let page = page.await??;
            let is_last_page = page.len() < PAGE;
            last = page.last().map(|waiting| waiting.key.clone());
            self.send_page(page).await?;
            if is_last_page || !self.away.is_over() || !self.journal.leases().leads() {
                return Ok(());
            }
        }
    }

    async fn send_page(&mut self, waiting: Vec<Waiting>) -> anyhow::Result<()> {
        let (mut under_way, mut page) = (JoinSet::new(), Page::default());
        for waiting in waiting {
            let site = waiting.event.data.site.clone();
            while under_way.len() >= self.at_once || page.under_way.contains(&site) {
                if let Some(done) = under_way.join_next().await {
                    self.noted(done?, &mut page);
                }
            }
            if !self.away.is_over() {
                break;
            }
            if page.held.contains(&site) || self.refusals.holds(&site, Instant::now()) {
                page.held.insert(site);
                continue;
            }
            page.under_way.insert(site);
            let receiver = self.receiver.clone();
            under_way.spawn(async move { (receiver.send(&waiting).await, waiting) });
        }
        while let Some(done) = under_way.join_next().await {
            self.noted(done?, &mut page);
        }
        let (storage, Page { sent, unwanted, .. }) = (self.journal.storage(), page);
        tokio::task::spawn_blocking(move || events::settle(&*storage, &sent, &unwanted)).await?
    }

    fn noted(&mut self, (attempt, waiting): (Attempt, Waiting), page: &mut Page) {
        let (site, now) = (waiting.event.data.site.clone(), Instant::now());
        page.under_way.remove(&site);
        match attempt {
            Attempt::Taken => {
                self.metrics.told("taken");
                self.refusals.taken(&site, now);
                self.away = Pause::default();
                page.sent.push(waiting);
            }
            Attempt::Refused(status) => {
                let (kind, id) = (waiting.event.kind.as_str(), &waiting.id);
                match self.refusals.refused(&site, &waiting.key, status, now) {
                    Fate::Waits => {
                        self.metrics.told("refused");
                        tracing::warn!(%site, kind, id, %status, "the receiver refuses an event");
                        page.held.insert(site);
                    }
                    Fate::PutAside => {
                        self.metrics.told("put-aside");
                        tracing::error!(%site, kind, id, %status, "an event that the receiver refuses is put aside");
                        page.unwanted.push(waiting);
                    }
                }
                if self.refusals.refuses_all() {
                    tracing::warn!(%status, "the receiver of webhooks refuses one event after the other");
                    self.away.longer(LONGEST_AWAY);
                }
            }
            Attempt::Away(why) => {
                self.metrics.told("failed");
                tracing::warn!(why, "the receiver of webhooks takes nothing");
                page.held.insert(site);
                self.away.longer(LONGEST_AWAY);
            }
        }
    }
}

/// How far a page of the outbox is.
#[derive(Default)]
struct Page {
    /// Sites of which an event is under way.
    under_way: HashSet<DnsName>,
    /// Sites with an event that was not sent: their later ones wait for it.
    held: HashSet<DnsName>,
    sent: Vec<Waiting>,
    /// Events to be put aside.
    unwanted: Vec<Waiting>,
}

/// The receiver of webhooks.
struct Receiver {
    url: Uri,
    secrets: Vec<hmac::Key>,
    client: WebClient,
}

impl Receiver {
    async fn send(&self, waiting: &Waiting) -> Attempt {
        let body = match serde_json::to_vec(&waiting.event) {
            Ok(body) => body,
            Err(error) => return Attempt::Away(error.to_string()),
        };
        let at = Timestamp::now().as_second();
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &waiting.id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", signatures(&self.secrets, &waiting.id, at, &body))
            .body(Full::new(body.into()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Attempt::Away(error.to_string()),
        };
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| causes(&error))?;
            let status = response.status();
            // A connection whose answer was read is used again.
            let _ = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
            Ok::<_, String>(status)
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(status)) if status.is_success() => Attempt::Taken,
            Ok(Ok(status)) if is_about_the_event(status) => Attempt::Refused(status),
            Ok(Ok(status)) => Attempt::Away(format!("it answers {status}")),
            Ok(Err(why)) => Attempt::Away(why),
            Err(_) => Attempt::Away(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// The header `webhook-signature`: `v1,` and an HMAC-SHA256 for each secret.
fn signatures(secrets: &[hmac::Key], id: &str, at: i64, body: &[u8]) -> String {
    let signature = |secret: &hmac::Key| {
        let mut signed = hmac::Context::with_key(secret);
        signed.update(format!("{id}.{at}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

fn secrets(text: &str) -> anyhow::Result<Vec<hmac::Key>> {
    let mut secrets = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let key = line.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok()).map(Zeroizing::new);
        let key = key.filter(|key| (24..=64).contains(&key.len()));
        let Some(key) = key else {
            bail!(
                "line {}: expected whsec_ and 24 to 64 octets in base64, as `echo whsec_$(openssl rand -base64 32)` makes it",
                number + 1
            )
        };
        secrets.push(hmac::Key::new(hmac::HMAC_SHA256, &key));
    }
    ensure!((1..=MOST_SECRETS).contains(&secrets.len()), "expected 1 to {MOST_SECRETS} secrets, a line each");
    Ok(secrets)
}

/// From one look into the outbox to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// For an answer: the specification advises 15 to 30 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest pause.
const LONGEST_AWAY: Duration = Duration::from_secs(60);
/// Events looked at together.
const PAGE: usize = 100;
const MOST_SECRETS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{Router, body::Bytes, extract::State, routing::post};
    use certseal_wire::SiteEvent;
    use jiff::SignedDuration;
    use tokio::net::TcpListener;

    use super::*;

    /// A receiver that takes everything but the first event of one site, once.
    struct Platform {
        /// Its answer to that one.
        refusal: Mutex<Option<StatusCode>>,
        /// The sites and revisions of those that it took.
        taken: Mutex<Vec<(String, u64)>>,
    }

    impl Platform {
        fn taken(&self) -> Vec<(String, u64)> {
            self.taken.lock().unwrap().clone()
        }
    }

    async fn take(State(platform): State<Arc<Platform>>, body: Bytes) -> StatusCode {
        let SiteEvent { data, .. } = serde_json::from_slice(&body).unwrap();
        let (site, revision) = (data.site.to_string(), data.revision);
        if site == "a.example" {
            let refusal = platform.refusal.lock().unwrap().take();
            if let Some(refusal) = refusal {
                return refusal;
            }
        } else if revision == 1 {
            // The refusal comes back before this answer, which says that the receiver is there.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        platform.taken.lock().unwrap().push((site, revision));
        StatusCode::NO_CONTENT
    }

    #[tokio::test]
    async fn an_event_that_was_not_taken_holds_up_the_later_ones_of_its_site_and_no_others() {
        for refusal in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND] {
            let dir = tempfile::tempdir().unwrap();
            let (roots, secret_file) = (dir.path().join("roots.pem"), dir.path().join("secret"));
            let root = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
            std::fs::write(&roots, root.cert.pem()).unwrap();
            files::write_private(&secret_file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
            let platform = Arc::new(Platform { refusal: Mutex::new(Some(refusal)), taken: Mutex::default() });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/hooks", listener.local_addr().unwrap());
            let app = Router::new().route("/hooks", post(take)).with_state(platform.clone());
            let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

            let journal = Journal::open(&dir.path().join("journal")).unwrap();
            let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
            for (number, (site, revision)) in
                (0..).zip([("a.example", 1), ("b.example", 1), ("b.example", 2), ("a.example", 2)])
            {
                let event = events::tests::failing(site, start + SignedDuration::from_secs(number), revision);
                journal.storage().commit(event.into()).unwrap();
            }
            let config = WebhooksConfig { url, secret_file, roots, at_once: 3 };
            let mut sender = Webhooks::new(&config, journal, Metrics::default()).unwrap();
            let named = |events: &[(&str, u64)]| -> Vec<(String, u64)> {
                events.iter().map(|(site, revision)| ((*site).to_owned(), *revision)).collect()
            };
            sender.send_waiting().await.unwrap();
            let first = [("b.example", 1), ("b.example", 2)];
            assert_eq!(platform.taken(), named(&first), "{refusal}");
            // The pause of a refused event is over.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            sender.send_waiting().await.unwrap();
            let all = [&first[..], &[("a.example", 1), ("a.example", 2)]].concat();
            assert_eq!(platform.taken(), named(&all), "{refusal}");
            server.abort();
        }
    }

    /// The vector of the specification's own libraries
    /// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/rust/src/lib.rs>).
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signatures(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert!(
            signatures(&two, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).starts_with(&format!("{signed} v1,"))
        );
    }

    #[test]
    fn secrets_that_are_none_say_what_was_expected() {
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64"] {
            let said = secrets(bad).unwrap_err().to_string();
            assert!(said.contains("expected"), "{bad}: {said}");
            assert!(!said.contains("MfKQ"), "a secret in an error");
        }
    }
}
