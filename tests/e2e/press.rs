//! Makes genuine bundles, many and fast: those that certman would have put into certstore, without its orders.

use std::fs;

use certseal_client::StoreClient;
use certseal_seal::{
    Bundle, Group, KeyKind, Recipient, RingMark, SealRequest, SigningKey, Suite, TlsPrivateKey, accept_ring,
    ring_recipient, seal, spki_digest,
};
use certseal_wire::{BundleInfo, DnsName, NameSet};
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, DnType, Issuer, KeyPair, PublicKeyData};

use crate::platform::{POOL, Platform};

/// The name of the `n`th site.
pub fn site(n: usize) -> DnsName {
    format!("site-{n:07}.customers.test").parse().unwrap()
}

/// A press for bundles of one pool.
pub struct Press {
    issuer: SigningKey,
    ca: Issuer<'static, KeyPair>,
    intermediate: Vec<u8>,
    recipient: Recipient,
}

impl Press {
    pub async fn new(platform: &Platform, store: &StoreClient) -> Self {
        let text = |file: &str| fs::read_to_string(platform.pki(file)).unwrap();
        let security = certseal_seal::VerifyingKey::from_pem(&text("security.pub")).unwrap();
        let ring = accept_ring(&store.ring().await.unwrap().unwrap(), &security, RingMark::default()).unwrap();
        let ca_key = KeyPair::from_pem(&text("local-ca.key")).unwrap();
        let mut params = CertificateParams::default();
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 3], vec![7; 700]));
        let intermediate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        Self {
            intermediate,
            issuer: SigningKey::from_pem(&text("issuer.key")).unwrap(),
            ca: Issuer::from_ca_cert_pem(&text("local-ca.pem"), ca_key).unwrap(),
            recipient: ring_recipient(&ring, &POOL.parse().unwrap()).unwrap(),
        }
    }

    /// The first bundle of a site, in a group of up to `group`.
    pub fn bundle(&self, site: &DnsName, group: u32, open: &mut Option<Group>) -> Vec<u8> {
        self.version(site, 1, group, open)
    }

    /// The bundle of a site of this version.
    pub fn version(&self, site: &DnsName, version: u64, group: u32, open: &mut Option<Group>) -> Vec<u8> {
        let names = NameSet::try_from(vec![site.clone()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![site.to_string()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, site.as_str());
        // As large as what certificate transparency puts into a certificate.
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], vec![7; 246]));
        let leaf = params.signed_by(&key, &self.ca).unwrap().der().to_vec();
        let chain = vec![leaf, self.intermediate.clone()];
        let recipients = [self.recipient.clone()];
        let spki = spki_digest(&key.subject_public_key_info());
        let request =
            SealRequest { suite: Suite::P256, names: &names, spki, key_version: version, recipients: &recipients };
        let private = TlsPrivateKey::new(KeyKind::EcdsaP256, key.serialize_der());
        let envelope = if group == 1 {
            seal(&request, &private, &self.issuer).unwrap()
        } else {
            let is_full = open.as_ref().is_none_or(|open| open.sealed() >= group);
            if is_full {
                *open = Some(Group::begin(Suite::P256, &recipients).unwrap());
            }
            open.as_mut().unwrap().seal(&request, &private, &self.issuer).unwrap()
        };
        let info = BundleInfo {
            site: site.clone(),
            names,
            version,
            pools: vec![POOL.parse().unwrap()],
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::now(),
            not_after: Timestamp::now() + jiff::SignedDuration::from_hours(24 * 90),
            authority: "local".into(),
        };
        Bundle::new(self.issuer.sign(&info), chain, envelope).to_bytes().unwrap()
    }
}
