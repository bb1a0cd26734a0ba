//! Other people's cryptography opens our envelopes, and we open theirs, from `docs/envelope.md` alone.

use std::{fs, path::Path, process::Command};

use certseal_seal::{Envelope, VerifyingKey, VerifyingKeys};
use certseal_unseal::{UnsealKey, UnsealKeys};

use crate::process::{run, tool};

#[test]
fn python_opens_our_envelopes_and_we_open_pythons() {
    for suite in ["p256", "x25519", "group"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("keys/vectors/envelope-{suite}.json"));
        let golden: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let key = golden["tls_key"].as_str().unwrap();

        assert_eq!(python("open", &path).trim(), key, "{suite}");

        let sealed: serde_json::Value = serde_json::from_str(&python("seal", &path)).unwrap();
        let envelope = Envelope::parse(&hex(&sealed["envelope"])).unwrap();
        let issuer = VerifyingKey::from_bytes(&hex(&sealed["issuer"])).unwrap();
        envelope.verify(&VerifyingKeys::from_iter([issuer])).unwrap();
        let unseal_key = UnsealKey::from_pem(golden["unseal_key"].as_str().unwrap()).unwrap();
        let opened = UnsealKeys::from_iter([unseal_key]).open(&envelope).unwrap();
        assert_eq!(opened.expose_pkcs8(), hex(&golden["tls_key"]), "{suite}");
    }
}

fn python(command: &str, golden: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/envelope.py");
    let output = run(Command::new(tool("../python/bin/python")).arg(script).arg(command).arg(golden));
    String::from_utf8(output.stdout).unwrap()
}

fn hex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
