use axum::{Router, extract::DefaultBodyLimit, middleware, routing::put};
use certseal_wire::Problem;
use tokio::{sync::mpsc, task::JoinHandle};
use tower::ServiceExt;

use super::*;

const LIMITS: BodyLimits = BodyLimits {
    largest: 100_000,
    in_all: 250_000,
    of_a_caller: 120_000,
    patience: Duration::from_secs(10),
    slowest: 10_000,
};

/// A body whose octets come when the test says so; of an announced length, or of one that nobody knows.
struct Upload(mpsc::Receiver<usize>, Option<usize>);

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|octets| octets.map(|octets| Ok(Frame::data(vec![0; octets].into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.1.map_or_else(SizeHint::default, |octets| SizeHint::with_exact(octets as u64))
    }
}

/// A handler that reads its body and answers its length; of a caller whose name is `never` it reads none.
fn app(bodies: Option<&Bodies>) -> Router {
    let handler = async |request: Request| {
        if request.extensions().get::<Caller>().unwrap().name == "never" {
            return Refusal::new(ProblemKind::Forbidden, "not you").into_response();
        }
        match axum::body::to_bytes(request.into_body(), usize::MAX).await {
            Ok(octets) => octets.len().to_string().into_response(),
            Err(error) => Refusal::new(ProblemKind::Malformed, error.to_string()).into_response(),
        }
    };
    let app = Router::new().route("/", put(handler)).layer(DefaultBodyLimit::disable());
    match bodies {
        Some(bodies) => app.layer(middleware::from_fn_with_state(bodies.clone(), within_budget)),
        None => app,
    }
}

/// Begins an upload; its octets come through the sender.
fn begin(
    app: &Router,
    name: &str,
    announced: Option<usize>,
) -> (mpsc::Sender<usize>, JoinHandle<Result<String, Problem>>) {
    let (sender, receiver) = mpsc::channel(100);
    let mut request = Request::put("/").body(Body::new(Upload(receiver, announced))).unwrap();
    request.extensions_mut().insert(Caller { role: "admin".parse().unwrap(), name: name.to_owned() });
    let app = app.clone();
    let answer = tokio::spawn(async move {
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        if status.is_success() {
            Ok(String::from_utf8(body.into()).unwrap())
        } else {
            Err(serde_json::from_slice(&body).unwrap())
        }
    });
    (sender, answer)
}

async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_uploads_leave_room_for_others_and_end() {
    let bodies = Bodies::new(LIMITS);
    let app = app(Some(&bodies));
    let stalled = begin(&app, "stalls", Some(100_000));
    settled().await;
    // Its share is used up, whatever came of it: a second one is refused before it is read.
    let refused = begin(&app, "stalls", Some(100_000)).1.await.unwrap().unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (ProblemKind::Busy, true));
    // Others do not notice.
    let (sender, answer) = begin(&app, "polite", Some(50_000));
    sender.send(50_000).await.unwrap();
    drop(sender);
    assert_eq!(answer.await.unwrap().unwrap(), "50000");
    // Unless all of it is used up.
    let second = begin(&app, "stalls-too", Some(100_000));
    settled().await;
    let refused = begin(&app, "polite", Some(60_000)).1.await.unwrap().unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Busy);
    // Nobody waits for the two for longer than their length takes.
    let began = Instant::now();
    for (_sender, answer) in [stalled, second] {
        assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::TimedOut);
    }
    assert!(began.elapsed() <= Duration::from_secs(21), "{:?}", began.elapsed());
    assert_eq!(bodies.octets.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_read_costs_nothing_once_it_is_refused() {
    let bodies = Bodies::new(LIMITS);
    let app = app(Some(&bodies));
    let mut senders = Vec::new();
    for _ in 0..100 {
        let (sender, answer) = begin(&app, "never", Some(100_000));
        assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::Forbidden);
        senders.push(sender);
    }
    assert_eq!(bodies.octets.taken(), 0);
}

/// Over HTTP/1 a client that finds the connection closed while it sends never reads the answer.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_nobody_reads_is_taken_from_the_connection() {
    let app = app(Some(&Bodies::new(LIMITS)));
    let (sender, answer) = begin(&app, "never", Some(50_000));
    settled().await;
    assert!(!answer.is_finished(), "it was answered while its client was sending");
    sender.send(50_000).await.unwrap();
    drop(sender);
    assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::Forbidden);
    // But nobody waits for it for long, nor for a large one at all.
    for (octets, most) in [(50_000, BRIEFLY), (70_000, Duration::ZERO)] {
        let began = Instant::now();
        let (_sender, answer) = begin(&app, "never", Some(octets));
        assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::Forbidden);
        assert!(began.elapsed() <= most + Duration::from_millis(5), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn octets_that_nobody_announced_count_as_they_come() {
    let bodies = Bodies::new(LIMITS);
    let app = app(Some(&bodies));
    // Slow, but not too slow: 5,000 octets each half a second.
    let (sender, answer) = begin(&app, "a", None);
    let took = Instant::now();
    for _ in 0..20 {
        sender.send(5_000).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(bodies.octets.taken(), 100_000);
    assert!(took.elapsed() > LIMITS.patience);
    let (second, refused) = begin(&app, "a", None);
    second.send(30_000).await.unwrap();
    assert_eq!(refused.await.unwrap().unwrap_err().kind, ProblemKind::Busy);
    drop(sender);
    assert_eq!(answer.await.unwrap().unwrap(), "100000");
    let (sender, answer) = begin(&app, "a", None);
    sender.send(100_001).await.unwrap();
    assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::TooLarge);
    let (_sender, answer) = begin(&app, "a", Some(100_001));
    assert_eq!(answer.await.unwrap().unwrap_err().kind, ProblemKind::TooLarge);
    assert_eq!(bodies.octets.taken(), 0);
}

/// The control.
#[tokio::test(start_paused = true)]
async fn a_handler_without_the_budget_buffers_whatever_comes() {
    let app = app(None);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let (sender, answer) = begin(&app, "stalls", Some(100_000));
        sender.send(99_999).await.unwrap();
        stalled.push((sender, answer));
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for (sender, answer) in stalled {
        assert!(!answer.is_finished());
        drop(sender);
        assert_eq!(answer.await.unwrap().unwrap(), "99999");
    }
}
