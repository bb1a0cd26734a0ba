//! Responses keep their place among the requests that are under way until they have ended.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// A response's body on its way to the visitor.
pub(crate) struct Download {
    body: Incoming,
    /// None once the body has ended.
    place: Option<OwnedSemaphorePermit>,
}

impl Download {
    pub(crate) fn new(body: Incoming, place: OwnedSemaphorePermit) -> Self {
        Self { body, place: Some(place) }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.place = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
