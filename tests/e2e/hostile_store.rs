//! A certstore that has been taken over: it passes requests on to the real one, and meddles with the answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Query, Request, State},
    response::{IntoResponse, Response},
};
use certseal_service::{
    Shutdown, ShutdownHandle,
    server::{self, Limits},
};
use certseal_wire::{Base64, DnsName, FeedPage, FeedQuery, Kind, Problem, ProblemKind, Signed};
use http_body_util::{BodyExt, Full};
use hyper::{StatusCode, Uri, body::Bytes};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{platform::Platform, process::free_address};

/// The store's treatment of the answers that an edge gets.
#[derive(Clone)]
pub enum Hostility {
    /// Every route and challenge gets another upstream or key authorization.
    Alter,
    /// There is no news of this site, in the feed or by name; all else is passed on, checkpoints too.
    Withhold(DnsName),
    /// A reader with a cursor never gets news again.
    Freeze,
}

pub struct HostileStore {
    pub address: SocketAddr,
    acted: Arc<AtomicUsize>,
    _running: ShutdownHandle,
}

impl HostileStore {
    pub async fn start(platform: &Platform, hostility: Hostility) -> Self {
        let pki = platform.dir.path().join("pki");
        let tls = certseal_ceremonies::pki::tls_files(&pki, "edge-eu").client_config(&["certstore"]).unwrap();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let acted = Arc::<AtomicUsize>::default();
        let meddler = Meddler {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: format!("https://{}", platform.addresses["store"]),
            hostility,
            acted: acted.clone(),
        };
        let app = Router::new().fallback(meddle).with_state(meddler);
        let listener = server::bind(free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, shutdown) = Shutdown::new();
        let tls = certseal_ceremonies::pki::tls_files(&pki, "certstore").server_config().unwrap().into();
        let domain = "certseal.internal".parse().unwrap();
        tokio::spawn(server::serve_mtls(listener, tls, domain, app, Limits::default(), shutdown));
        Self { address, acted, _running: running }
    }

    /// How many records it altered, and requests it answered by itself.
    pub fn acted(&self) -> usize {
        self.acted.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Meddler {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    hostility: Hostility,
    acted: Arc<AtomicUsize>,
}

async fn meddle(State(meddler): State<Meddler>, request: Request) -> Response {
    if let Some(answer) = meddler.own_answer(request.uri()) {
        meddler.act();
        return answer;
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let uri = format!("{}{path}", meddler.base);
    let forwarded = hyper::Request::builder().method(parts.method).uri(uri).body(Full::new(body)).unwrap();
    let Ok(answer) = meddler.client.request(forwarded).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (head, body) = answer.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    if head.status.is_success() {
        body = meddler.altered(path, body);
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = head.status;
    response
}

impl Meddler {
    /// Its answer without asking the real store.
    fn own_answer(&self, uri: &Uri) -> Option<Response> {
        match &self.hostility {
            Hostility::Withhold(site) if uri.path().ends_with(&format!("s/{site}")) => {
                let problem = Problem::new(ProblemKind::NotFound, "there is no such thing");
                Some((StatusCode::NOT_FOUND, Json(problem)).into_response())
            }
            Hostility::Freeze if uri.path() == "/v1/feed" => {
                let Query(FeedQuery { after, .. }) = Query::try_from_uri(uri).unwrap();
                after.map(|cursor| Json(FeedPage { cursor, events: Vec::new(), end: true }).into_response())
            }
            _ => None,
        }
    }

    fn altered(&self, path: &str, body: Bytes) -> Bytes {
        if path.starts_with("/v1/feed") {
            let mut page: FeedPage = serde_json::from_slice(&body).unwrap();
            match &self.hostility {
                Hostility::Alter => self.alter_routes(&mut page),
                Hostility::Withhold(site) => page.events.retain(|event| event.name != site.as_str()),
                Hostility::Freeze => {}
            }
            return serde_json::to_vec(&page).unwrap().into();
        }
        match self.hostility {
            Hostility::Alter if path.starts_with("/v1/challenges/") => {
                let account = |payload: &mut serde_json::Value| {
                    let token = payload["token"].as_str().unwrap();
                    payload["key_authorization"] = format!("{token}.the-store-s-own-account").into();
                };
                altered(&body, account).into()
            }
            Hostility::Alter if path.starts_with("/v1/routes/") => altered(&body, lead_astray).into(),
            _ => body,
        }
    }

    fn alter_routes(&self, page: &mut FeedPage) {
        for event in page.events.iter_mut().filter(|event| event.kind == Kind::Route) {
            if let Some(Base64(bytes)) = &mut event.body {
                *bytes = altered(bytes, lead_astray);
                self.act();
            }
        }
    }

    fn act(&self) {
        self.acted.fetch_add(1, Ordering::SeqCst);
    }
}

fn lead_astray(route: &mut serde_json::Value) {
    route["upstream"] = "http://127.0.0.1:9".into();
}

fn altered(signed: &[u8], alter: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut signed: Signed = serde_json::from_slice(signed).unwrap();
    let mut payload = serde_json::from_slice(&signed.payload.0).unwrap();
    alter(&mut payload);
    signed.payload = Base64(serde_json::to_vec(&payload).unwrap());
    serde_json::to_vec(&signed).unwrap()
}
