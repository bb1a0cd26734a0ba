//! One question to one server.

use std::{net::SocketAddr, time::Duration};

use hickory_net::{
    runtime::TokioRuntimeProvider,
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsHandle, DnsRequestSender, FirstAnswer},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Message, Query},
    rr::{Name, RecordType},
};

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    /// The server is to find the answer elsewhere.
    pub(crate) recursion: bool,
    /// The answer is wanted also if DNSSEC does not validate (RFC 4035, 3.2.2).
    pub(crate) unchecked: bool,
}

/// Puts a question, again over TCP where the answer does not fit.
///
/// # Errors
/// When no answer comes in time, or one that cannot be read.
pub(crate) async fn ask(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, String> {
    let answer = tokio::time::timeout(patience, exchange(server, question, patience)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
}

async fn exchange(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, String> {
    let mut stream = UdpClientStream::builder(server, TokioRuntimeProvider::new())
        .with_timeout(Some(patience))
        .with_max_retries(RETRIES)
        .with_retry_interval_floor(patience.as_millis() as u64 / (u64::from(RETRIES) + 1))
        .build();
    let answer = stream.send_message(request(question)).first_answer().await.map_err(|error| error.to_string())?;
    if !answer.truncation {
        return Ok(answer.into_message());
    }
    let exchange = TcpClientStream::exchange(server, None, patience, None, TokioRuntimeProvider::new()).await;
    let exchange = exchange.map_err(|error| format!("over TCP: {error}"))?;
    let answer = exchange.send(request(question)).first_answer().await;
    Ok(answer.map_err(|error| format!("over TCP: {error}"))?.into_message())
}

fn request(question: &Question) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = question.recursion;
    // As resolvers of CAs do, against forged answers (draft-vixie-dnsext-dns0x20).
    options.case_randomization = true;
    let mut request = DnsRequest::from_query(Query::query(question.name.clone(), question.kind), options);
    request.metadata.checking_disabled = question.unchecked;
    request
}

/// How often a question goes out again over UDP.
const RETRIES: u8 = 2;
