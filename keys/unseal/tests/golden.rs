//! The golden envelopes of formats 1 and 2: stored envelopes stay readable. `docs/envelope.md` explains their fields.

#![allow(clippy::unwrap_used)]

use certseal_seal::{Envelope, SigningKey, VerifyingKey, VerifyingKeys, names_digest, spki_digest};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::NameSet;
use serde::Deserialize;

#[test]
fn the_p256_envelope_opens_and_has_one_encoding() {
    let golden = Golden::read(include_str!("../../vectors/envelope-p256.json"));
    assert_eq!(golden.suite, 1);
    assert_eq!(golden.opened().stanzas().len(), 2);
}

#[test]
fn the_x25519_envelope_opens_and_has_one_encoding() {
    let golden = Golden::read(include_str!("../../vectors/envelope-x25519.json"));
    assert_eq!(golden.suite, 2);
    assert_eq!(golden.opened().stanzas().len(), 1);
}

#[test]
fn the_envelope_of_a_group_opens_and_has_one_encoding() {
    let golden = Golden::read(include_str!("../../vectors/envelope-group.json"));
    assert_eq!(golden.suite, 1);
    let envelope = golden.opened();
    assert_eq!((envelope.to_bytes()[4], envelope.header().group.is_some(), envelope.stanzas().len()), (2, true, 2));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    suite: u16,
    names: NameSet,
    key_version: u64,
    spki: String,
    issuer: String,
    unseal_key: String,
    envelope: String,
    tls_key_kind: u8,
    tls_key: String,
}

impl Golden {
    fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap()
    }

    /// Parses, verifies and opens the envelope, and checks all that the file says about it.
    fn opened(&self) -> Envelope {
        let bytes = hex(&self.envelope);
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.to_bytes(), bytes, "the encoding has changed");

        let issuer = VerifyingKey::from_bytes(&hex(&self.issuer)).unwrap();
        envelope.verify(&VerifyingKeys::from_iter([issuer])).unwrap();
        let stranger = SigningKey::generate().unwrap().verifying_key();
        assert!(envelope.verify(&VerifyingKeys::from_iter([stranger])).is_err(), "anyone's signature counts");

        let header = envelope.header();
        assert_eq!(header.suite as u16, self.suite);
        assert_eq!(header.names, names_digest(&self.names));
        assert_eq!(header.spki, spki_digest(&hex(&self.spki)));
        assert_eq!(header.key_version, self.key_version);

        let unseal_key = UnsealKey::from_pem(&self.unseal_key).unwrap();
        assert_eq!(*unseal_key.expose_pem().unwrap(), self.unseal_key, "the key file's encoding has changed");
        let key = UnsealKeys::from_iter([unseal_key]).open(&envelope).unwrap();
        assert_eq!(key.kind() as u8, self.tls_key_kind);
        assert_eq!(key.expose_pkcs8(), hex(&self.tls_key));
        envelope
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
