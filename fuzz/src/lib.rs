//! The properties that must hold for any bytes, one function for each parser of bytes from outside.
//!
//! cargo-fuzz runs them with coverage to guide it (`fuzz_targets/`), and `tests/corpus.rs` in every test run, over the
//! committed corpus and mutations of it.

use certseal_resolver::LocalKeys;
use certseal_seal::{
    Bundle, Draft, Envelope, LegacyKey, LegacySuite, SigningKey, VerifyingKey, VerifyingKeys, ring_changes,
};
use certseal_signer::{Request, Response, Service};
use certseal_unseal::{LegacyUnsealKey, UnsealKey, UnsealKeys, token::TokenUri};
use certseal_wire::{
    AcmeAccounts, Approval, Caller, Challenge, Checkpoint, Cursor, DnsName, DrillOrder, EdgeReport, FeedPage, Import,
    KeyRing, PoolName, Problem, Renewal, Replacement, Reseal, RewrapRequest, Role, Rotation, RotationPlan, Route,
    SealedPage, SealedQuery, Signed, SiteRequest, Staple, Upstream, Verification,
};

/// An envelope reads back as the same bytes or not at all; opening and verifying it never panics.
pub fn envelope(data: &[u8]) {
    if let Ok(envelope) = Envelope::parse(data) {
        assert_eq!(envelope.to_bytes(), data, "a second encoding was taken");
        let _ = envelope.verify(&VerifyingKeys::default());
        let _ = UnsealKeys::default().open(&envelope);
    }
    if let Ok(draft) = Draft::parse(data) {
        assert_eq!(draft.to_bytes(), data, "a second encoding of a draft was taken");
    }
}

/// A legacy key reads back as the same bytes or not at all; files of legacy key pairs and blobs never panic.
pub fn legacy(data: &[u8]) {
    if let Ok(key) = LegacyKey::parse(data) {
        assert_eq!(key.to_bytes(), data, "a second encoding was taken");
    }
    for suite in LegacySuite::ALL {
        let Ok(key) = LegacyUnsealKey::from_file(suite, data) else { continue };
        assert_eq!(key.id(), suite.key_id(key.public_key()));
    }
    // Any bytes as what a platform wrote, under a key pair that is there.
    let (suite, scalar) = (LegacySuite::EciesSecp256k1, [1; 32]);
    let Ok(key) = LegacyUnsealKey::from_file(suite, &scalar) else { return };
    if let Ok(sealed) = LegacyKey::new(suite, key.id(), data.to_vec()) {
        let _ = UnsealKeys::default().with_legacy([key]).open_sealed(&sealed.into());
    }
}

/// A bundle reads back as the same bytes or not at all.
pub fn bundle(data: &[u8]) {
    if let Ok(bundle) = Bundle::parse(data) {
        assert_eq!(bundle.to_bytes().ok().as_deref(), Some(data), "a second encoding was taken");
        let _ = bundle.verify(&VerifyingKeys::default());
    }
}

/// Key files: a key that is taken can be written and read back.
pub fn unseal_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = UnsealKey::from_pem(text) {
        let again = key.expose_pem().and_then(|text| UnsealKey::from_pem(&text).ok());
        assert!(again.is_some_and(|again| again.key_id() == key.key_id()), "a key did not survive its file");
    }
    let _ = SigningKey::from_pem(text);
    let _ = VerifyingKey::from_pem(text);
}

/// Documents and messages: one that is taken can be written and read back.
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
    round_trip::<Staple>(data);
    round_trip::<Approval>(data);
    round_trip::<DrillOrder>(data);
    round_trip::<EdgeReport>(data);
    round_trip::<Import>(data);
    round_trip::<Renewal>(data);
    round_trip::<Replacement>(data);
    round_trip::<Reseal>(data);
    round_trip::<RewrapRequest>(data);
    round_trip::<Rotation>(data);
    round_trip::<RotationPlan>(data);
    round_trip::<SealedPage>(data);
    round_trip::<SealedQuery>(data);
    round_trip::<Verification>(data);
    if let Ok(ring) = serde_json::from_slice::<KeyRing>(data) {
        let _ = ring_changes(&KeyRing::default(), &ring);
        assert!(ring_changes(&ring, &ring).is_err(), "a ring followed itself");
    }
}

/// Names and other short texts: a text that is taken is what it says it is.
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
    if let Ok(uri) = text.parse::<TokenUri>() {
        assert!(uri.to_string().parse::<TokenUri>().is_ok(), "a URI did not survive its text");
    }
    let Ok(domain) = "certseal.internal".parse() else { return };
    if let Ok(caller) = Caller::from_spiffe_id(text, &domain) {
        assert_eq!(caller.spiffe_id(&domain), text, "an identity has two forms");
    }
}

/// The messages between the two processes of an edge: one that is taken has one encoding, and a signer without keys
/// answers everything, but never with a signature.
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
