//! The answers of the adversary's store: documents of every kind, and chance.

use super::*;

pub(super) fn json(answer: &impl serde::Serialize) -> Response<Bytes> {
    Response::new(serde_json::to_vec(answer).unwrap().into())
}

pub(super) fn refuse(kind: ProblemKind) -> Response<Bytes> {
    let body = serde_json::to_vec(&Problem::new(kind, "no")).unwrap().into();
    Response::builder().status(kind.status()).body(body).unwrap()
}

pub(super) fn record(signed: Signed, version: u64, thumbprints: Vec<String>) -> Record {
    Record { bytes: serde_json::to_vec(&signed).unwrap().into(), signer: signed.signer, version, thumbprints }
}

pub(super) fn bundle(
    issuer: &SigningKey,
    site: &str,
    version: u64,
    made: &(KeyPair, Vec<u8>),
    is_legacy: bool,
) -> Bundle {
    let (key, leaf) = made;
    let SiteRequest { names, pools, .. } = request(site, 1);
    let sealed = if is_legacy {
        let suite = LegacySuite::RsaOaepSha256;
        Sealed::from(LegacyKey::new(suite, suite.key_id(b"theirs"), vec![1; 600]).unwrap())
    } else {
        let UnsealEntry { pool, epoch, public_key, .. } = unseal_entry(&EU, 1, 0);
        let recipient = Recipient::new(pool, epoch, Suite::P256, public_key.0).unwrap();
        let spki = spki_digest(&key.subject_public_key_info());
        let recipients = &[recipient];
        let request = SealRequest { suite: Suite::P256, names: &names, spki, key_version: version, recipients };
        let key = TlsPrivateKey::new(certseal_seal::KeyKind::EcdsaP256, key.serialize_der());
        seal(&request, &key, issuer).unwrap().into()
    };
    let chain = vec![leaf.clone()];
    let info = BundleInfo {
        site: site.parse().unwrap(),
        names,
        version,
        pools,
        chain: Bundle::chain_digest(&chain),
        envelope: sealed.digest(),
        not_before: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::MAX,
        authority: "test".into(),
    };
    Bundle::new(issuer.sign(&info), chain, sealed)
}

pub(super) fn request(site: &str, port: u64) -> SiteRequest {
    SiteRequest::new(
        NameSet::try_from(vec![site.parse().unwrap()]).unwrap(),
        format!("http://127.0.0.1:{port}").parse().unwrap(),
        vec![EU.clone()],
    )
}

pub(super) fn issuer_entry(key: &SigningKey) -> IssuerEntry {
    let key = key.verifying_key();
    IssuerEntry { id: key.id(), public_key: Base64(key.as_bytes().to_vec()) }
}

/// An active key of `pool`; two of one epoch differ by their `twin`. Pools share none.
pub(super) fn unseal_entry(pool: &PoolName, epoch: u64, twin: usize) -> UnsealEntry {
    let public_key = if *pool == *US { &KEYS[0] } else { &KEYS[1 + (2 * epoch as usize + twin) % (KEYS.len() - 1)] };
    UnsealEntry {
        pool: pool.clone(),
        epoch: Epoch(epoch as u32),
        state: KeyState::Active,
        suite: Suite::P256 as u16,
        key_id: Suite::P256.key_id(public_key),
        public_key: Base64(public_key.clone()),
    }
}

pub(super) fn pools() -> [PoolName; 2] {
    [EU.clone(), US.clone()]
}

pub(super) fn copy(key: &SigningKey) -> SigningKey {
    SigningKey::from_pem(&key.expose_pem().unwrap()).unwrap()
}

/// xorshift64* (Vigna 2016): a run is its seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

pub(super) static EU: LazyLock<PoolName> = LazyLock::new(|| "eu".parse().unwrap());
pub(super) static US: LazyLock<PoolName> = LazyLock::new(|| "us".parse().unwrap());

/// Public keys of pools. Nobody opens anything here.
pub(super) static KEYS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| (0..64).map(|_| KeyPair::generate().unwrap().public_key_raw().to_vec()).collect());

pub(super) static CA: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
});

/// A key and a certificate of each site.
pub(super) static CHAINS: LazyLock<[(KeyPair, Vec<u8>); 3]> = LazyLock::new(|| {
    SITES.map(|site| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![site.to_owned()]).unwrap().signed_by(&key, &*CA).unwrap();
        (key, leaf.der().to_vec())
    })
});

pub(super) const SITES: [&str; 3] = ["a.example", "b.example", "c.example"];
pub(super) const ACCOUNTS: &str = "/v1/accounts";

/// The thumbprint of certman's account.
pub(super) const OURS: &str = "ours";
