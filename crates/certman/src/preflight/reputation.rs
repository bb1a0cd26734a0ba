//! Names of bad repute: a server of the platform's choice is asked whether it lists a name.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use certseal_service::tls;
use certseal_wire::{DnsName, Finding, FindingCode, NameSet};
use http::StatusCode;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::{
    answers::{Answer, Answers, UNAVAILABLE_FOR},
    config::{Reputation as ReputationConfig, WhileUnavailable},
    suffixes::Suffixes,
    web::{self, WebClient, web_client, web_url},
};

/// The repute of names.
pub(super) struct Reputation {
    server: Arc<Server>,
    unavailable: WhileUnavailable,
    suffixes: Arc<Suffixes>,
    answers: Arc<Answers<Standing>>,
}

/// How a name stands with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Clear,
    /// It is listed, for a reason.
    Listed(Arc<str>),
    /// The server was not reached, or did not say.
    Unavailable(Arc<str>),
}

impl Answer for Standing {
    fn none() -> Self {
        Self::Unavailable("the question broke off".into())
    }
}

impl Reputation {
    /// # Errors
    /// When the server's address is none, or has no place for the name.
    pub(super) fn new(config: &ReputationConfig, suffixes: Arc<Suffixes>) -> anyhow::Result<Self> {
        let ReputationConfig { url, unavailable, remember_seconds, roots } = config;
        ensure!(
            (1..=86_400).contains(remember_seconds),
            "expected dns.reputation.remember_seconds between 1 and 86400, got {remember_seconds}"
        );
        ensure!(url.contains(NAME), "expected {NAME} in dns.reputation.url, in the place of the name, got {url:?}");
        web_url(&url.replace(NAME, "shop.example.com")).context("dns.reputation.url")?;
        let client = web_client(tls::web_client(roots)?);
        let server = Server { url: url.clone(), client, silence: Mutex::default() };
        let remembered = Duration::from_secs(*remember_seconds);
        let answers = Answers::new(move |standing: &Standing| match standing {
            Standing::Clear | Standing::Listed(_) => remembered,
            Standing::Unavailable(_) => UNAVAILABLE_FOR,
        });
        Ok(Self { server: Arc::new(server), unavailable: *unavailable, suffixes, answers })
    }

    /// What speaks against a name: that it is listed, or, if nobody says so and the platform wants to know, that it is unknown.
    pub(super) async fn finding(&self, name: &DnsName) -> Option<Finding> {
        self.said_by(self.standing(name).await)
    }

    /// What speaks against a first certificate for the names, all asked about together: the first that is listed, else the first that
    /// is unknown if the platform wants to know. No order waits for the server for long.
    pub(super) async fn objection(self: &Arc<Self>, names: &NameSet) -> Option<(DnsName, Finding)> {
        let patience = match self.unavailable {
            WhileUnavailable::Allow => BRIEFLY,
            WhileUnavailable::Refuse => ALL_NAMES,
        };
        let until = tokio::time::Instant::now() + patience;
        let mut all = JoinSet::new();
        for name in names.iter().cloned() {
            let reputation = self.clone();
            all.spawn(async move {
                let standing = tokio::time::timeout_at(until, reputation.standing(&name)).await;
                let late = |_| Standing::Unavailable(format!("no answer within {} s", patience.as_secs()).into());
                reputation.said_by(standing.unwrap_or_else(late)).map(|found| (name, found))
            });
        }
        let found = all.join_all().await.into_iter().flatten();
        found.min_by_key(|(name, found)| (found.code != FindingCode::Denied, name.clone()))
    }

    fn said_by(&self, standing: Standing) -> Option<Finding> {
        let (code, detail) = match (standing, self.unavailable) {
            (Standing::Clear, _) | (Standing::Unavailable(_), WhileUnavailable::Allow) => return None,
            (Standing::Listed(why), _) => {
                (FindingCode::Denied, format!("it is of bad repute, says the server in [dns.reputation]: {why}"))
            }
            (Standing::Unavailable(why), WhileUnavailable::Refuse) => {
                (FindingCode::NotAsked, format!("whether it is of bad repute could not be asked: {why}"))
            }
        };
        Some(Finding { code, detail, edits: Vec::new() })
    }

    /// Of a wildcard, the standing of the name that it stands above.
    async fn standing(&self, name: &DnsName) -> Standing {
        let Ok(host) = name.as_str().trim_start_matches("*.").parse::<DnsName>() else { return Standing::none() };
        let until = Instant::now() + TURN;
        loop {
            let domain = self.suffixes.registered(&host);
            let (server, asked, of_domain) = (self.server.clone(), host.clone(), domain.clone());
            let ask = || async move { server.standing(&asked, of_domain).await };
            match self.answers.of(&host, domain, ask).await {
                Some(standing) => return standing,
                // A site with many names of one domain waits for its own turn.
                None if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
                None => return Standing::Unavailable("too many names are asked about now".into()),
            }
        }
    }
}

struct Server {
    url: String,
    client: WebClient,
    silence: Mutex<Silence>,
}

/// Questions without an answer.
#[derive(Default)]
struct Silence {
    /// The registered domains that were asked about in vain since the last answer: the server may be slow for those of one customer.
    domains: HashSet<String>,
    /// Until then nobody asks.
    until: Option<Instant>,
}

impl Silence {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn note(&mut self, domain: String, now: Instant) {
        if self.domains.len() < AWAY_AFTER {
            self.domains.insert(domain);
        }
        if self.domains.len() >= AWAY_AFTER {
            self.until = Some(now + AWAY_FOR);
        }
    }
}

impl Server {
    /// The standing of a name of a registered domain. A server that is silent for several of those is left alone for a while.
    async fn standing(&self, name: &DnsName, domain: String) -> Standing {
        if !self.silence().is_over(Instant::now()) {
            return Standing::Unavailable("the server does not answer, and is left alone for a while".into());
        }
        // A name has no character that would have to be escaped.
        let url = self.url.replace(NAME, name.as_str());
        let answer = web::get(&self.client, &url, PATIENCE).await;
        match &answer {
            Ok(_) => *self.silence() = Silence::default(),
            Err(_) => self.silence().note(domain, Instant::now()),
        }
        let answer = match answer {
            Ok((StatusCode::OK, Some(body))) => stated(&body),
            Ok((StatusCode::OK, None)) => Err("its answer breaks off, or is too long".to_owned()),
            Ok((status, _)) => Err(format!("it answers {status}")),
            Err(why) => Err(why),
        };
        answer.unwrap_or_else(|why| {
            tracing::warn!(why, "the server in [dns.reputation] cannot be asked");
            Standing::Unavailable(why.into())
        })
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer as JSON has it.
#[derive(Deserialize)]
struct Stated {
    listed: bool,
    #[serde(default)]
    why: Option<String>,
}

fn stated(body: &[u8]) -> Result<Standing, String> {
    let Stated { listed, why } = serde_json::from_slice(body)
        .map_err(|error| format!("expected {{\"listed\": true}} or false, and why: {error}"))?;
    if !listed {
        return Ok(Standing::Clear);
    }
    let why = why.unwrap_or_else(|| "it gives no reason".to_owned());
    let why: String = why.chars().take(MOST_SAID).flat_map(char::escape_debug).collect();
    Ok(Standing::Listed(why.into()))
}

/// The place of the name in the server's address.
const NAME: &str = "{name}";
/// For an answer, and for a turn to ask.
const PATIENCE: Duration = Duration::from_secs(5);
const TURN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For the names of a first order together: if the order waits for their standing, and if it goes on without it.
const ALL_NAMES: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_secs(2);
/// Registered domains without an answer after which the server is left alone, and for how long.
const AWAY_AFTER: usize = 3;
const AWAY_FOR: Duration = Duration::from_secs(30);
/// Characters of a reason.
const MOST_SAID: usize = 200;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::{Router, extract::Query, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    fn reputation(url: &str, more: &str) -> anyhow::Result<Reputation> {
        let roots = tempfile::NamedTempFile::new()?;
        let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()])?;
        std::fs::write(roots.path(), certificate.cert.pem())?;
        let config: ReputationConfig =
            toml::from_str(&format!("url = \"{url}\"\nroots = \"{}\"\n{more}", roots.path().display()))?;
        Reputation::new(&config, Arc::new(Suffixes::new(None)?))
    }

    #[tokio::test]
    async fn a_listed_name_is_denied_and_its_answer_is_remembered() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = asked.clone();
        let answer = move |Query(query): Query<std::collections::HashMap<String, String>>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let said = match query["name"].as_str() {
                "bad.example.com" => "{\"listed\": true, \"why\": \"phishing\\n\", \"more\": 1}",
                "broken.example.com" => "listed",
                _ => "{\"listed\": false}",
            };
            async move { said }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/lookup?name={{name}}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/lookup", get(answer))).await.unwrap() });
        let reputation_now = reputation(&url, "").unwrap();
        let finding = async |name: &str| reputation_now.finding(&name.parse().unwrap()).await;
        for _ in 0..3 {
            assert_eq!(finding("good.example.com").await, None);
            let found = finding("bad.example.com").await.unwrap();
            assert_eq!(found.code, FindingCode::Denied);
            assert!(found.detail.ends_with("phishing\\n"), "{found:?}");
            assert_eq!(finding("*.bad.example.com").await, Some(found), "a wildcard stands above it");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(finding("broken.example.com").await, None, "open unless it is said otherwise");
        let strict = reputation(&url, "unavailable = \"refuse\"").unwrap();
        let found = strict.finding(&"broken.example.com".parse().unwrap()).await.unwrap();
        assert_eq!(found.code, FindingCode::NotAsked, "{found:?}");
    }

    #[tokio::test]
    async fn a_first_order_is_refused_for_a_listed_name_and_waits_for_no_slow_server() {
        let answer = |Query(query): Query<std::collections::HashMap<String, String>>| async move {
            match query["name"].as_str() {
                "bad.example.com" => "{\"listed\": true}",
                "good.example.com" => "{\"listed\": false}",
                _ => std::future::pending().await,
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/lookup?name={{name}}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/lookup", get(answer))).await.unwrap() });
        let open = Arc::new(reputation(&url, "").unwrap());
        let strict = Arc::new(reputation(&url, "unavailable = \"refuse\"").unwrap());
        let names = |names: &[&str]| {
            let names: Vec<DnsName> = names.iter().map(|name| name.parse().unwrap()).collect();
            NameSet::try_from(names).unwrap()
        };
        let all = names(&["bad.example.com", "good.example.com", "a-slow.example.com"]);
        for reputation in [&open, &strict] {
            assert_eq!(reputation.objection(&names(&["good.example.com"])).await, None);
            let (name, found) = reputation.objection(&all).await.unwrap();
            assert_eq!((name.as_str(), found.code), ("bad.example.com", FindingCode::Denied), "{found:?}");
        }
        // There are more of them than may be asked about at one time.
        let slow: Vec<String> = (0..9).map(|number| format!("slow-{number}.example.com")).collect();
        let slow = names(&slow.iter().map(String::as_str).collect::<Vec<_>>());
        let begun = Instant::now();
        assert_eq!(open.objection(&slow).await, None);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        let (_, found) = strict.objection(&names(&["a-slow.example.com"])).await.unwrap();
        assert_eq!(found.code, FindingCode::NotAsked, "{found:?}");
    }

    #[test]
    fn a_server_that_is_silent_for_several_domains_is_left_alone_for_a_while() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        for _ in 0..2 * AWAY_AFTER {
            silence.note("slow.example".to_owned(), now);
        }
        assert!(silence.is_over(now), "it may be slow for one customer only");
        for number in 1..AWAY_AFTER {
            silence.note(format!("{number}.example"), now);
        }
        assert!(!silence.is_over(now + AWAY_FOR / 2));
        assert!(silence.is_over(now + AWAY_FOR));
        silence.note("slow.example".to_owned(), now + AWAY_FOR);
        assert!(!silence.is_over(now + AWAY_FOR), "one more question finds it silent still");
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_refused_at_the_start() {
        for (url, more, said) in [
            ("https://a.example/lookup", "", "{name}"),
            ("http://a.example/lookup?name={name}", "", "https://"),
            ("https://a.example/{name}", "remember_seconds = 0", "remember_seconds"),
        ] {
            let error = format!("{:#}", reputation(url, more).err().unwrap());
            assert!(error.contains(said), "{error}");
        }
    }
}
