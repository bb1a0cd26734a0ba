//! What must hold for any bytes, one function for each parser of bytes from outside.
//!
//! cargo-fuzz runs them with coverage to guide it (`fuzz_targets/`), and `tests/corpus.rs` in every test run, over the
//! committed corpus and mutations of it.

use certseal_resolver::LocalKeys;
use certseal_seal::{Bundle, Envelope, SigningKey, VerifyingKey, VerifyingKeys};
use certseal_signer::{Request, Response, Service};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    AcmeAccounts, Caller, Challenge, Checkpoint, Cursor, DnsName, FeedPage, KeyRing, PoolName, Problem, Role, Route,
    Signed, SiteRequest, Upstream,
};

/// An envelope reads back as the same bytes or not at all; opening and verifying it never panics.
pub fn envelope(data: &[u8]) {
    if let Ok(envelope) = Envelope::parse(data) {
        assert_eq!(envelope.to_bytes(), data, "a second encoding was taken");
        let _ = envelope.verify(&VerifyingKeys::default());
        let _ = UnsealKeys::default().open(&envelope);
    }
}

/// A bundle reads back as the same bytes or not at all.
pub fn bundle(data: &[u8]) {
    if let Ok(bundle) = Bundle::parse(data) {
        assert_eq!(bundle.to_bytes().ok().as_deref(), Some(data), "a second encoding was taken");
        let _ = bundle.verify(&VerifyingKeys::default());
    }
}

/// Key files: what is taken can be written and read back.
pub fn unseal_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = UnsealKey::from_pem(text) {
        let again = key.expose_pem().and_then(|text| UnsealKey::from_pem(&text).ok());
        assert!(again.is_some_and(|again| again.key_id() == key.key_id()), "a key did not survive its file");
    }
    let _ = SigningKey::from_pem(text);
    let _ = VerifyingKey::from_pem(text);
}

/// Documents and messages: what is taken can be written and read back.
pub fn documents(data: &[u8]) {
    fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) {
        if let Ok(value) = serde_json::from_slice::<T>(data) {
            let again = serde_json::to_vec(&value).ok().and_then(|json| serde_json::from_slice::<T>(&json).ok());
            assert_eq!(again, Some(value), "a document did not survive its encoding");
        }
    }
    round_trip::<AcmeAccounts>(data);
    round_trip::<Challenge>(data);
    round_trip::<Checkpoint>(data);
    round_trip::<FeedPage>(data);
    round_trip::<KeyRing>(data);
    round_trip::<Problem>(data);
    round_trip::<Route>(data);
    round_trip::<Signed>(data);
    round_trip::<SiteRequest>(data);
}

/// Names and other short texts: what is taken is what it says it is.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<DnsName>() {
        assert!(name.as_str().len() <= 253 && name.as_str().is_ascii());
        assert_eq!(name.as_str().parse::<DnsName>().as_ref(), Ok(&name), "a name has two forms");
    }
    let _ = text.parse::<PoolName>();
    let _ = text.parse::<Upstream>();
    let _ = text.parse::<Cursor>();
    let _ = text.parse::<Role>();
    let Ok(domain) = "certseal.internal".parse() else { return };
    if let Ok(caller) = Caller::from_spiffe_id(text, &domain) {
        assert_eq!(caller.spiffe_id(&domain), text, "an identity has two forms");
    }
}

/// What the two processes of an edge say to each other: what is taken has one encoding, and a signer without keys answers
/// everything, but never with a signature.
pub fn signer(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        assert_eq!(request.to_frame().ok().as_deref().and_then(|frame| frame.get(4..)), Some(data));
    }
    if let Ok(response) = Response::parse(data) {
        assert_eq!(response.to_frame().ok().as_deref().and_then(|frame| frame.get(4..)), Some(data));
    }
    let Some(keys) = "eu".parse().ok().and_then(|pool| LocalKeys::new(&pool, UnsealKeys::default()).ok()) else {
        return;
    };
    let answer = Service::new(keys, 1 << 16).answer(data);
    assert!(!matches!(answer, Response::Signature(_) | Response::Done), "{answer:?}");
    assert!(answer.to_frame().is_ok(), "an answer that cannot be sent");
}
