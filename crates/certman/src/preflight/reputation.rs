//! Names of bad repute: a server of the platform's choice is asked whether it lists a name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use certseal_service::tls;
use certseal_wire::{DnsName, Finding, FindingCode};
use http::StatusCode;
use serde::Deserialize;

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
        let server = Server { url: url.clone(), client: web_client(tls::web_client(roots)?) };
        let remembered = Duration::from_secs(*remember_seconds);
        let answers = Answers::new(move |standing: &Standing| match standing {
            Standing::Clear | Standing::Listed(_) => remembered,
            Standing::Unavailable(_) => UNAVAILABLE_FOR,
        });
        Ok(Self { server: Arc::new(server), unavailable: *unavailable, suffixes, answers })
    }

    /// What speaks against a name: that it is listed, or, if nobody says so and the platform wants to know, that it is unknown.
    pub(super) async fn finding(&self, name: &DnsName) -> Option<Finding> {
        let (code, detail) = match (self.standing(name).await, self.unavailable) {
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
            let (server, asked) = (self.server.clone(), host.clone());
            let ask = || async move { server.standing(&asked).await };
            match self.answers.of(&host, self.suffixes.registered(&host), ask).await {
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
}

impl Server {
    async fn standing(&self, name: &DnsName) -> Standing {
        // A name has no character that would have to be escaped.
        let url = self.url.replace(NAME, name.as_str());
        let answer = match web::get(&self.client, &url, PATIENCE).await {
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
