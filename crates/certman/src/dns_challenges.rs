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
        let base = host.as_str().trim_start_matches("*.");
        DnsRecord {
            owner: format!("{PREFIX}{base}"),
            ttl: certseal_issuance::preflight::TTL,
            kind: "CNAME".to_owned(),
            value: format!("{base}.{}.", self.zone),
        }
    }

    /// Where the answer for `host` goes: the end of the aliases of its `_acme-challenge`. None where that is in another zone.
    pub(crate) async fn owner(&self, host: &DnsName) -> Result<Option<String>, String> {
        let base = host.as_str().trim_start_matches("*.");
        let owner = self.survey.end_of_aliases(&format!("{PREFIX}{base}"), &self.zone).await?;
        let is_ours = owner.strip_suffix(self.zone.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        Ok(is_ours.then_some(owner))
    }

    /// Adds the answers, and looks whether all servers of the zone have them: a CA asks any.
    pub(crate) async fn publish(&self, answers: &[&Answer]) -> Result<(), Failure> {
        let mut published = Vec::new();
        for answer in answers {
            let owner =
                self.owner(&answer.host).await.map_err(unavailable)?.ok_or_else(|| self.not_delegated(answer))?;
            let value = value(answer);
            self.change("add", &owner, &value).await?;
            published.push((owner, value));
        }
        for (owner, value) in published {
            let servers = self.survey.texts(&owner).await;
            if servers.is_empty() {
                return Err(unavailable(format!("no server of {owner} is known")));
            }
            for (server, texts) in servers {
                if !texts.is_ok_and(|texts| texts.contains(&value)) {
                    return Err(unavailable(format!("server {server} does not have the new record of {owner} yet")));
                }
            }
        }
        Ok(())
    }

    /// Takes answers out that have served. One that stays harms nobody.
    pub(crate) async fn retract(&self, answers: &[&Answer]) {
        for answer in answers {
            let Ok(Some(owner)) = self.owner(&answer.host).await else { continue };
            if let Err(failure) = self.change("remove", &owner, &value(answer)).await {
                tracing::warn!(owner, detail = failure.detail, "a TXT record is left");
            }
        }
    }

    async fn change(&self, verb: &str, owner: &str, value: &str) -> Result<(), Failure> {
        match &self.way {
            Way::Update(writer) if verb == "add" => writer.add_text(owner, value).await.map_err(unavailable),
            Way::Update(writer) => writer.remove_text(owner, value).await.map_err(unavailable),
            Way::Command(command) => run(command, [verb, owner, value]).await.map_err(unavailable),
        }
    }

    fn not_delegated(&self, answer: &Answer) -> Failure {
        let detail = format!("{} is not delegated: expected {}", answer.host, self.delegation(&answer.host));
        Failure::new(FailureKind::Rejected, detail)
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

/// The digest of the key authorization, base64url (RFC 8555, 8.4).
fn value(answer: &Answer) -> String {
    let digest = digest::digest(&digest::SHA256, answer.key_authorization.as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

fn unavailable(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Unavailable, detail)
}

const PREFIX: &str = "_acme-challenge.";
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
            method: certseal_issuance::Method::Dns,
        };
        assert_eq!(value(&answer), "3iJpO12wfHHKVKmbpo4VqrXbTZBb6z8AF5XnvzpxLi4");
    }
}
