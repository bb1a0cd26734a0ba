//! The wake-up of waiting readers.

use certseal_store::Position;
use tokio::sync::watch;

/// The sequence number of the newest durable event that was announced. Its clones are one and the same.
#[derive(Clone)]
pub(crate) struct News(watch::Sender<u64>);

impl News {
    pub(super) fn new(head: u64) -> Self {
        Self(watch::Sender::new(head))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// Wakes readers that wait for news up to this position.
    pub(crate) fn announce(&self, position: Position) {
        self.0.send_if_modified(|seq| {
            let newer = position.seq > *seq;
            *seq = (*seq).max(position.seq);
            newer
        });
    }
}
