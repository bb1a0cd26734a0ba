//! The record by which a CA validates a name for ever: dns-persist-01 (draft-ietf-acme-dns-persist, 3).

use certseal_wire::{DnsName, DnsRecord, Edit, Finding, FindingCode, RecordEdit};
use jiff::Timestamp;

use super::{
    caa::Issuer,
    targets::{TTL, joined},
};

/// The record that lets the CA issue for a name to our account, once both are known.
pub fn persist_record(name: &DnsName, issuer: &Issuer) -> Option<DnsRecord> {
    let (domain, account) = (issuer.identities.first()?, issuer.account.as_ref()?);
    let policy = if name.is_wildcard() { "; policy=wildcard" } else { "" };
    let value = format!("\"{domain}; accounturi={account}{policy}\"");
    Some(DnsRecord { owner: persist_owner(name), ttl: TTL, kind: "TXT".to_owned(), value })
}

/// Where that record stands.
pub fn persist_owner(name: &DnsName) -> String {
    format!("_validation-persist.{}", name.as_str().trim_start_matches("*."))
}

/// What stands in the way of a validation by that record. `seen` are the TXT records there, as each resolver has them, or why
/// it has none to tell.
pub fn persisted(
    name: &DnsName,
    seen: &[Result<Vec<String>, String>],
    issuer: &Issuer,
    now: Timestamp,
) -> Option<Finding> {
    let unknown = |detail: String| Some(Finding { code: FindingCode::NotAsked, detail, edits: Vec::new() });
    let Some(record) = persist_record(name, issuer) else {
        return unknown(
            "what its record of dns-persist-01 should say is not known before the CA has our account".to_owned(),
        );
    };
    let answers: Vec<&Vec<String>> = seen.iter().flatten().collect();
    if answers.is_empty() {
        let why = joined(seen.iter().filter_map(|seen| seen.as_ref().err()));
        return unknown(format!("its record of dns-persist-01 could not be asked for: {why}"));
    }
    // CAs ask from several places.
    if answers.iter().all(|texts| texts.iter().any(|text| permits(text, name, issuer, now))) {
        return None;
    }
    let detail = format!("the CA cannot validate it by dns-persist-01: expected {record}");
    let edits = vec![RecordEdit { edit: Edit::Add, record }];
    Some(Finding { code: FindingCode::ChallengeRecordMissing, detail, edits })
}

/// Whether a record lets the CA issue for the name to our account. What it says besides is of no account to the CA.
fn permits(text: &str, name: &DnsName, issuer: &Issuer, now: Timestamp) -> bool {
    let mut parts = text.split(';').map(str::trim);
    let domain = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameters: Vec<(String, &str)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(tag, value)| (tag.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let stated = |wanted: &str| parameters.iter().find(|(tag, _)| tag == wanted).map(|(_, value)| *value);
    let is_in_time = match stated("persistuntil") {
        None => true,
        Some(until) => until.parse::<i64>().is_ok_and(|until| now.as_second() <= until),
    };
    issuer.identities.contains(&domain)
        && stated("accounturi") == issuer.account.as_deref()
        && is_in_time
        && (!name.is_wildcard() || stated("policy").is_some_and(|policy| policy.eq_ignore_ascii_case("wildcard")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_for_the_ca_and_the_account_that_it_names_and_in_its_time() {
        let now = Timestamp::from_second(1_000).unwrap();
        let (host, wildcard): (DnsName, DnsName) = ("a.example".parse().unwrap(), "*.a.example".parse().unwrap());
        let account = "https://ca.example/acct/1";
        let issuer = Issuer {
            identities: vec!["ca.example".to_owned()],
            account: Some(account.to_owned()),
            methods: vec!["dns-persist-01".to_owned()],
        };
        let owner = "_validation-persist.a.example";
        let records = [&host, &wildcard].map(|name| persist_record(name, &issuer).unwrap());
        assert_eq!([&records[0].owner, &records[1].owner], [owner, owner]);
        assert_eq!(records[0].value, format!("\"ca.example; accounturi={account}\""));
        assert_eq!(records[1].value, format!("\"ca.example; accounturi={account}; policy=wildcard\""));

        let code = |name: &DnsName, seen: &[Result<Vec<String>, String>]| {
            persisted(name, seen, &issuer, now).map(|finding| finding.code)
        };
        let one = |text: String| [Ok(vec!["v=spf1 -all".to_owned(), text])];
        let good = format!("CA.example;accounturi={account} ; policy=wildcard; persistUntil=1000");
        assert_eq!((code(&host, &one(good.clone())), code(&wildcard, &one(good.clone()))), (None, None));
        let missing = Some(FindingCode::ChallengeRecordMissing);
        for bad in [
            format!("ca.example; accounturi={account}; persistUntil=999"),
            format!("ca.example; accounturi={account}; persistUntil=soon"),
            format!("other.example; accounturi={account}"),
            "ca.example; accounturi=https://ca.example/acct/2".to_owned(),
            "ca.example".to_owned(),
            String::new(),
        ] {
            assert_eq!(code(&host, &one(bad.clone())), missing, "{bad}");
        }
        assert_eq!(code(&wildcard, &one(format!("ca.example; accounturi={account}"))), missing, "no wildcard");
        let away = || Err("time-out".to_owned());
        assert_eq!(code(&host, &[away(), Ok(vec![good.clone()])]), None, "one that is away says nothing");
        assert_eq!(code(&host, &[Ok(Vec::new()), Ok(vec![good])]), missing, "not everywhere");
        assert_eq!(code(&host, &[away()]), Some(FindingCode::NotAsked));
        let unknown = Issuer { account: None, ..issuer.clone() };
        let finding = persisted(&host, &[Ok(Vec::new())], &unknown, now).unwrap();
        assert_eq!(finding.code, FindingCode::NotAsked);
    }
}
