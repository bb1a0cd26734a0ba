//! One question to one server.

use std::{net::SocketAddr, time::Duration};

use hickory_net::{
    NetError,
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

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no answer within {0} s")]
    TimedOut(u64),
    /// The network or the answer itself is at fault.
    #[error("{0}")]
    Broken(String),
}

/// Puts a question, again over TCP where the answer does not fit.
///
/// # Errors
/// When no answer comes in time, or one that cannot be read.
pub(crate) async fn ask(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, Unanswered> {
    let timed_out = Unanswered::TimedOut(patience.as_secs());
    match tokio::time::timeout(patience, exchange(server, question, patience)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(NetError::Timeout)) | Err(_) => Err(timed_out),
        Ok(Err(error)) => Err(Unanswered::Broken(error.to_string())),
    }
}

async fn exchange(server: SocketAddr, question: &Question, patience: Duration) -> Result<Message, NetError> {
    let mut stream = UdpClientStream::builder(server, TokioRuntimeProvider::new())
        .with_timeout(Some(patience))
        .with_max_retries(SENDINGS)
        .with_retry_interval_floor(patience.as_millis() as u64 / u64::from(SENDINGS))
        .build();
    let answer = stream.send_message(request(question)).first_answer().await?;
    if !answer.truncation {
        return Ok(answer.into_message());
    }
    let exchange = TcpClientStream::exchange(server, None, patience, None, TokioRuntimeProvider::new()).await?;
    Ok(exchange.send(request(question)).first_answer().await?.into_message())
}

fn request(question: &Question) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = question.recursion;
    let mut request = DnsRequest::from_query(Query::query(question.name.clone(), question.kind), options);
    request.metadata.checking_disabled = question.unchecked;
    request
}

/// How often a question goes out over UDP.
const SENDINGS: u8 = 3;
