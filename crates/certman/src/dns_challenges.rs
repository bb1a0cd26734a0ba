//! dns-01 (RFC 8555, 8.4): TXT records in a zone of the platform, to which customers delegate `_acme-challenge` once and for all.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use aws_lc_rs::digest;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use certseal_dns::{Survey, ZoneWriter};
use certseal_issuance::{Answer, Failure, FailureKind};
use certseal_service::config;
use certseal_wire::{DnsName, DnsRecord};
use tokio::process::Command;

use crate::config::{DnsChallenges as Settings, address};

/// Puts answers into the DNS, and takes them out.
pub(crate) struct DnsChallenges {
    survey: Survey,
    zone: DnsName,
    way: Way,
}

enum Way {
    Update(ZoneWriter),
    /// A program and its first arguments; `add` or `remove`, the owner and the value follow.
    Command(Vec<String>),
}

impl DnsChallenges {
    /// `survey` may ask servers at any address: those of the zone are the platform's own.
    pub(crate) fn new(settings: &Settings, survey: Survey) -> anyhow::Result<Self> {
        let Settings { zone, server, key_name, key_file, algorithm, command } = settings;
        let way = match (server, command) {
            (Some(server), None) => {
                let server = address(server)?;
                let (Some(key_name), Some(key_file)) = (key_name, key_file) else {
                    anyhow::bail!("expected dns.challenges.key_name and key_file beside server");
                };
                let secret = config::read_private(key_file)?;
                let secret = STANDARD
                    .decode(secret.trim())
                    .with_context(|| format!("expected a key in base64 in {}", key_file.display()))?;
                ensure!(secret.len() >= 16, "expected a key of at least 16 octets in {}", key_file.display());
                Way::Update(ZoneWriter::new(server, zone, key_name, algorithm, secret)?)
            }
            (None, Some(command)) => {
                ensure!(!command.is_empty(), "expected a program in dns.challenges.command");
                Way::Command(command.clone())
            }
            _ => anyhow::bail!("expected either dns.challenges.server or dns.challenges.command"),
        };
        Ok(Self { survey, zone: zone.clone(), way })
    }

    /// The record by which `host` delegates its challenges.
    pub(crate) fn delegation(&self, host: &DnsName) -> DnsRecord {
        DnsRecord {
            owner: format!("{PREFIX}{}", base(host)),
            ttl: certseal_issuance::preflight::TTL,
            kind: "CNAME".to_owned(),
            value: format!("{}.", self.owner(host)),
        }
    }

    /// Whether the challenges of `host` are delegated: to its own record in the zone, and to no other customer's.
    pub(crate) async fn is_delegated(&self, host: &DnsName) -> Result<bool, String> {
        self.survey.leads_to(&format!("{PREFIX}{}", base(host)), &self.owner(host)).await
    }

    /// Adds the answers, and looks whether the servers of the zone have them: a CA asks any.
    pub(crate) async fn publish(&self, answers: &[&Answer]) -> Result<(), Failure> {
        let published = tokio::time::timeout(ALL, self.publish_all(answers)).await;
        published.unwrap_or_else(|_| Err(unavailable(format!("the records were not there within {} s", ALL.as_secs()))))
    }

    async fn publish_all(&self, answers: &[&Answer]) -> Result<(), Failure> {
        for answer in answers {
            if !self.is_delegated(&answer.host).await.map_err(unavailable)? {
                let (host, record) = (&answer.host, self.delegation(&answer.host));
                let detail = format!("the challenges of {host} are not delegated: expected {record}");
                return Err(Failure::new(FailureKind::Rejected, detail));
            }
            self.change("add", answer).await?;
        }
        for answer in answers {
            let (owner, value) = (self.owner(&answer.host), value(answer));
            // One that does not answer us does not answer a CA, which asks another one.
            let servers = self.survey.texts(&owner).await;
            let answering: Vec<_> = servers.into_iter().filter_map(|(at, texts)| Some((at, texts.ok()?))).collect();
            if answering.is_empty() {
                return Err(unavailable(format!("no server of {owner} answers")));
            }
            if let Some((server, _)) = answering.iter().find(|(_, texts)| !texts.contains(&value)) {
                return Err(unavailable(format!("server {server} does not have the new record of {owner} yet")));
            }
        }
        Ok(())
    }

    /// Takes answers out that have served. One that stays proves nothing any more: no CA waits for it.
    pub(crate) async fn retract(&self, answers: &[&Answer]) {
        for answer in answers {
            if let Err(failure) = self.change("remove", answer).await {
                let owner = self.owner(&answer.host);
                tracing::warn!(owner, detail = failure.detail, "a TXT record is left");
            }
        }
    }

    /// Where the answers for `host` go.
    fn owner(&self, host: &DnsName) -> String {
        format!("{}.{}", base(host), self.zone)
    }

    async fn change(&self, verb: &str, answer: &Answer) -> Result<(), Failure> {
        let (owner, value) = (self.owner(&answer.host), value(answer));
        match &self.way {
            Way::Update(writer) if verb == "add" => writer.add_text(&owner, &value).await.map_err(unavailable),
            Way::Update(writer) => writer.remove_text(&owner, &value).await.map_err(unavailable),
            Way::Command(command) => run(command, [verb, &owner, &value]).await.map_err(unavailable),
        }
    }
}

/// Runs the operator's program. It is to do the same again when it is called again.
async fn run(command: &[String], arguments: [&str; 3]) -> Result<(), String> {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).args(arguments).kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::time::timeout(PATIENCE, process.output()).await;
    let output = output.map_err(|_| format!("{} did not end within {} s", command[0], PATIENCE.as_secs()))?;
    let output = output.map_err(|error| format!("{} cannot be run: {error}", command[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(200).collect();
    Err(format!("{} {} ended with {}: {said}", command[0], arguments[0], output.status))
}

/// The name that a wildcard stands above; another name itself. Both share a record (RFC 8555, 8.4).
fn base(host: &DnsName) -> &str {
    host.as_str().trim_start_matches("*.")
}

/// The digest of the key authorization, base64url (RFC 8555, 8.4).
fn value(answer: &Answer) -> String {
    let digest = digest::digest(&digest::SHA256, answer.key_authorization.as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

fn unavailable(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Unavailable, detail)
}

const PREFIX: &str = "_acme-challenge.";
/// For all answers of an order together: it holds one of the places for orders.
const ALL: Duration = Duration::from_secs(120);
/// For the operator's program.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_of_the_operators_is_called_with_the_record_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("calls");
        let script = format!("echo \"$@\" >> {}", file.display());
        let command = ["/bin/sh", "-c", &script, "hook"].map(str::to_owned);
        run(&command, ["add", "a.acme.example", "text; $(false)"]).await.unwrap();
        run(&command, ["remove", "a.acme.example", "text"]).await.unwrap();
        let calls = std::fs::read_to_string(&file).unwrap();
        assert_eq!(calls, "add a.acme.example text; $(false)\nremove a.acme.example text\n");

        let failing = ["/bin/sh", "-c", "echo no such zone >&2; exit 3"].map(str::to_owned);
        let said = run(&failing, ["add", "a.acme.example", "text"]).await.unwrap_err();
        assert!(said.contains("exit status: 3: no such zone"), "{said}");
        let said = run(&["/nowhere/hook".to_owned()], ["add", "a", "b"]).await.unwrap_err();
        assert!(said.contains("/nowhere/hook cannot be run"), "{said}");
    }

    #[test]
    fn a_value_is_the_digest_of_the_key_authorization() {
        let answer = Answer {
            host: "a.example".parse().unwrap(),
            token: "t".into(),
            // As an ACME client in the wild makes it: `printf t.print | openssl dgst -sha256 -binary | basenc --base64url`.
            key_authorization: "t.print".into(),
            method: certseal_wire::ValidationMethod::Dns,
        };
        assert_eq!(value(&answer), "3iJpO12wfHHKVKmbpo4VqrXbTZBb6z8AF5XnvzpxLi4");
    }
}
