//! The DNS of the customers for a first look: two resolvers on loopback, by which all sites lead to the platform and one domain
//! does not. certman asks them as it asks any.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use anyhow::Context;
use certman::DnsConfig;
use certseal_service::Shutdown;
use certseal_wire::DnsName;
use hickory_proto::{
    op::{Message, Metadata, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use tokio::net::UdpSocket;

/// Starts the resolvers, and answers how certman looks at names by them: `sites` are aliases of the platform, and `broken` has
/// the address of a server that is not the platform's.
///
/// # Errors
/// When no port is free.
pub async fn start(sites: &[DnsName], broken: &DnsName, shutdown: &Shutdown) -> anyhow::Result<DnsConfig> {
    let target: DnsName = TARGET.parse()?;
    let mut records = Records::default();
    records.add(&target, RData::from(Ipv4Addr::LOCALHOST))?;
    let alias = CNAME(absolute(&target)?);
    for site in sites {
        records.add(site, RData::CNAME(alias.clone()))?;
    }
    records.add(broken, RData::from(ELSEWHERE))?;
    let records = Arc::new(records);
    let mut resolvers = Vec::new();
    for _ in 0..RESOLVERS {
        let address = resolver(records.clone(), shutdown.clone()).await.context("a resolver does not start")?;
        resolvers.push(address.to_string());
    }
    Ok(DnsConfig {
        resolvers,
        target: Some(target),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        denied: Vec::new(),
        private_networks: Vec::new(),
        fetch: false,
        fetch_port: 80,
        vantage_points: Vec::new(),
        challenges: None,
        reputation: None,
    })
}

/// A record for each name. Whatever else is asked for is there, without records.
#[derive(Default)]
struct Records(HashMap<Name, RData>);

impl Records {
    fn add(&mut self, name: &DnsName, data: RData) -> anyhow::Result<()> {
        self.0.insert(absolute(name)?, data);
        Ok(())
    }

    fn answer(&self, query: &Message) -> Message {
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&query.metadata);
        answer.metadata.recursion_available = true;
        answer.add_queries(query.queries.iter().cloned());
        let [question] = &query.queries[..] else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        if query.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        let kind = question.query_type();
        let mut at = question.name().clone();
        // Aliases lead to the target, which is none.
        while let Some(data) = self.0.get(&at) {
            if data.record_type() == kind || data.record_type() == RecordType::CNAME {
                answer.add_answer(Record::from_rdata(at, TTL, data.clone()));
            }
            match data {
                RData::CNAME(alias) if kind != RecordType::CNAME => at = alias.0.clone(),
                _ => break,
            }
        }
        answer
    }
}

async fn resolver(records: Arc<Records>, shutdown: Shutdown) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut datagram = [0; MOST_OCTETS];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut datagram) => received,
                () = shutdown.begun() => return,
            };
            let Ok((length, from)) = received else { continue };
            let Ok(query) = Message::from_vec(&datagram[..length]) else { continue };
            if let Ok(answer) = records.answer(&query).to_vec() {
                // An answer that is lost is asked for again.
                _ = socket.send_to(&answer, from).await;
            }
        }
    });
    Ok(address)
}

fn absolute(name: &DnsName) -> anyhow::Result<Name> {
    let mut name = Name::from_str(name.as_str())?;
    name.set_fqdn(true);
    Ok(name)
}

/// The host that the sites are aliases of.
const TARGET: &str = "edge.platform.example";
/// An address for documentation (RFC 5737), where nobody is.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// certman wants two or more.
const RESOLVERS: usize = 2;
const TTL: u32 = 300;
/// Of a question, with all that may come with it.
const MOST_OCTETS: usize = 1232;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use certseal_dns::{AllowedServers, Survey};
    use certseal_issuance::preflight::{Issuer, Targets, judged};
    use certseal_wire::{FindingCode, Readiness};

    use super::*;

    #[tokio::test]
    async fn a_survey_sees_the_sites_here_and_the_broken_domain_elsewhere() {
        let [site, broken, other] = ["site.example.com", "broken.example.com", "other.example.com"]
            .map(|name| name.parse::<DnsName>().unwrap());
        let (_handle, shutdown) = Shutdown::new();
        let config = start(std::slice::from_ref(&site), &broken, &shutdown).await.unwrap();
        let resolvers = config.resolvers.iter().map(|address| address.parse().unwrap());
        let survey = Survey::new(resolvers, AllowedServers::new(|_| false));
        let found = survey.addresses(&config.target.clone().unwrap()).await;
        assert_eq!(found, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        let targets = Targets { alias: config.target, addresses: config.addresses, found };
        for (name, code) in
            [(site, None), (broken, Some(FindingCode::WrongAddress)), (other, Some(FindingCode::NoAddress))]
        {
            let report = judged(&survey.observe(&name).await, &targets, &Issuer::default());
            assert_eq!(report.findings.first().map(|finding| finding.code), code, "{report:?}");
            assert_eq!(report.readiness == Readiness::Ready, code.is_none(), "{report:?}");
        }
    }
}
