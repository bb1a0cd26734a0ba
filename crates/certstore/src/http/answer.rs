//! Answers: documents as they are stored, and large ones that hold their permits until they are sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use certseal_service::problem::Refusal;
use http_body::Frame;
use tokio::task::JoinHandle;

use crate::{
    actor::Actor,
    admission::{Admission, PagePermit, Turn},
};

/// A document as it is stored.
pub(crate) fn document(bytes: Vec<u8>) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, JSON)], bytes).into_response()
}

/// A large answer as JSON, counted among the pages that wait to be sent.
pub(crate) fn large<T: serde::Serialize>(
    admission: &Admission,
    actor: &Actor,
    answer: &T,
) -> Result<Response, Refusal> {
    let bytes = serde_json::to_vec(answer).map_err(Refusal::internal)?;
    let page = admission.page(actor, bytes.len())?;
    Ok(([(CONTENT_TYPE, JSON)], held(bytes.into(), page)).into_response())
}

/// A body that keeps its permit for a page until it is sent. It leaves in parts, so that a reader that stops holds no
/// more than the permit counts.
pub(crate) fn held(data: Bytes, page: PagePermit) -> Body {
    Body::new(Held { data, _page: page, turn: None })
}

/// A body that also keeps its turn among the large requests until it is sent, but not for long: readers that are slow
/// must not keep others out.
pub(crate) fn held_in_turn(data: Bytes, page: PagePermit, turn: Turn) -> Body {
    let turn = tokio::spawn(async move {
        tokio::time::sleep(LONGEST_TURN).await;
        drop(turn);
    });
    Body::new(Held { data, _page: page, turn: Some(turn) })
}

struct Held {
    data: Bytes,
    _page: PagePermit,
    turn: Option<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            turn.abort();
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.data.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.data.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.data.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.data.len() as u64)
    }
}

pub(crate) const JSON: &str = "application/json";
/// How long an answer that is being sent keeps its turn.
const LONGEST_TURN: Duration = Duration::from_secs(1);
/// Octets of a part of a body.
const PART: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use certseal_wire::Caller;

    use super::*;
    use crate::admission::HEAVY;

    fn caller(name: &str) -> Caller {
        Caller { role: "edge/eu".parse().unwrap(), name: name.into() }
    }

    #[tokio::test]
    async fn a_reader_that_stops_gives_its_turn_to_others_and_its_octets_stay_counted() {
        let admission = Admission::new();
        let data = Bytes::from(vec![0; 1024 * 1024]);
        let mut stopped = Vec::new();
        for n in 0..HEAVY {
            let turn = admission.heavy(&caller(&n.to_string())).await.unwrap();
            stopped.push(held_in_turn(
                data.clone(),
                admission.page(&caller(&n.to_string()), data.len()).unwrap(),
                turn,
            ));
        }
        let began = Instant::now();
        admission.heavy(&caller("next")).await.unwrap();
        assert!(began.elapsed() < 2 * LONGEST_TURN, "it waited for readers that do not read");
        assert_eq!(admission.octets_waiting(), HEAVY * 1024 * 1024);
        drop(stopped);
        assert_eq!(admission.octets_waiting(), 0);
    }
}
