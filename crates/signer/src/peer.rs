//! The process at the other end of a Unix socket.

use std::{io, os::fd::AsFd};

use rustix::net::sockopt::socket_peercred;

/// Refuses the other end unless it is a process of user `expected`. The kernel answers, not the other end: of a client
/// it names the user at the time of the connect, of a listener the user when it began to listen (unix(7), SO_PEERCRED).
pub(crate) fn expect_user(stream: impl AsFd, expected: u32) -> io::Result<()> {
    let found = socket_peercred(stream)?.uid.as_raw();
    if found == expected {
        return Ok(());
    }
    let text = format!("expected a process of user {expected} at the other end of the socket, got one of user {found}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_expected_user_passes() {
        let (one, other) = UnixStream::pair().unwrap();
        let own = rustix::process::getuid().as_raw();
        assert!(expect_user(&one, own).is_ok() && expect_user(&other, own).is_ok());
        let error = expect_user(&one, own + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(&format!("got one of user {own}")), "{error}");
    }
}
