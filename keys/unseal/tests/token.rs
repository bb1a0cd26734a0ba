//! Unseal keys in a real token: SoftHSM2, which `tests/tools.sh` brings.
//!
//! SoftHSM2 reads where its tokens are from an environment variable, and a process has it loaded once. So each test runs
//! its body in a process of its own, with a token of its own: itself, started again.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use certseal_seal::{
    Envelope, KeyKind, Recipient, SealRequest, Secret, SigningKey, Suite, TlsPrivateKey, hpke::Kem, seal,
};
use certseal_unseal::{
    Agreement, AgreementFailed, AwsLc, OpenError, UnsealKey, UnsealKeys,
    token::{TokenError, TokenKey, TokenUri, generate},
};
use certseal_wire::{Digest, Epoch, NameSet};
use cryptoki::{
    context::Pkcs11,
    object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
};

#[test]
fn an_envelope_opens_with_a_key_in_the_token_as_with_the_same_key_in_software() {
    with_token("an_envelope_opens_with_a_key_in_the_token_as_with_the_same_key_in_software", |token| {
        token.import("certseal/eu/3", &SCALAR);
        let in_token = UnsealKey::in_token(&token.uri("certseal/eu/3")).unwrap();
        let software = software_key("eu", 3, &SCALAR);
        assert_eq!(in_token.recipient(), software.recipient());
        assert_eq!((in_token.pool().as_str(), in_token.epoch(), in_token.suite()), ("eu", Epoch(3), Suite::P256));
        assert!(in_token.expose_pem().is_none() && software.expose_pem().is_some());

        let envelope = sealed(&in_token.recipient());
        for keys in [UnsealKeys::from_iter([in_token]), UnsealKeys::from_iter([software])] {
            assert_eq!(keys.open(&envelope).unwrap().expose_pkcs8(), PLAINTEXT);
        }
    });
}

#[test]
fn the_token_agrees_as_aws_lc_does_and_no_bad_point_reaches_it() {
    with_token("the_token_agrees_as_aws_lc_does_and_no_bad_point_reaches_it", |token| {
        token.import("certseal/eu/1", &SCALAR);
        let in_token = TokenKey::open(&token.uri("certseal/eu/1")).unwrap();
        let software = AwsLc::new(Kem::P256, &Secret::copy_of(&SCALAR)).unwrap();
        assert_eq!(in_token.public_key(), software.public_key());
        for peer in 1..=200u8 {
            let peer = AwsLc::new(Kem::P256, &Secret::copy_of(&[peer; 32])).unwrap();
            let [a, b] = [in_token.agree(peer.public_key()), software.agree(peer.public_key())].map(Result::unwrap);
            assert_eq!(a.expose(), b.expose());
        }
        let good = AwsLc::new(Kem::P256, &Secret::copy_of(&[1; 32])).unwrap().public_key().to_vec();
        let mut off_curve = good.clone();
        off_curve[64] ^= 1;
        let mut beyond_the_field = good.clone();
        beyond_the_field[1..33].fill(0xff);
        let compressed = [&[2 + (good[64] & 1)], &good[1..33]].concat();
        for (case, bad) in [
            ("off the curve", off_curve),
            ("beyond the field", beyond_the_field),
            ("infinity", vec![0]),
            ("infinity, as long as a point", [vec![0], vec![0; 64]].concat()),
            ("origin", [vec![4], vec![0; 64]].concat()),
            ("compressed", compressed),
            ("hybrid", [&[6 + (good[64] & 1)], &good[1..]].concat()),
            ("in DER", [&[4, 65], good.as_slice()].concat()),
            ("too short", good[..64].to_vec()),
            ("too long", [&good[..], &[0]].concat()),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(in_token.agree(&bad).err(), Some(AgreementFailed::Invalid), "{case}");
        }
    });
}

#[test]
fn the_private_half_of_a_generated_key_cannot_be_read_out() {
    with_token("the_private_half_of_a_generated_key_cannot_be_read_out", |token| {
        let (key, uri) = generate(&token.uri(""), "eu".parse().unwrap(), Epoch(1)).unwrap();
        assert_eq!(uri, token.uri("certseal/eu/1"));
        let keys = UnsealKeys::from_iter([key]);
        let key = keys.iter().next().unwrap();
        assert_eq!(keys.open(&sealed(&key.recipient())).unwrap().expose_pkcs8(), PLAINTEXT);

        let session = token.session();
        let private = only(&session, ObjectClass::PRIVATE_KEY, "certseal/eu/1");
        let value = session.get_attribute_info(private, &[AttributeType::Value]).unwrap();
        assert!(matches!(value.as_slice(), [AttributeInfo::Sensitive]), "{value:?}");
        let asked = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
            AttributeType::Private,
            AttributeType::Derive,
        ];
        let flags = session.get_attributes(private, &asked).unwrap();
        assert!(
            matches!(
                flags.as_slice(),
                [
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::NeverExtractable(true),
                    Attribute::AlwaysSensitive(true),
                    Attribute::Private(true),
                    Attribute::Derive(true)
                ]
            ),
            "{flags:?}"
        );
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let id = session.get_attributes(only(&session, class, "certseal/eu/1"), &[AttributeType::Id]).unwrap();
            assert!(matches!(id.as_slice(), [Attribute::Id(id)] if *id == key.key_id().0), "{id:?}");
        }
        // The derived secret is gone: nothing that can be read is left in the token.
        assert!(session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap().is_empty());

        // The control: an extractable key can be read out in the same way.
        token.import("certseal/eu/2", &SCALAR);
        let readable = only(&session, ObjectClass::PRIVATE_KEY, "certseal/eu/2");
        let value = session.get_attributes(readable, &[AttributeType::Value]).unwrap();
        assert!(matches!(value.as_slice(), [Attribute::Value(octets)] if *octets == SCALAR));
    });
}

#[test]
fn a_label_is_given_to_one_key_only() {
    with_token("a_label_is_given_to_one_key_only", |token| {
        let pool = || "eu".parse().unwrap();
        let (first, _) = generate(&token.uri(""), pool(), Epoch(1)).unwrap();
        let error = generate(&token.uri("certseal/eu/1"), pool(), Epoch(1)).err().unwrap();
        assert!(matches!(error, TokenError::Exists { .. }), "{error}");
        let again = UnsealKey::in_token(&token.uri("certseal/eu/1")).unwrap();
        assert_eq!(again.key_id(), first.key_id());

        let error = generate(&token.uri("certseal/us/1"), pool(), Epoch(2)).err().unwrap().to_string();
        assert!(error.contains("certseal/us/1") && error.contains("certseal/eu/2"), "{error}");
        let (second, uri) = generate(&token.uri(""), pool(), Epoch(2)).unwrap();
        assert_ne!(second.key_id(), first.key_id());
        assert_eq!(uri.key().unwrap().to_string(), "certseal/eu/2");
    });
}

#[test]
fn many_threads_open_at_once() {
    with_token("many_threads_open_at_once", |token| {
        token.import("certseal/eu/1", &SCALAR);
        let key = TokenKey::open(&token.uri("certseal/eu/1")).unwrap();
        let software = AwsLc::new(Kem::P256, &Secret::copy_of(&SCALAR)).unwrap();
        // More threads than there are sessions.
        std::thread::scope(|scope| {
            for thread in 1..=40u8 {
                let (key, software) = (&key, &software);
                scope.spawn(move || {
                    for round in 1..=20u8 {
                        let mut scalar = [thread; 32];
                        scalar[31] = round;
                        let peer = AwsLc::new(Kem::P256, &Secret::copy_of(&scalar)).unwrap();
                        let [a, b] = [key.agree(peer.public_key()), software.agree(peer.public_key())];
                        assert_eq!(a.unwrap().expose(), b.unwrap().expose());
                    }
                });
            }
        });
    });
}

#[test]
fn what_is_missing_doubled_or_wrong_is_named_and_the_pin_is_not() {
    with_token("what_is_missing_doubled_or_wrong_is_named_and_the_pin_is_not", |token| {
        let refused = |uri: &TokenUri, reasons: &[&str]| {
            let error = UnsealKey::in_token(uri).err().unwrap();
            let text = error.to_string();
            assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
            assert!(!format!("{text}{error:?}").contains(PIN) && !text.contains(WRONG_PIN), "{text}");
        };
        let uri = token.uri("certseal/eu/1");
        refused(&uri, &["one private key", "certseal/eu/1", "got 0", "certctl keys generate"]);
        token.import("certseal/eu/1", &SCALAR);
        UnsealKey::in_token(&uri).unwrap();

        refused(&token.uri(""), &["names no key", "object=certseal%2FPOOL%2FEPOCH"]);
        let parsed = |text: String| text.parse::<TokenUri>().unwrap();
        let text = uri.to_string();
        refused(&parsed(text.replace("token=certseal", "token=other")), &["\"other\"", "got 0", "[\"certseal\"]"]);
        refused(&parsed(text.replace("libsofthsm2.so", "none.so")), &["none.so", "No such file"]);
        let no_module = token.path("no-module.so");
        fs::write(&no_module, "text").unwrap();
        refused(
            &parsed(text.replace(uri.module().to_str().unwrap(), no_module.to_str().unwrap())),
            &["no-module.so", "cannot use the PKCS#11 module"],
        );

        let pin_file = |name: &str, pin: &str, mode: u32| {
            let path = token.path(name);
            fs::write(&path, pin).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            parsed(text.replace(uri.pin().to_str().unwrap(), path.to_str().unwrap()))
        };
        refused(&pin_file("open", PIN, 0o640), &["others can read it (mode 640)", "chmod 600"]);
        refused(&pin_file("empty", "\n", 0o600), &["one line"]);
        refused(&pin_file("lines", &format!("{PIN}\n{PIN}\n"), 0o600), &["one line"]);
        refused(&pin_file("long", &PIN.repeat(100), 0o600), &["one line"]);
        refused(&parsed(text.replace("/pin", "/no-pin")), &["no-pin", "No such file"]);
        // Nobody is logged in any more, or the PIN would not be looked at.
        refused(&pin_file("wrong", WRONG_PIN, 0o400), &["refused the PIN in", "/wrong", "PinIncorrect"]);

        token.import("certseal/eu/1", &[9; 32]);
        refused(&uri, &["one private key", "certseal/eu/1", "got 2", "one has to go"]);

        token.import_with("certseal/eu/4", &SCALAR, false);
        refused(&token.uri("certseal/eu/4"), &["certseal/eu/4", "CKA_DERIVE"]);
        token.import_private("certseal/eu/5", &SCALAR, true);
        refused(&token.uri("certseal/eu/5"), &["one public key", "got 0"]);
        token.import_public("certseal/eu/5", &[9; 32]);
        refused(&token.uri("certseal/eu/5"), &["a secret that its public half does not lead to"]);
        token.generate_p384("certseal/eu/6");
        refused(&token.uri("certseal/eu/6"), &["expected the curve P-256", "22"]);
    });
}

/// The token's files are moved away under open sessions, which SoftHSM2 notices by itself, and it answers as for a slot
/// without a token. That stands for an HSM that was pulled out or cut off. Once the files are back, SoftHSM2 sees them only
/// when it is initialized anew, as some vendors' modules do.
#[test]
fn a_token_that_disappears_and_comes_back_is_survived() {
    with_token("a_token_that_disappears_and_comes_back_is_survived", |token| {
        token.import("certseal/eu/1", &SCALAR);
        token.import("certseal/eu/2", &[9; 32]);
        let keys = UnsealKeys::from_iter([UnsealKey::in_token(&token.uri("certseal/eu/1")).unwrap()]);
        let other = TokenKey::open(&token.uri("certseal/eu/2")).unwrap();
        let envelope = sealed(&keys.iter().next().unwrap().recipient());
        let opens = || keys.open(&envelope).map(|key| assert_eq!(key.expose_pkcs8(), PLAINTEXT));
        opens().unwrap();

        // Another part of the process finalizes the module: sessions, login and handles are lost.
        token.context().finalize().unwrap();
        opens().unwrap();
        assert!(other.agree(keys.iter().next().unwrap().public_key()).is_ok());

        token.take_away();
        let error = opens().unwrap_err();
        assert!(matches!(error, OpenError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("\"certseal\""), "{error}");
        let began = Instant::now();
        let mut failed = 0;
        while began.elapsed() < Duration::from_millis(500) {
            assert!(matches!(opens(), Err(OpenError::Unavailable { .. })));
            failed += 1;
        }
        assert!(failed > 100, "callers waited for a token that is away: {failed} failures in half a second");
        // A point that is none is no matter of the token.
        assert_eq!(other.agree(&[4; 65]).err(), Some(AgreementFailed::Invalid));

        token.bring_back();
        eventually(|| opens().is_ok());
        eventually(|| other.agree(keys.iter().next().unwrap().public_key()).is_ok());
        for _ in 0..100 {
            opens().unwrap();
        }
    });
}

#[test]
fn threads_survive_the_loss_of_all_sessions_in_the_middle_of_their_work() {
    with_token("threads_survive_the_loss_of_all_sessions_in_the_middle_of_their_work", |token| {
        token.import("certseal/eu/1", &SCALAR);
        let key = TokenKey::open(&token.uri("certseal/eu/1")).unwrap();
        let software = AwsLc::new(Kem::P256, &Secret::copy_of(&SCALAR)).unwrap();
        let peer = AwsLc::new(Kem::P256, &Secret::copy_of(&[5; 32])).unwrap();
        let expected = software.agree(peer.public_key()).unwrap();
        let outside = token.session();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..200)
                            .filter(|_| match key.agree(peer.public_key()) {
                                Ok(dh) => {
                                    assert_eq!(dh.expose(), expected.expose(), "a lost session gave another secret");
                                    false
                                }
                                Err(error) => {
                                    assert!(matches!(error, AgreementFailed::Unavailable(_)), "{error}");
                                    true
                                }
                            })
                            .count()
                    })
                })
                .collect();
            // A logout takes the private key's handle away from every session of the process.
            for _ in 0..20 {
                let _ = outside.logout();
                std::thread::sleep(Duration::from_millis(5));
            }
            let failures: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
            println!("{failures} of 1600 calls failed while the token logged out 20 times");
        });
        eventually(|| key.agree(peer.public_key()).is_ok());
    });
}

#[test]
fn a_refused_pin_is_not_offered_again_until_the_file_changes() {
    with_token("a_refused_pin_is_not_offered_again_until_the_file_changes", |token| {
        token.import("certseal/eu/1", &SCALAR);
        let uri = token.uri("certseal/eu/1");
        let key = TokenKey::open(&uri).unwrap();
        let peer = key.public_key().to_vec();
        let reason = || match key.agree(&peer) {
            Err(AgreementFailed::Unavailable(reason)) => reason,
            other => panic!("{:?}", other.map(drop)),
        };
        fs::write(uri.pin(), WRONG_PIN).unwrap();
        token.context().finalize().unwrap();
        assert!(reason().contains("PinIncorrect"));
        std::thread::sleep(Duration::from_millis(1100));
        assert!(reason().contains("as before"), "the same wrong PIN was offered again");
        fs::write(uri.pin(), PIN).unwrap();
        eventually(|| key.agree(&peer).is_ok());
    });
}

/// Runs `body` in a process of its own that has one token, with the label `certseal`.
fn with_token(test: &str, body: impl FnOnce(&Token)) {
    if let Ok(dir) = std::env::var("CERTSEAL_TEST_TOKEN") {
        return body(&Token { dir: dir.into() });
    }
    let dir = tempfile::tempdir().unwrap();
    let token = Token { dir: dir.path().to_owned() };
    fs::create_dir(token.path("tokens")).unwrap();
    let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", token.path("tokens").display());
    fs::write(token.path("softhsm2.conf"), config).unwrap();
    fs::write(token.path("pin"), format!("{PIN}\n")).unwrap();
    fs::set_permissions(token.path("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new(tools().join("bin/softhsm2-util"))
        .args(["--init-token", "--free", "--label", "certseal", "--so-pin", "314159", "--pin", PIN, "--module"])
        .arg(module())
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf")));
    let output = run(Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
        .env("CERTSEAL_TEST_TOKEN", dir.path()));
    assert!(output.contains("1 passed"), "the child ran no test: is {test:?} the test's own name?\n{output}");
}

struct Token {
    dir: PathBuf,
}

impl Token {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn uri(&self, label: &str) -> TokenUri {
        let object = if label.is_empty() { String::new() } else { format!(";object={label}") };
        let (module, pin) = (module(), self.path("pin"));
        let uri =
            format!("pkcs11:token=certseal{object}?module-path={}&pin-source=file:{}", module.display(), pin.display());
        uri.parse().unwrap()
    }

    /// The module as the code under test has it: initialized once in a process.
    fn context(&self) -> Pkcs11 {
        Pkcs11::new(module()).unwrap()
    }

    fn session(&self) -> Session {
        use cryptoki::context::{CInitializeArgs, CInitializeFlags};
        let context = self.context();
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slot = context.get_slots_with_initialized_token().unwrap()[0];
        let session = context.open_rw_session(slot).unwrap();
        let _ = session.login(UserType::User, Some(&PIN.into()));
        session
    }

    fn import(&self, label: &str, scalar: &[u8; 32]) {
        self.import_with(label, scalar, true);
    }

    fn import_with(&self, label: &str, scalar: &[u8; 32], derive: bool) {
        self.import_private(label, scalar, derive);
        self.import_public(label, scalar);
    }

    fn import_private(&self, label: &str, scalar: &[u8; 32], derive: bool) {
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Derive(derive),
            Attribute::Label(label.into()),
            Attribute::EcParams(P256_OID.to_vec()),
            Attribute::Value(scalar.to_vec()),
        ];
        self.session().create_object(&template).unwrap();
    }

    fn import_public(&self, label: &str, scalar: &[u8; 32]) {
        let point = AwsLc::new(Kem::P256, &Secret::copy_of(scalar)).unwrap().public_key().to_vec();
        let template = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(label.into()),
            Attribute::EcParams(P256_OID.to_vec()),
            Attribute::EcPoint([vec![4, 65], point].concat()),
        ];
        self.session().create_object(&template).unwrap();
    }

    fn generate_p384(&self, label: &str) {
        let p384 = vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let label = || Attribute::Label(label.into());
        let public = [Attribute::Token(true), label(), Attribute::EcParams(p384)];
        let private = [Attribute::Token(true), label(), Attribute::Derive(true)];
        let mechanism = cryptoki::mechanism::Mechanism::EccKeyPairGen;
        self.session().generate_key_pair(&mechanism, &public, &private).unwrap();
    }

    fn take_away(&self) {
        fs::rename(self.path("tokens"), self.path("away")).unwrap();
        fs::create_dir(self.path("tokens")).unwrap();
    }

    fn bring_back(&self) {
        fs::remove_dir(self.path("tokens")).unwrap();
        fs::rename(self.path("away"), self.path("tokens")).unwrap();
    }
}

fn only(session: &Session, class: ObjectClass, label: &str) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Label(label.into())]).unwrap();
    assert_eq!(found.len(), 1);
    found[0]
}

fn software_key(pool: &str, epoch: u32, scalar: &[u8; 32]) -> UnsealKey {
    let head = [&[0, 1][..], &epoch.to_be_bytes(), &[pool.len() as u8], pool.as_bytes(), scalar].concat();
    UnsealKey::from_pem(&pem::encode(&pem::Pem::new("CERTSEAL UNSEAL KEY", head))).unwrap()
}

fn sealed(recipient: &Recipient) -> Envelope {
    let names = NameSet::try_from(vec!["shop.example.com".parse().unwrap()]).unwrap();
    let recipients = std::slice::from_ref(recipient);
    let request = SealRequest { suite: Suite::P256, names: &names, spki: Digest([7; 32]), key_version: 1, recipients };
    seal(&request, &TlsPrivateKey::new(KeyKind::EcdsaP256, PLAINTEXT.to_vec()), &SigningKey::generate().unwrap())
        .unwrap()
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "it did not come true within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?} ended with {}\n{text}", output.status);
    text
}

fn tools() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    assert!(path.join("bin/softhsm2-util").exists(), "SoftHSM2 is missing: run tests/tools.sh");
    path
}

fn module() -> PathBuf {
    tools().join("softhsm/usr/lib/softhsm/libsofthsm2.so").canonicalize().unwrap()
}

const PIN: &str = "271828";
const WRONG_PIN: &str = "161803";
const PLAINTEXT: &[u8] = b"PKCS#8";
const SCALAR: [u8; 32] = [0x42; 32];
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
