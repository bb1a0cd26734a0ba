//! The life of a TLS private key in certman: it is generated, sealed and wiped within one call.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use certseal_issuance::SealedKey;
use certseal_seal::{
    Envelope, Group, KeyKind, Recipient, SealError, SealRequest, SigningKey, TlsPrivateKey, seal, spki_digest,
};
use certseal_wire::{Base64, KeyType, NameSet};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};

/// Why no sealed key came into being.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewKeyError {
    #[error("no key could be generated: {0}")]
    Generation(#[from] Unspecified),
    #[error("no certificate signing request could be made: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Generates a key, makes a CSR for `names`, and seals the key to `recipients`. The key exists in the clear only while this
/// function runs. `groups` says whether its envelope shares a content key with others. A site with both types of key has its
/// RSA key in its companion.
pub(crate) async fn sealed_key(
    key_type: KeyType,
    names: &NameSet,
    key_version: u64,
    recipients: &[Recipient],
    issuer: &SigningKey,
    groups: &Mutex<Groups>,
) -> Result<SealedKey, NewKeyError> {
    let key = match key_type {
        KeyType::EcdsaP256 | KeyType::Both => NewKey::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
        // The search for two primes takes a tenth of a second.
        KeyType::Rsa2048 => {
            let generated = tokio::task::spawn_blocking(|| rsa::KeyPair::generate(KeySize::Rsa2048));
            NewKey::Rsa(generated.await.map_err(|_| Unspecified)??)
        }
    };
    let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    // Both the PKCS#8 document and `TlsPrivateKey` wipe their octets when they are dropped, and so does aws-lc.
    let private = key.to_private()?;
    let suite = recipients.first().ok_or(SealError::Recipients(0))?.suite();
    let spki = spki_digest(&key.subject_public_key_info());
    let request = SealRequest { suite, names, spki, key_version, recipients };
    // The groups that a panic leaves behind are whole: a group counts an envelope once it is made.
    let envelope =
        groups.lock().unwrap_or_else(PoisonError::into_inner).seal(&request, &private, issuer, Timestamp::now())?;
    Ok(SealedKey { csr: Some(Base64(csr.der().to_vec())), bytes: Base64(envelope.to_bytes()), enveloped: true })
}

/// The open groups: envelopes that share a content key, which is here as long as its group is open.
#[derive(Debug)]
pub(crate) struct Groups {
    size: u32,
    max_age: SignedDuration,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    group: Group,
    begun: Timestamp,
}

impl Groups {
    /// Groups of `size` envelopes, each open for `max_age` at most. Of size 1: no groups, and no content key is kept.
    pub(crate) fn new(size: u32, max_age: SignedDuration) -> Self {
        Self { size, max_age, open: Vec::new() }
    }

    /// Wipes the content keys of groups whose time is over.
    pub(crate) fn close_old(&mut self, now: Timestamp) {
        let max_age = self.max_age;
        // A clock that was set back does not keep a group open.
        self.open.retain(|open| {
            let age = now.duration_since(open.begun);
            !age.is_negative() && age < max_age
        });
    }

    fn seal(
        &mut self,
        request: &SealRequest<'_>,
        key: &TlsPrivateKey,
        issuer: &SigningKey,
        now: Timestamp,
    ) -> Result<Envelope, SealError> {
        if self.size <= 1 {
            return seal(request, key, issuer);
        }
        self.close_old(now);
        let place = match self.open.iter().position(|open| open.group.is_for(request.suite, request.recipients)) {
            Some(place) => place,
            None => {
                if self.open.len() >= MAX_OPEN {
                    // The one that was begun first stands first.
                    self.open.remove(0);
                }
                self.open.push(Open { group: Group::begin(request.suite, request.recipients)?, begun: now });
                self.open.len() - 1
            }
        };
        let group = &mut self.open[place].group;
        let envelope = group.seal(request, key, issuer);
        if group.sealed() >= self.size {
            self.open.remove(place);
        }
        envelope
    }
}

/// Groups that are open at one time: one for each set of pools. The oldest goes.
const MAX_OPEN: usize = 16;

/// A key that rcgen can sign a CSR with, without keeping a copy of it.
enum NewKey {
    Ecdsa(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

impl NewKey {
    fn to_private(&self) -> Result<TlsPrivateKey, Unspecified> {
        Ok(match self {
            Self::Ecdsa(key) => TlsPrivateKey::new(KeyKind::EcdsaP256, key.to_pkcs8v1()?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let pkcs8: Pkcs8V1Der<'static> = key.as_der()?;
                TlsPrivateKey::new(KeyKind::Rsa, pkcs8.as_ref().to_vec())
            }
        })
    }
}

impl PublicKeyData for NewKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Ecdsa(key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::Ecdsa(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for NewKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ecdsa(key) => key.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        };
        signature.map_err(|_| rcgen::Error::RingUnspecified)
    }
}

#[cfg(test)]
mod tests {
    use certseal_seal::Suite;
    use certseal_wire::{Digest, Epoch, GroupId};
    use rcgen::CertificateSigningRequestParams;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn recipient(pool: &str) -> Recipient {
        let key = aws_lc_rs::agreement::PrivateKey::generate(&aws_lc_rs::agreement::X25519).unwrap();
        let public = key.compute_public_key().unwrap().as_ref().to_vec();
        Recipient::new(pool.parse().unwrap(), Epoch(1), Suite::X25519, public).unwrap()
    }

    fn seal_one(groups: &mut Groups, recipient: &Recipient, now: Timestamp) -> Option<GroupId> {
        let names = NameSet::try_from(vec!["shop.example".parse().unwrap()]).unwrap();
        let recipients = std::slice::from_ref(recipient);
        let request =
            SealRequest { suite: Suite::X25519, names: &names, spki: Digest([1; 32]), key_version: 1, recipients };
        let key = TlsPrivateKey::new(KeyKind::EcdsaP256, vec![7; 100]);
        groups.seal(&request, &key, &SigningKey::generate().unwrap(), now).unwrap().header().group
    }

    #[tokio::test]
    async fn a_key_is_of_the_type_that_is_asked_for_and_the_request_is_signed_with_it() {
        let names = NameSet::try_from(vec!["shop.example".parse().unwrap()]).unwrap();
        let (eu, issuer) = ([recipient("eu")], SigningKey::generate().unwrap());
        for (key_type, algorithm) in [
            (KeyType::EcdsaP256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (KeyType::Both, &rcgen::PKCS_ECDSA_P256_SHA256),
            (KeyType::Rsa2048, &rcgen::PKCS_RSA_SHA256),
        ] {
            let groups = Mutex::new(Groups::new(1, SignedDuration::from_secs(60)));
            let sealed = sealed_key(key_type, &names, 1, &eu, &issuer, &groups).await.unwrap();
            let request = CertificateSigningRequestParams::from_der(&sealed.csr.unwrap().0.into()).unwrap();
            assert_eq!(request.public_key.algorithm(), algorithm);
            let envelope = Envelope::parse(&sealed.bytes.0).unwrap();
            assert_eq!(envelope.header().spki, spki_digest(&request.public_key.subject_public_key_info()));
        }
    }

    #[test]
    fn a_group_of_one_is_none_and_keeps_no_content_key() {
        let mut groups = Groups::new(1, SignedDuration::from_secs(60));
        assert_eq!(seal_one(&mut groups, &recipient("eu"), at(0)), None);
        assert!(groups.open.is_empty());
    }

    #[test]
    fn a_group_is_closed_when_it_is_full() {
        let (mut groups, eu) = (Groups::new(3, SignedDuration::from_secs(60)), recipient("eu"));
        let ids: Vec<_> = (0..4).map(|_| seal_one(&mut groups, &eu, at(0)).unwrap()).collect();
        assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
        assert_eq!(groups.open.len(), 1);
    }

    #[test]
    fn a_group_is_closed_when_it_is_old_also_without_another_key_and_when_the_clock_goes_back() {
        let (mut groups, eu) = (Groups::new(100, SignedDuration::from_secs(60)), recipient("eu"));
        let first = seal_one(&mut groups, &eu, at(0));
        assert_eq!(seal_one(&mut groups, &eu, at(59)), first);
        assert_ne!(seal_one(&mut groups, &eu, at(60)), first);
        groups.close_old(at(119));
        assert_eq!(groups.open.len(), 1);
        groups.close_old(at(120));
        assert!(groups.open.is_empty());
        seal_one(&mut groups, &eu, at(200));
        groups.close_old(at(199));
        assert!(groups.open.is_empty());
    }

    #[test]
    fn other_recipients_have_another_group_and_the_oldest_goes_when_there_are_many() {
        let mut groups = Groups::new(100, SignedDuration::from_secs(60));
        let recipients: Vec<_> = (0..=MAX_OPEN).map(|n| recipient(&format!("p{n}"))).collect();
        let first = seal_one(&mut groups, &recipients[0], at(0));
        for recipient in &recipients[1..] {
            assert_ne!(seal_one(&mut groups, recipient, at(0)), first);
        }
        assert_eq!(groups.open.len(), MAX_OPEN);
        assert_ne!(seal_one(&mut groups, &recipients[0], at(0)), first, "it was the oldest");
    }
}
