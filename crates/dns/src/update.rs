//! Changes in a zone of the platform: TXT records by dynamic update (RFC 2136), signed with a shared key (TSIG, RFC 8945).

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use certseal_wire::DnsName;
use hickory_net::{
    runtime::TokioRuntimeProvider,
    udp::UdpClientStream,
    xfer::{DnsRequestSender, FirstAnswer},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Message, ResponseCode, update_message},
    rr::{
        Name, RData, Record, RecordSet, TSigner,
        rdata::{TXT, tsig::TsigAlgorithm},
    },
};

/// Why a zone was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The key is none.
    #[error("the key of updates: {0}")]
    Key(String),
    /// The name lies elsewhere.
    #[error("{owner} is not in zone {zone}")]
    Outside {
        /// The name.
        owner: String,
        /// The zone.
        zone: String,
    },
    /// No answer came, or none that can be trusted.
    #[error("the server of updates {server}: {detail}")]
    Unanswered {
        /// The server.
        server: SocketAddr,
        /// What happened.
        detail: String,
    },
    /// The server does not want to.
    #[error("the server of updates {server} answers {code}: it must let the key change TXT records of the zone")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// Its answer.
        code: String,
    },
}

/// Changes TXT records of one zone.
pub struct ZoneWriter {
    server: SocketAddr,
    zone: Name,
    signer: TSigner,
}

impl fmt::Debug for ZoneWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZoneWriter").field("server", &self.server).field("zone", &self.zone).finish_non_exhaustive()
    }
}

impl ZoneWriter {
    /// A writer of `zone` at its primary server. `algorithm` is `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    ///
    /// # Errors
    /// [`UpdateError::Key`].
    pub fn new(
        server: SocketAddr,
        zone: &DnsName,
        key_name: &str,
        algorithm: &str,
        secret: Vec<u8>,
    ) -> Result<Self, UpdateError> {
        let algorithm = match algorithm {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            other => {
                return Err(UpdateError::Key(format!(
                    "expected algorithm hmac-sha256, hmac-sha384 or hmac-sha512, got {other:?}"
                )));
            }
        };
        let name = |text: &str| Name::from_str(text).map_err(|error| UpdateError::Key(format!("{text:?}: {error}")));
        let mut own = name(zone.as_str())?;
        own.set_fqdn(true);
        let signer = TSigner::new(secret, algorithm, name(key_name)?, FUDGE);
        let signer = signer.map_err(|error| UpdateError::Key(error.to_string()))?;
        Ok(Self { server, zone: own, signer })
    }

    /// Adds a TXT record. One that is there already stays.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn add_text(&self, owner: &str, value: &str) -> Result<(), UpdateError> {
        let records = self.records(owner, value)?;
        self.send(update_message::append(records, self.zone.clone(), false, false)).await
    }

    /// Removes a TXT record, and leaves others of the same name.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn remove_text(&self, owner: &str, value: &str) -> Result<(), UpdateError> {
        let records = self.records(owner, value)?;
        self.send(update_message::delete_by_rdata(records, self.zone.clone(), false)).await
    }

    fn records(&self, owner: &str, value: &str) -> Result<RecordSet, UpdateError> {
        let outside = || UpdateError::Outside { owner: owner.to_owned(), zone: self.zone.to_ascii() };
        let mut name = Name::from_str(owner).map_err(|_| outside())?;
        name.set_fqdn(true);
        if !self.zone.zone_of(&name) {
            return Err(outside());
        }
        Ok(Record::from_rdata(name, TTL, RData::TXT(TXT::new(vec![value.to_owned()]))).into())
    }

    async fn send(&self, update: Message) -> Result<(), UpdateError> {
        let unanswered = |detail: String| UpdateError::Unanswered { server: self.server, detail };
        let mut stream = UdpClientStream::builder(self.server, TokioRuntimeProvider::new())
            .with_timeout(Some(PATIENCE))
            .with_signer(Some(self.signer.clone()))
            .build();
        let mut options = DnsRequestOptions::default();
        options.recursion_desired = false;
        let answer = stream.send_message(DnsRequest::new(update, options)).first_answer();
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| unanswered(format!("no answer within {} s", PATIENCE.as_secs())))?;
        match answer.map_err(|error| unanswered(error.to_string()))?.metadata.response_code {
            ResponseCode::NoError => Ok(()),
            other => Err(UpdateError::Refused { server: self.server, code: crate::resolver::code_name(other) }),
        }
    }
}

/// Of a record that serves one validation.
const TTL: u32 = 30;
/// How far the clocks of both sides may be apart, in seconds (RFC 8945, 10).
const FUDGE: u16 = 300;
const PATIENCE: Duration = Duration::from_secs(5);
