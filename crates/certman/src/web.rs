//! Requests to servers that are not certseal's: to those of the platform over TLS with the CAs of the web, or on this machine; and to
//! others in the clear, for answers that are signed.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use certseal_wire::causes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// Makes requests, over connections that it keeps.
pub(crate) type WebClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(crate) fn web_client(config: rustls::ClientConfig) -> WebClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

/// The answer to `GET url`: its status, and its body if that came to an end and is not too long.
///
/// # Errors
/// Says why there is none in time.
pub(crate) async fn get(
    client: &WebClient,
    url: &str,
    patience: Duration,
) -> Result<(StatusCode, Option<Bytes>), String> {
    let answer = async {
        let request = Request::get(url).body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
        let response = client.request(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        // A connection whose answer was read is used again.
        let body = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
        Ok((status, body.ok().map(|body| body.to_bytes())))
    };
    let late = |_| Err(format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, answer).await.unwrap_or_else(late)
}

/// Makes requests in the clear, over connections that it keeps. Other schemes than `http` are refused.
pub(crate) type PlainClient = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn plain_client() -> PlainClient {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(tcp)
}

/// The address of a server of the platform. In the clear it is on this machine.
pub(crate) fn web_url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri = text.parse().with_context(|| format!("{text:?}"))?;
    let is_here = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_here => Ok(url),
        _ => bail!("expected an address such as https://platform.example/hooks, or http on this machine, got {text:?}"),
    }
}

const CONNECT: Duration = Duration::from_secs(10);

/// Octets of an answer that are read: a connection whose answer was read is used again.
pub(crate) const MOST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_the_clear_are_on_this_machine() {
        assert!(web_url("https://a.example/hooks").is_ok() && web_url("http://127.0.0.1:80/").is_ok());
        for bad in ["http://a.example/", "ftp://a.example", "a.example", ""] {
            assert!(web_url(bad).is_err(), "{bad}");
        }
    }
}
