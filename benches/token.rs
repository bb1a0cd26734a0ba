//! Opening of one envelope with the unseal key in a PKCS#11 token, against the same with the key in memory.
//!
//! The token is SoftHSM2 out of `target/tools`: the numbers show the way through PKCS#11, not the speed of an HSM.
//! SoftHSM2 reads its configuration from the environment, so the benchmark starts itself again with one.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, exit},
};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use certseal_seal::{
    Envelope, Group, KeyKind, Recipient, SealError, SealRequest, SigningKey, Suite, TlsPrivateKey, seal, spki_digest,
};
use certseal_unseal::{
    Agreement, UnsealKey, UnsealKeys,
    token::{KeyLabel, TokenKey, TokenUri, generate},
};
use certseal_wire::{Epoch, NameSet};
use criterion::Criterion;
use rcgen::{KeyPair, PublicKeyData};
use support::{
    is_measuring,
    rounds::{Case, alternate},
};

fn main() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let (util, module) = (tools.join("bin/softhsm2-util"), tools.join("softhsm/usr/lib/softhsm/libsofthsm2.so"));
    match env::var("CERTSEAL_BENCH_TOKEN") {
        Ok(uri) => measure(&uri.parse().unwrap()),
        Err(_) if !module.exists() => println!("skipped: SoftHSM2 is not in target/tools; run tests/tools.sh"),
        Err(_) => start_with_token(&util, &module),
    }
}

/// Makes a token for one run, and starts this program again with it.
fn start_with_token(util: &Path, module: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let (config, tokens, pin) = (dir.path().join("softhsm2.conf"), dir.path().join("tokens"), dir.path().join("pin"));
    fs::create_dir(&tokens).unwrap();
    fs::write(&config, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    fs::write(&pin, "271828").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let made = Command::new(util)
        .args(["--init-token", "--free", "--label", "bench", "--so-pin", "314159", "--pin", "271828", "--module"])
        .arg(module)
        .env("SOFTHSM2_CONF", &config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let uri = format!("pkcs11:token=bench?module-path={}&pin-source=file:{}", module.display(), pin.display());
    let status = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env("SOFTHSM2_CONF", &config)
        .env("CERTSEAL_BENCH_TOKEN", uri)
        .status()
        .unwrap();
    drop(dir);
    exit(status.code().unwrap_or(1));
}

fn measure(token: &TokenUri) {
    let label = KeyLabel { pool: "eu".parse().unwrap(), epoch: Epoch(1) };
    let (in_token, uri) = generate(token, label.pool.clone(), label.epoch).unwrap();
    let in_software = UnsealKey::generate(label.pool, label.epoch, Suite::P256).unwrap();
    let recipient = in_token.recipient();
    let single: Vec<_> = (0..GROUP).map(|_| sealed(&recipient)).collect();
    let mut group = Group::begin(Suite::P256, std::slice::from_ref(&recipient)).unwrap();
    let grouped: Vec<_> =
        (0..GROUP).map(|_| sealed_with(&recipient, |r, key, issuer| group.seal(r, key, issuer))).collect();
    // Loaded anew each time, so that no group is known yet.
    let load = || UnsealKeys::from_iter([UnsealKey::in_token(&uri).unwrap()]);
    let open_all = |envelopes: &[Envelope]| {
        let keys = load();
        envelopes.iter().map(|envelope| keys.open(envelope).unwrap().expose_pkcs8().len()).sum::<usize>()
    };
    let envelopes = [sealed(&in_token.recipient()), sealed(&in_software.recipient())];
    let [in_token, in_software] = [in_token, in_software].map(|key| UnsealKeys::from_iter([key]));
    let agreement = TokenKey::open(&uri).unwrap();
    let peer = PrivateKey::generate(&ECDH_P256).unwrap().compute_public_key().unwrap();

    let open = |keys: &UnsealKeys, envelope: &Envelope| keys.open(envelope).unwrap().expose_pkcs8().len();
    let by_token = || open(&in_token, &envelopes[0]);
    let by_software = || open(&in_software, &envelopes[1]);
    let agree = || agreement.agree(peer.as_ref()).unwrap().expose().len();

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("open by");
    group.bench_function("token (SoftHSM2)", |bencher| bencher.iter(by_token));
    group.bench_function("software", |bencher| bencher.iter(by_software));
    group.finish();
    criterion.final_summary();

    let cases = [
        Case::new("envelope open, key in SoftHSM2", by_token),
        Case::new("raw ECDH, key in SoftHSM2", agree),
        Case::new("envelope open, key in memory", by_software),
        Case::new(SINGLE, || open_all(&single)),
        Case::new(GROUPED, || open_all(&grouped)),
    ];
    let medians = alternate(cases.into(), if is_measuring() { 100 } else { 1 });
    println!("\nmedians of alternating rounds");
    medians.print();
    println!("\nratios");
    medians.print_ratio("envelope open, key in SoftHSM2", "envelope open, key in memory");
    medians.print_ratio(SINGLE, GROUPED);
}

/// Envelopes of a group.
const GROUP: usize = 64;
const SINGLE: &str = "key found in SoftHSM2, 64 envelopes opened";
const GROUPED: &str = "the same, in one group";

fn sealed(recipient: &Recipient) -> Envelope {
    sealed_with(recipient, seal)
}

fn sealed_with(
    recipient: &Recipient,
    seal: impl FnOnce(&SealRequest<'_>, &TlsPrivateKey, &SigningKey) -> Result<Envelope, SealError>,
) -> Envelope {
    let tls_key = KeyPair::generate().unwrap();
    let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
    let request = SealRequest {
        suite: Suite::P256,
        names: &names,
        spki: spki_digest(&tls_key.subject_public_key_info()),
        key_version: 1,
        recipients: std::slice::from_ref(recipient),
    };
    let key = TlsPrivateKey::new(KeyKind::EcdsaP256, tls_key.serialize_der());
    seal(&request, &key, &SigningKey::generate().unwrap()).unwrap()
}
