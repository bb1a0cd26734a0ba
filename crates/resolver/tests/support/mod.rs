//! A platform in memory: a CA, an issuer, a security team, and an edge's mirror that is fed by hand.

#![allow(dead_code, clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use certseal_resolver::{Applied, Mirror, SealedResolver};
use certseal_seal::{
    Bundle, KeyKind, LegacyKey, LegacySuite, Recipient, SealRequest, Sealed, SigningKey, Suite, TlsPrivateKey, seal,
    sha256, spki_digest,
};
use certseal_unseal::{UnsealKey, UnsealKeys};
use certseal_wire::{
    AcmeAccounts, Base64, BundleInfo, Change, Checkpoint, Cursor, DnsName, Document, Epoch, Event, FeedPage, HttpsMode,
    IssuerEntry, KeyRing, KeyState, Kind, NameSet, PoolName, Route, Signed, Staple, UnsealEntry, Upstream,
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

pub(crate) struct Platform {
    pub(crate) security: SigningKey,
    pub(crate) issuer: SigningKey,
    pub(crate) unseal_pem: String,
    /// The pool's key of epoch 2, which the ring lists as pending.
    pub(crate) next_pem: String,
    /// The ring's `version_floor`.
    pub(crate) floor: u64,
    recipient: Recipient,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// The parts of a bundle; the tests alter one at a time.
pub(crate) struct Draft<'a> {
    pub(crate) site: &'a str,
    pub(crate) names: &'a [&'a str],
    pub(crate) version: u64,
    pub(crate) pools: &'a [&'a str],
    pub(crate) issuer: &'a SigningKey,
    pub(crate) sealed_to: Recipient,
    /// The certificate's key.
    pub(crate) key: KeyPair,
    pub(crate) kind: KeyKind,
    /// The octets that are sealed in place of the certificate's key.
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) not_after: Timestamp,
}

impl Platform {
    pub(crate) fn new() -> Self {
        let unseal_key = UnsealKey::generate(pool("eu"), Epoch(1), Suite::P256).unwrap();
        let next = UnsealKey::generate(pool("eu"), Epoch(2), Suite::P256).unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            security: SigningKey::generate().unwrap(),
            issuer: SigningKey::generate().unwrap(),
            unseal_pem: unseal_key.expose_pem().unwrap().to_string(),
            next_pem: next.expose_pem().unwrap().to_string(),
            floor: 0,
            recipient: unseal_key.recipient(),
            ca: CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    pub(crate) fn open(&self, dir: &Path) -> Arc<Mirror> {
        Arc::new(Mirror::open(dir, pool("eu"), self.security.verifying_key()).unwrap())
    }

    /// An open mirror that has the ring.
    pub(crate) fn mirror(&self, dir: &Path) -> Arc<Mirror> {
        let mirror = self.open(dir);
        assert_eq!(mirror.apply(&page([self.ring(1, &[&self.issuer])])).unwrap().accepted, 1);
        mirror
    }

    pub(crate) fn unseal_keys(&self) -> UnsealKeys {
        UnsealKeys::from_iter([UnsealKey::from_pem(&self.unseal_pem).unwrap()])
    }

    pub(crate) fn ring(&self, version: u64, issuers: &[&SigningKey]) -> Event {
        let entry = |key: &&SigningKey| {
            let key = key.verifying_key();
            IssuerEntry { id: key.id(), public_key: Base64(key.as_bytes().to_vec()) }
        };
        let keys = [(&self.unseal_pem, KeyState::Active), (&self.next_pem, KeyState::Pending)];
        let keys = keys.map(|(pem, state)| unseal_entry(&UnsealKey::from_pem(pem).unwrap(), state)).into();
        let ring = KeyRing { version, keys, issuers: issuers.iter().map(entry).collect(), version_floor: self.floor };
        signed(Kind::Ring, "", version, &self.security, &ring)
    }

    pub(crate) fn draft<'a>(&'a self, site: &'a str, names: &'a [&'a str], version: u64) -> Draft<'a> {
        Draft {
            site,
            names,
            version,
            pools: &["eu"],
            issuer: &self.issuer,
            sealed_to: self.recipient.clone(),
            key: KeyPair::generate().unwrap(),
            kind: KeyKind::EcdsaP256,
            sealed: None,
            not_after: Timestamp::MAX,
        }
    }

    pub(crate) fn bundle(&self, draft: Draft<'_>) -> Event {
        let names = name_set(draft.names);
        let names_of_leaf: Vec<String> = draft.names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names_of_leaf).unwrap().signed_by(&draft.key, &self.ca).unwrap();
        let sealed = draft.sealed.unwrap_or_else(|| draft.key.serialize_der());
        let request = SealRequest {
            suite: Suite::P256,
            names: &names,
            spki: spki_digest(&draft.key.subject_public_key_info()),
            key_version: draft.version,
            recipients: &[draft.sealed_to],
        };
        let envelope = seal(&request, &TlsPrivateKey::new(draft.kind, sealed), draft.issuer).unwrap();
        let chain = vec![leaf.der().to_vec()];
        let info = BundleInfo {
            site: name(draft.site),
            names,
            version: draft.version,
            pools: draft.pools.iter().map(|text| pool(text)).collect(),
            chain: Bundle::chain_digest(&chain),
            envelope: envelope.header().hash(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: draft.not_after,
            authority: "test".into(),
        };
        let bytes = Bundle::new(draft.issuer.sign(&info), chain, envelope).to_bytes().unwrap();
        event(Kind::Bundle, draft.site, draft.version, bytes)
    }

    /// A sound bundle of one name.
    pub(crate) fn simple(&self, site: &str, version: u64) -> Event {
        self.bundle(self.draft(site, &[site], version))
    }

    /// A bundle whose key is sealed as platforms did before certseal.
    pub(crate) fn legacy(&self, site: &str, version: u64) -> Event {
        let suite = LegacySuite::RsaOaepSha256;
        let sealed = Sealed::from(LegacyKey::new(suite, suite.key_id(b"theirs"), vec![1; 600]).unwrap());
        let bundle = Bundle::parse(&self.simple(site, version).body.unwrap().0).unwrap();
        let info: BundleInfo = serde_json::from_slice(&bundle.statement().payload.0).unwrap();
        let info = BundleInfo { envelope: sealed.digest(), ..info };
        let bundle = Bundle::new(self.issuer.sign(&info), bundle.chain().to_vec(), sealed);
        event(Kind::Bundle, site, version, bundle.to_bytes().unwrap())
    }

    pub(crate) fn route(&self, site: &str, names: &[&str], version: u64, upstream: Option<&str>) -> Event {
        let route = Route {
            site: name(site),
            names: name_set(names),
            version,
            pools: vec![pool("eu")],
            upstreams: upstream.iter().map(|text| text.parse::<Upstream>().unwrap().into()).collect(),
            https: HttpsMode::Redirect,
        };
        signed(Kind::Route, site, version, &self.issuer, &route)
    }

    pub(crate) fn accounts(&self, version: u64, thumbprints: &[&str]) -> Event {
        let thumbprints = thumbprints.iter().map(|text| (*text).to_owned()).collect();
        signed(Kind::Accounts, "", version, &self.issuer, &AcmeAccounts { version, thumbprints })
    }

    /// An OCSP answer of some octets for the leaf of `bundle`, which holds until `next_update`.
    pub(crate) fn staple(&self, bundle: &Event, version: u64, next_update: Timestamp) -> Event {
        self.staple_of(self.answer(bundle, version, next_update))
    }

    /// The answer, for tests that alter something of it.
    pub(crate) fn answer(&self, bundle: &Event, version: u64, next_update: Timestamp) -> Staple {
        let parsed = Bundle::parse(&bundle.body.as_ref().unwrap().0).unwrap();
        Staple {
            site: name(&bundle.name),
            version,
            pools: vec![pool("eu")],
            certificate: sha256(&parsed.chain()[0]),
            response: Base64(format!("answer {version}").into_bytes()),
            this_update: Timestamp::UNIX_EPOCH,
            next_update,
        }
    }

    pub(crate) fn staple_of(&self, staple: Staple) -> Event {
        signed(Kind::Staple, staple.site.as_str(), staple.version, &self.issuer, &staple)
    }

    /// Pool eu's checkpoint, made `version` minutes after the epoch and complete for the two before.
    pub(crate) fn checkpoint(&self, version: u64, changes: &[(Kind, &str, u64)]) -> Event {
        let checkpoint = checkpoint(version, changes);
        signed(Kind::Checkpoint, "eu", version, &self.issuer, &checkpoint)
    }

    pub(crate) fn resolver(&self, mirror: &Arc<Mirror>) -> Arc<SealedResolver> {
        SealedResolver::new(mirror.clone(), self.unseal_keys(), 1 << 20).unwrap()
    }

    /// A client that trusts the CA, and resumes sessions.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

pub(crate) fn server(
    resolver: Arc<SealedResolver>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    Arc::new(config)
}

/// A whole handshake in memory. Answers its kind and the leaf that the client verified.
pub(crate) fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(HandshakeKind, Vec<u8>), String> {
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name.to_owned().try_into().unwrap()).unwrap();
    // After the handshake itself, one more round carries the session tickets.
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client.handshake_kind().unwrap(), client.peer_certificates().unwrap()[0].to_vec()))
}

pub(crate) fn unseal_entry(key: &UnsealKey, state: KeyState) -> UnsealEntry {
    UnsealEntry {
        pool: key.pool().clone(),
        epoch: key.epoch(),
        state,
        suite: key.suite() as u16,
        key_id: key.key_id(),
        public_key: Base64(key.public_key().to_vec()),
    }
}

pub(crate) fn signed<D: Document>(kind: Kind, site: &str, version: u64, key: &SigningKey, document: &D) -> Event {
    event(kind, site, version, serde_json::to_vec::<Signed>(&key.sign(document)).unwrap())
}

pub(crate) fn checkpoint(version: u64, changes: &[(Kind, &str, u64)]) -> Checkpoint {
    let minute = |minute: u64| Timestamp::from_second(60 * minute as i64).unwrap();
    let change =
        |(kind, name, version): &(Kind, &str, u64)| Change { kind: *kind, name: (*name).to_owned(), version: *version };
    Checkpoint {
        pool: pool("eu"),
        version,
        issued_at: minute(version),
        complete_since: minute(version.saturating_sub(2)),
        changes: changes.iter().map(change).collect(),
    }
}

pub(crate) fn event(kind: Kind, site: &str, version: u64, body: Vec<u8>) -> Event {
    let digest = sha256(&body);
    Event { kind, name: site.to_owned(), version, digest, pools: Vec::new(), body: Some(Base64(body)), deleted: false }
}

/// A page whose cursor is its number of events; only that it is kept matters here.
pub(crate) fn page(events: impl IntoIterator<Item = Event>) -> FeedPage {
    let events: Vec<Event> = events.into_iter().collect();
    FeedPage { cursor: Cursor { epoch: [7; 16], seq: events.len() as u64 }, events, end: true }
}

pub(crate) fn only_refusal(applied: &Applied) -> &str {
    assert_eq!((applied.accepted, applied.refused.len()), (0, 1), "{applied:?}");
    &applied.refused[0].reason
}

pub(crate) fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

pub(crate) fn name_set(names: &[&str]) -> NameSet {
    names.iter().map(|text| name(text)).collect::<Vec<_>>().try_into().unwrap()
}

pub(crate) fn pool(text: &str) -> PoolName {
    text.parse().unwrap()
}
