//! One signal to stop, seen by every task.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Tells tasks when to stop.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Begins the shutdown when it is dropped or told to.
#[derive(Debug)]
pub struct ShutdownHandle(watch::Sender<bool>);

impl Shutdown {
    /// A shutdown that the handle begins.
    pub fn new() -> (ShutdownHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownHandle(sender), Self(receiver))
    }

    /// A shutdown that SIGINT or SIGTERM begins.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signal() -> io::Result<Self> {
        let (handle, shutdown) = Self::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
            handle.begin();
        });
        Ok(shutdown)
    }

    /// Waits until the shutdown has begun.
    pub async fn begun(&self) {
        let mut receiver = self.0.clone();
        // An error means that the handle is gone, which begins the shutdown too.
        let _ = receiver.wait_for(|begun| *begun).await;
    }

    /// Whether the shutdown has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl ShutdownHandle {
    /// Begins the shutdown.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}
