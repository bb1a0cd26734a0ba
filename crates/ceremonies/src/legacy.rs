//! The key pairs that platforms sealed their keys to before: public halves to import with, private halves to open with.

use std::{fs, path::Path};

use aws_lc_rs::{encoding::AsDer, rsa::PublicEncryptingKey};
use certseal_seal::LegacySuite;
use certseal_service::config::{ConfigError, read};
use certseal_unseal::{LegacyUnsealKey, UnsealKeys};
use certseal_wire::KeyId;
use zeroize::Zeroizing;

use crate::error::LegacyError;

/// Reads a suite's name.
///
/// # Errors
/// When there is no such suite; the message names those that there are.
pub fn suite(name: &str) -> Result<LegacySuite, String> {
    let known = LegacySuite::ALL.map(LegacySuite::name).join(", ");
    let found = LegacySuite::ALL.into_iter().find(|suite| suite.name() == name);
    found.ok_or_else(|| format!("expected one of {known}, got {name:?}"))
}

/// The id of the key pair whose public half is in a file: for RSA a PEM block "PUBLIC KEY", for secp256k1 the point in
/// hexadecimal digits, compressed or not.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn public_key_id(suite: LegacySuite, path: &Path) -> Result<KeyId, LegacyError> {
    let text = read(path)?;
    let public = match suite {
        LegacySuite::RsaOaepSha256 | LegacySuite::RsaOaepSha1 => rsa_public(&text),
        LegacySuite::EciesSecp256k1 => secp256k1_public(&text),
    };
    Ok(suite.key_id(&public.map_err(|error| ConfigError::invalid(path, error))?))
}

/// Reads a private half: `SUITE=FILE`.
///
/// # Errors
/// When the suite is unknown, or the file cannot be read, is readable by others, or holds something else.
pub fn private_key(suite_and_file: &str) -> Result<LegacyUnsealKey, LegacyError> {
    let (name, path) = suite_and_file.split_once('=').ok_or(LegacyError::Argument)?;
    let (suite, path) = (suite(name).map_err(LegacyError::Suite)?, Path::new(path));
    let contents = read_private_octets(path)?;
    LegacyUnsealKey::from_file(suite, &contents).map_err(|source| LegacyError::NoKey { path: path.to_owned(), source })
}

/// Reads several private halves, each `SUITE=FILE`.
///
/// # Errors
/// Those of [`private_key`].
pub fn private_keys(suites_and_files: &[String]) -> Result<UnsealKeys, LegacyError> {
    let keys = suites_and_files.iter().map(|one| private_key(one)).collect::<Result<Vec<_>, _>>()?;
    Ok(UnsealKeys::default().with_legacy(keys))
}

/// Like [`certseal_service::config::read_private`], for what need not be text.
fn read_private_octets(path: &Path) -> Result<Zeroizing<Vec<u8>>, LegacyError> {
    use std::os::unix::fs::PermissionsExt;
    let unreadable = |source| LegacyError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode }.into());
    }
    Ok(Zeroizing::new(fs::read(path).map_err(unreadable)?))
}

/// The octets that the key's id is made of, or what was expected.
fn rsa_public(text: &str) -> Result<Vec<u8>, String> {
    let expected = "expected a PEM block \"PUBLIC KEY\" with an RSA key of 2048 to 8192 bits";
    let block = pem::parse(text).map_err(|error| format!("{expected}: {error}"))?;
    if block.tag() != "PUBLIC KEY" {
        return Err(format!("{expected}, got \"{}\"", block.tag()));
    }
    // Encoded anew: the id is that of the one encoding, which the private half gives too.
    let key = PublicEncryptingKey::from_der(block.contents()).map_err(|_| expected)?;
    let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&key);
    Ok(der.map_err(|_| expected)?.as_ref().to_vec())
}

/// The octets that the key's id is made of, or what was expected.
fn secp256k1_public(text: &str) -> Result<Vec<u8>, String> {
    let expected = "expected a point of secp256k1 in hexadecimal digits: 66 when it is compressed, or 130";
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>().ok_or(expected)?;
    if !matches!(digits.len(), 66 | 130) {
        return Err(format!("{expected}, got {} of them", digits.len()));
    }
    let octets: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect(); // both below 16
    let point = ecies::PublicKey::parse_slice(&octets, None).map_err(|_| expected)?;
    Ok(point.serialize().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::Pkcs8V1Der,
        rsa::{KeySize, PrivateDecryptingKey},
    };

    use super::*;

    #[test]
    fn a_public_half_has_the_id_of_its_private_half() {
        let dir = tempfile::tempdir().unwrap();
        let (private, public) = (dir.path().join("private"), dir.path().join("public"));
        let write_private = |contents: &str| {
            let _ = fs::remove_file(&private);
            certseal_service::config::write_private(&private, contents).unwrap();
        };
        let rsa = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        write_private(&pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref())));
        let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&rsa.public_key()).unwrap();
        fs::write(&public, pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()))).unwrap();
        for suite in [LegacySuite::RsaOaepSha256, LegacySuite::RsaOaepSha1] {
            let key = private_key(&format!("{}={}", suite.name(), private.display())).unwrap();
            assert_eq!(public_key_id(suite, &public).unwrap(), key.id());
        }
        assert!(public_key_id(LegacySuite::EciesSecp256k1, &public).is_err());

        let (secret, point) = ecies::utils::generate_keypair();
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let suite = LegacySuite::EciesSecp256k1;
        write_private(&hex(&secret.serialize()));
        let key = private_key(&format!("{}={}", suite.name(), private.display())).unwrap();
        for form in [hex(&point.serialize()), format!("0x{}\n", hex(&point.serialize_compressed()))] {
            fs::write(&public, form).unwrap();
            assert_eq!(public_key_id(suite, &public).unwrap(), key.id());
        }
    }
}
