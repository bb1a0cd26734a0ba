//! Webhooks: what happens to sites reaches a receiver that is away for a while, in order, and none is lost.
//!
//! In the normal run it is away for some seconds; `CERTSEAL_WEBHOOK_DOWN_SECONDS=3600` has it away for an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use certseal_wire::{DnsName, Renewal, SiteChange, SiteChanges, SiteEvent, SiteEventKind, Wanted};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    platform::{Authority, Platform},
    process::free_address,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_a_receiver_that_was_away_in_their_order_and_none_is_lost() {
    let away = std::env::var("CERTSEAL_WEBHOOK_DOWN_SECONDS").map_or(4, |seconds| seconds.parse().unwrap());
    let mut platform = Platform::start(Authority::Local).await;
    let secret_file = platform.pki("webhook.secret");
    std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let receiver = Receiver::default();
    let address = free_address();
    platform.configure_certman(&format!(
        "[webhooks]\nurl = \"http://{address}/hooks\"\nsecret_file = \"{}\"\n",
        secret_file.display()
    ));
    let certman = platform.certman_as("platform");
    let names: Vec<DnsName> = (0..40).map(|number| format!("shop-{number}.example.com").parse().unwrap()).collect();

    // Nobody listens while certificates come, and certman dies.
    let put = |site: &DnsName| SiteChange { site: site.clone(), change: Wanted::Put(platform.request(site)) };
    let all: SiteChanges = names.iter().map(put).collect();
    certman.change_sites(&all, "all").await.unwrap();
    for name in &names {
        platform.wait_active(name, 1).await;
    }
    // Certificates of the same second are the same in the eyes of who counts by validity.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    certman.renew(&names[0], &Renewal::default()).await.unwrap();
    platform.wait_active(&names[0], 2).await;
    platform.certman.kill();
    platform.restart_certman();
    tokio::time::sleep(Duration::from_secs(away)).await;
    let listed: Value = answer(&platform, &["--json", "event", "list", "--waiting"]);
    assert_eq!(listed.as_array().unwrap().len(), names.len() + 1, "all of them wait");

    // It refuses those of one site at first.
    *receiver.refused.lock().unwrap() = Some(names[3].clone());
    let up = receiver.start(address).await;
    receiver.wait_for(names.len()).await;
    let came = receiver.events();
    assert!(came.iter().all(|event| event.data.site != names[3]), "what is refused has not come");
    assert!(came.is_sorted_by_key(|event| event.timestamp), "not in their order");
    let of_first: Vec<SiteEventKind> =
        came.iter().filter(|event| event.data.site == names[0]).map(|event| event.kind).collect();
    assert_eq!(of_first, [SiteEventKind::Issued, SiteEventKind::Renewed]);
    assert!(came.iter().all(|event| event.data.not_after.is_some() && event.data.diagnosis.is_none()));
    *receiver.refused.lock().unwrap() = None;
    receiver.wait_for(names.len() + 1).await;
    let sites: BTreeSet<DnsName> = receiver.events().into_iter().map(|event| event.data.site).collect();
    assert_eq!(sites, names.iter().cloned().collect());

    // Once more, with the ids that they had.
    let ids = receiver.ids();
    let replayed: Value = answer(
        &platform,
        &["--json", "event", "replay", "--from", "2020-01-01T00:00:00Z", "--site", names[0].as_str()],
    );
    assert_eq!(replayed["events"], 2);
    receiver.wait_for(names.len() + 3).await;
    assert_eq!(receiver.ids(), ids);
    up.abort();
    assert_eq!(answer(&platform, &["--json", "event", "list", "--waiting"]), Value::Array(Vec::new()));
    assert!(!platform.certman.log().contains(&SECRET["whsec_".len()..]), "the secret is in the log");
}

fn answer(platform: &Platform, args: &[&str]) -> Value {
    let output = platform.certctl(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A receiver that verifies what comes, as the specification says.
#[derive(Clone, Default)]
struct Receiver {
    taken: Arc<Mutex<Vec<(String, SiteEvent)>>>,
    refused: Arc<Mutex<Option<DnsName>>>,
}

impl Receiver {
    async fn start(&self, address: SocketAddr) -> JoinHandle<()> {
        let app = Router::new().route("/hooks", post(take)).with_state(self.clone());
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
    }

    fn events(&self) -> Vec<SiteEvent> {
        self.taken.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// The ids, each once, with their events.
    fn ids(&self) -> BTreeMap<String, String> {
        let taken = self.taken.lock().unwrap();
        let ids = taken.iter().map(|(id, event)| (id.clone(), serde_json::to_string(event).unwrap()));
        ids.collect()
    }

    async fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(150);
        while self.taken.lock().unwrap().len() < count {
            assert!(Instant::now() < deadline, "{} of {count} came", self.taken.lock().unwrap().len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // One too many would come now.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(self.taken.lock().unwrap().len(), count);
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    let age = jiff::Timestamp::now().as_second() - at.parse::<i64>().unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&SECRET["whsec_".len()..]).unwrap());
    let signed = [format!("{id}.{at}.").as_bytes(), &body].concat();
    let is_signed = header("webhook-signature").split(' ').any(|signature| {
        let tag = signature.strip_prefix("v1,").and_then(|tag| STANDARD.decode(tag).ok());
        tag.is_some_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
    });
    if !is_signed || age.abs() > 60 || id.contains('.') {
        return StatusCode::UNAUTHORIZED;
    }
    let event: SiteEvent = serde_json::from_slice(&body).unwrap();
    if receiver.refused.lock().unwrap().as_ref() == Some(&event.data.site) {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    receiver.taken.lock().unwrap().push((id, event));
    StatusCode::NO_CONTENT
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
