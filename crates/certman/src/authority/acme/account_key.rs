//! The files of accounts' keys: each is of one CA, wherever that one stands in the configuration.
//!
//! A file that certman names itself has the CA's directory in its name. For one that an operator names, the directory stands beside
//! it, in `FILE.directory`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use certseal_seal::sha256;
use certseal_service::config as files;
use certseal_wire::causes;

use crate::config;

/// The file for the account at a CA: the one that the configuration names, or one in `data_dir`.
///
/// # Errors
/// When the configuration names one that is of another CA, or when a file cannot be read or written.
pub(crate) fn account_key_file(
    configured: Option<&Path>,
    data_dir: &Path,
    directory: &str,
    is_preferred: bool,
) -> anyhow::Result<PathBuf> {
    match configured {
        Some(file) => {
            check(file, directory)?;
            Ok(file.to_owned())
        }
        None => in_data_dir(data_dir, directory, is_preferred),
    }
}

/// The file in `data_dir`. Earlier releases named it by the CA's place in the configuration: such a file is taken over by the CA that
/// has that place when this release begins, and by no other one later.
fn in_data_dir(data_dir: &Path, directory: &str, is_preferred: bool) -> anyhow::Result<PathBuf> {
    let host = config::host(directory).unwrap_or_default();
    // Of two directories on one host.
    let digest: String = sha256(directory.as_bytes()).0[..4].iter().map(|octet| format!("{octet:02x}")).collect();
    let file = data_dir.join(format!("acme-account-{host}-{digest}.key"));
    let earlier = if is_preferred { "acme-account.key".to_owned() } else { format!("acme-account-{host}.key") };
    let earlier = data_dir.join(earlier);
    if !file.exists() && earlier.exists() && noted(&earlier, directory)? == directory {
        // The release before finds it under its old name.
        match fs::hard_link(&earlier, &file) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot link {} to {}", file.display(), earlier.display()));
            }
            _ => tracing::info!(directory, file = %file.display(), "an account's key is named by its CA from now on"),
        }
    }
    Ok(file)
}

/// Refuses a file that is another CA's.
fn check(file: &Path, directory: &str) -> anyhow::Result<()> {
    let known = match noted(file, directory) {
        Ok(known) => known,
        // Keys may lie where certman writes nothing.
        Err(error) if !beside(file).exists() => {
            let (file, error) = (file.display(), causes(error.as_ref()));
            tracing::warn!(%file, error, "cannot note beside an account's key of which CA it is");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let (file, beside) = (file.display(), beside(file));
    ensure!(
        known == directory,
        "{file} has the key of the account at {known}, as {} says, and not of one at {directory}: name another file in `account_key`, \
         or remove {} if the CA's directory has moved",
        beside.display(),
        beside.display()
    );
    Ok(())
}

/// The directory of the CA that a file is of. One of which nothing is known is of `directory` from now on.
fn noted(file: &Path, directory: &str) -> anyhow::Result<String> {
    let beside = beside(file);
    if !beside.exists() {
        match files::write_private(&beside, &format!("{directory}\n")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot write {}", beside.display()));
            }
            _ => {}
        }
    }
    Ok(files::read(&beside)?.trim().to_owned())
}

fn beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".directory");
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "https://ca.example/directory";
    const OTHER: &str = "https://other.example/directory";

    fn named(data_dir: &Path, directory: &str, is_preferred: bool) -> PathBuf {
        account_key_file(None, data_dir, directory, is_preferred).unwrap()
    }

    #[test]
    fn a_key_goes_with_its_ca_wherever_that_stands_in_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let [first, other] = [named(dir.path(), FIRST, true), named(dir.path(), OTHER, false)];
        assert_ne!(first, other);
        assert_eq!([named(dir.path(), FIRST, false), named(dir.path(), OTHER, true)], [first.clone(), other]);
        assert_ne!(named(dir.path(), "https://ca.example/other", false), first, "two on one host");
    }

    #[test]
    fn a_key_of_an_earlier_release_is_taken_over_by_the_ca_that_it_is_of_and_by_no_other_one() {
        let dir = tempfile::tempdir().unwrap();
        files::write_private(&dir.path().join("acme-account.key"), "first").unwrap();
        files::write_private(&dir.path().join("acme-account-other.example.key"), "other").unwrap();
        let key = |directory, is_preferred| files::read_private(&named(dir.path(), directory, is_preferred)).ok();
        let text = |directory, is_preferred| key(directory, is_preferred).map(|text| text.to_string());
        assert_eq!([text(FIRST, true), text(OTHER, false)], [Some("first".to_owned()), Some("other".to_owned())]);
        assert_eq!([text(OTHER, true), text(FIRST, false)], [Some("other".to_owned()), Some("first".to_owned())]);
        assert_eq!(text("https://third.example/directory", true), None, "it makes a key of its own");
        assert!(dir.path().join("acme-account.key").exists(), "the release before finds it");
    }

    #[test]
    fn a_key_that_is_of_another_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("own.key");
        files::write_private(&file, "key").unwrap();
        let of = |directory| account_key_file(Some(&file), dir.path(), directory, true);
        assert_eq!([of(FIRST).unwrap(), of(FIRST).unwrap()], [file.clone(), file.clone()]);
        let error = of(OTHER).unwrap_err().to_string();
        assert!(error.contains(FIRST) && error.contains(OTHER) && error.contains("own.key.directory"), "{error}");
        fs::remove_file(dir.path().join("own.key.directory")).unwrap();
        of(OTHER).unwrap();
        assert!(of(FIRST).is_err());
    }

    #[test]
    fn a_key_where_nothing_can_be_written_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("missing").join("own.key");
        assert_eq!(account_key_file(Some(&file), dir.path(), FIRST, true).unwrap(), file);
    }
}
