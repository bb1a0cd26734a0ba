//! A cheap caller of certstore: one mTLS connection over HTTP/1.1, answers unparsed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{HOST, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;

pub struct Caller {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// How often it was told to come back later.
    pub refused: usize,
}

impl Caller {
    pub async fn connect(address: SocketAddr, tls: ClientConfig) -> Self {
        let tls = Arc::new(tls);
        Self { sender: connect(address, &tls).await, address, tls, refused: 0 }
    }

    pub async fn get(&mut self, path: &str) -> Bytes {
        self.exchange(Request::get(path).header(HOST, "localhost").body(Full::default()).unwrap()).await
    }

    pub async fn put(&mut self, path: &str, body: Vec<u8>) -> Bytes {
        self.exchange(Request::put(path).header(HOST, "localhost").body(Full::new(body.into())).unwrap()).await
    }

    /// Goes on until there is an answer that is no 429.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Bytes {
        loop {
            if self.sender.ready().await.is_err() {
                self.sender = connect(self.address, &self.tls).await;
            }
            let response = self.sender.send_request(request.clone()).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if parts.status == StatusCode::TOO_MANY_REQUESTS {
                self.refused += 1;
                let seconds = parts.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                continue;
            }
            assert!(parts.status.is_success(), "{} {}: {body:?}", parts.status, request.uri());
            return body;
        }
    }
}

async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls.clone());
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
