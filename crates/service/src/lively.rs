//! Connections on which nothing moves are closed, and those that have lived for their time.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A byte stream that fails when no octet was read or written for a time, and after its lifetime.
///
/// It covers what has no limit of its own: a visitor that sends nothing after the handshake, one that does not read, an
/// upstream that stops in the middle of a response, an upgraded connection that was forgotten. Unlike the task of a
/// connection, the stream goes on after an upgrade, so what the connection holds is kept here.
pub(crate) struct Lively<I, H> {
    io: I,
    _held: H,
    idle: Duration,
    deadline: Instant,
    end: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<I, H> Lively<I, H> {
    /// The first octet must move within `first`, each further one within `idle`, and all within `lifetime`. `held` is
    /// dropped with the stream.
    pub(crate) fn new(io: I, held: H, first: Duration, idle: Duration, lifetime: Duration) -> Self {
        let now = Instant::now();
        let end = now.checked_add(lifetime).unwrap_or(now + FOREVER);
        let deadline = end.min(now + first);
        Self { io, _held: held, idle, deadline, end, alarm: Box::pin(sleep_until(deadline)) }
    }

    /// An operation's outcome, or a failure when it has been waiting for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection's lifetime is over")));
            }
            self.deadline = self.end.min(now + self.idle);
            return outcome;
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing moved for too long, or the lifetime is over",
                )));
            }
            // Octets have moved since the alarm was set.
            self.alarm.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin, H: Unpin> AsyncRead for Lively<I, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(context, buffer);
        self.watch(context, outcome)
    }
}

impl<I: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Lively<I, H> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, octets);
        self.watch(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushing what is flushed already succeeds at any time, so success shows nothing.
        match Pin::new(&mut self.io).poll_flush(context) {
            Poll::Pending => self.watch(context, Poll::Pending),
            ready => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, octets);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// As long as timers can surely count.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const FIRST: Duration = Duration::from_millis(150);
    const IDLE: Duration = Duration::from_millis(600);

    #[tokio::test]
    async fn a_silent_connection_fails_and_a_slow_one_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let begun = Instant::now();
        let error = Lively::new(ours, (), FIRST, IDLE, FOREVER).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= FIRST && begun.elapsed() < IDLE);
        assert!(theirs.write_u8(1).await.is_err(), "the connection is still open");

        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut lively = Lively::new(ours, (), FIRST, IDLE, FOREVER);
        theirs.write_u8(1).await.unwrap();
        lively.read_u8().await.unwrap();
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(IDLE / 2).await;
                theirs.write_u8(2).await.unwrap();
            }
            theirs
        };
        let reads = async {
            for _ in 0..4 {
                assert_eq!(lively.read_u8().await.unwrap(), 2);
            }
        };
        let (_theirs, ()) = tokio::join!(slow, reads);
        assert_eq!(lively.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let written = Lively::new(ours, (), FIRST, FIRST, FOREVER).write_all(&[0; 64]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_lively_connection_ends_with_its_lifetime() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut lively = Lively::new(ours, (), IDLE, IDLE, FIRST);
        let begun = Instant::now();
        tokio::spawn(async move { while theirs.write_u8(1).await.is_ok() {} });
        let error = loop {
            match lively.read_u8().await {
                Ok(_) => assert!(begun.elapsed() < FIRST + IDLE, "it goes on"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= FIRST);
    }
}
