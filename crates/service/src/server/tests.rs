use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A listener behind a load balancer of ours, which puts the last octet of the visitor's address before the rest.
struct Behind(TcpListener);

impl Listener for Behind {
    type Stream = TcpStream;

    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        Listener::accept(&mut self.0)
    }

    async fn identify(mut stream: TcpStream, _: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
        let last = stream.read_u8().await?;
        Ok((stream, (Ipv4Addr::new(192, 0, 2, last), 1).into()))
    }
}

/// The status line that a visitor gets who comes with `preface`, and the connection.
async fn visit(address: SocketAddr, preface: &[u8]) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(preface).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut answer = vec![0; 15];
    let read = stream.read_exact(&mut answer).await.map(|_| answer).unwrap_or_default();
    (String::from_utf8(read).unwrap(), stream)
}

#[tokio::test]
async fn a_connection_counts_for_whom_it_is_of_and_one_that_does_not_say_holds_up_nobody() {
    const OK: &str = "HTTP/1.1 200 OK";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_handle, shutdown) = Shutdown::new();
    let (counts, limits) = (Counts::default(), Limits { per_address: 1, ..Limits::default() });
    let seen = counts.clone();
    tokio::spawn(serve(
        Behind(listener),
        limits,
        counts,
        shutdown,
        never(),
        move |stream, peer: SocketAddr| async move {
            assert!(peer.ip().to_string().starts_with("192.0.2."));
            let service = hyper::service::service_fn(|_| async { Ok(Response::new(Body::empty())) });
            Some((stream, service))
        },
    ));
    // Silent about whose they are: they take no visitor's share.
    let _silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let (first, held) = visit(address, &[7]).await;
    assert_eq!(first, OK);
    let (other, _held) = visit(address, &[8]).await;
    assert_eq!(other, OK, "all come from the load balancer's address, and are not one visitor");
    assert_eq!(visit(address, &[7]).await.0, "");
    assert_eq!(seen.refused(), 1);
    drop(held);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while visit(address, &[7]).await.0 != OK {
        assert!(tokio::time::Instant::now() < deadline, "the place of who left");
    }
}
