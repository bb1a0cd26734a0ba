//! A cheap caller of an HTTPS server: one mTLS connection over HTTP/1.1, answers unparsed.

use std::{net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    pub(crate) async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = TlsConnector::from(tls.clone()).connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Bytes {
        self.exchange(Request::get(path).header(HOST, "localhost").body(Full::default()).unwrap()).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: Bytes) -> Bytes {
        self.exchange(Request::put(path).header(HOST, "localhost").body(Full::new(body)).unwrap()).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Bytes {
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, StatusCode::OK, "{body:?}");
        body
    }
}
