//! What certman remembers of an account besides its key, in `FILE.account` beside the key's file.

use std::path::{Path, PathBuf};

use certseal_service::config::{self as files, ConfigError};
use certseal_wire::FormerKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AccountNote {
    /// The thumbprint of the account's first key, once it has another one. The journal and the books of limits know the account by
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known_as: Option<String>,
    /// Keys that it had before, or that it has and may lose within a moment: edges answer for them until an instant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) former: Vec<FormerKey>,
    /// The thumbprint of the next key, once the CA has said that it took it. It says nothing of a key that is the account's by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) taken: Option<String>,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deactivation: Option<Deactivation>,
}

/// The end of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Deactivation {
    /// The account's URL.
    pub(super) account: String,
    /// Whether the CA has confirmed it.
    pub(super) is_done: bool,
}

impl AccountNote {
    /// Reads the note beside the file of a key; where there is none, nothing is remembered.
    pub(super) fn read(key: &Path) -> Result<Self, ConfigError> {
        let file = beside(key, NOTE);
        if !file.exists() {
            return Ok(Self::default());
        }
        serde_json::from_str(&files::read(&file)?).map_err(|error| ConfigError::invalid(&file, error))
    }

    /// Writes it there.
    pub(super) fn write(&self, key: &Path) -> anyhow::Result<()> {
        Ok(files::replace_private(&beside(key, NOTE), &(serde_json::to_string(self)? + "\n"))?)
    }

    /// Notes that a key is used no more from `until` on.
    pub(super) fn leaves(&mut self, thumbprint: &str, until: Timestamp) {
        self.former.retain(|key| key.thumbprint != thumbprint);
        self.former.push(FormerKey { thumbprint: thumbprint.to_owned(), until });
    }

    /// The keys whose time is over at `now`.
    pub(super) fn over(&self, now: Timestamp) -> Vec<String> {
        let over = self.former.iter().filter(|key| key.until <= now);
        over.map(|key| key.thumbprint.clone()).collect()
    }
}

/// A file beside that of a key.
pub(super) fn beside(key: &Path, suffix: &str) -> PathBuf {
    let mut beside = key.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

const NOTE: &str = ".account";
/// The key that takes the place of the account's.
pub(super) const NEXT: &str = ".next";
/// The ending of the file with a next key that was never used, as far as certman knows.
pub(super) const REPLACED: &str = ".replaced";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_a_missing_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("account.key");
        assert_eq!(AccountNote::read(&key).unwrap(), AccountNote::default());
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let mut note = AccountNote { known_as: Some("first".into()), ..AccountNote::default() };
        note.leaves("first", now);
        note.leaves("second", now);
        note.leaves("first", "2026-11-01T01:00:00Z".parse().unwrap());
        assert_eq!((note.over(now), note.former.len()), (vec!["second".to_owned()], 2));
        note.deactivation = Some(Deactivation { account: "https://ca.example/account/1".into(), is_done: false });
        note.write(&key).unwrap();
        assert_eq!(AccountNote::read(&key).unwrap(), note);
        std::fs::write(dir.path().join("account.key.account"), "nonsense").unwrap();
        let error = AccountNote::read(&key).unwrap_err().to_string();
        assert!(error.contains("account.key.account"), "{error}");
    }
}
