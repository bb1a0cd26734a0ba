//! The unseal keys of the configuration, loaded again when their files change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use certseal_resolver::LocalKeys;
use certseal_service::config as files;
use certseal_unseal::{LegacyUnsealKey, UnsealKey, UnsealKeys, token::TokenUri};
use certseal_wire::PoolName;

use crate::config::{Config, LegacyKeyFile};

/// Where the keys are, and how these places looked last.
struct KeyFiles {
    pool: PoolName,
    places: Vec<PathBuf>,
    legacy: Vec<LegacyKeyFile>,
    seen: Vec<Seen>,
}

/// A file as it was when it was read.
type Seen = (PathBuf, Option<(SystemTime, u64)>);

impl KeyFiles {
    fn new(config: &Config) -> Self {
        let (places, legacy) = (config.unseal_keys.clone(), config.legacy_keys.clone());
        Self { pool: config.pool.clone(), places, legacy, seen: Vec::new() }
    }

    /// Reads all keys for the first time, when each file has to be there.
    fn load(&mut self) -> anyhow::Result<UnsealKeys> {
        let sources = self.sources()?;
        ensure!(
            !sources.is_empty() || !self.legacy.is_empty(),
            "expected at least one file or PKCS#11 URI in unseal_keys: without a key no handshake can be signed"
        );
        self.read_all(sources, self.legacy.clone())
    }

    /// Reads again what is there. A key whose file is gone is gone, and so is the last one: the operator who takes it
    /// away means it.
    fn reload(&mut self) -> anyhow::Result<UnsealKeys> {
        let mut sources = self.sources()?;
        sources.retain(|source| uri(source).is_some() || !is_gone(source));
        let legacy = self.legacy.iter().filter(|key| !is_gone(&key.file)).cloned().collect();
        self.read_all(sources, legacy)
    }

    fn read_all(&mut self, sources: Vec<PathBuf>, legacy: Vec<LegacyKeyFile>) -> anyhow::Result<UnsealKeys> {
        // Before they are read: a file that changes meanwhile is read again.
        let seen = self.look(&self.sources()?);
        let keys = sources.iter().map(|source| self.read(source)).collect::<anyhow::Result<UnsealKeys>>()?;
        let legacy = legacy.iter().map(read_legacy).collect::<anyhow::Result<Vec<_>>>()?;
        self.seen = seen;
        Ok(keys.with_legacy(legacy))
    }

    /// Whether a file has come, gone or changed since the keys were read.
    fn have_changed(&self) -> bool {
        // A directory that cannot be read now is looked at again the next time.
        self.sources().is_ok_and(|sources| self.look(&sources) != self.seen)
    }

    /// Every file and URI, those in directories in the order of their names.
    fn sources(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut sources = Vec::new();
        for place in &self.places {
            if !place.is_dir() {
                sources.push(place.clone());
                continue;
            }
            let entries = fs::read_dir(place).with_context(|| place.display().to_string())?;
            let paths = entries.map(|entry| Ok(entry.with_context(|| place.display().to_string())?.path()));
            let mut paths = paths.collect::<anyhow::Result<Vec<_>>>()?;
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "key" || extension == "uri"));
            paths.sort();
            sources.extend(paths);
        }
        Ok(sources)
    }

    fn look(&self, sources: &[PathBuf]) -> Vec<Seen> {
        let legacy = self.legacy.iter().map(|key| &key.file);
        sources.iter().chain(legacy).map(|path| (path.clone(), state(path))).collect()
    }

    fn read(&self, source: &Path) -> anyhow::Result<UnsealKey> {
        let key = match uri(source) {
            Some(uri) => UnsealKey::in_token(&uri.parse().context("unseal_keys")?)?,
            None if source.extension().is_some_and(|extension| extension == "uri") => {
                let text = files::read_private(source)?;
                let uri = text.trim().parse().with_context(|| source.display().to_string())?;
                UnsealKey::in_token(&uri).with_context(|| source.display().to_string())?
            }
            None => {
                let text = files::read_private(source)?;
                UnsealKey::from_pem(&text).with_context(|| source.display().to_string())?
            }
        };
        ensure!(
            *key.pool() == self.pool,
            "{}: expected an unseal key of pool {}, got one of pool {}",
            source.display(),
            self.pool,
            key.pool()
        );
        Ok(key)
    }
}

/// Loads keys again whenever their files change. A file that cannot be loaded leaves the keys as they are.
pub(crate) struct KeyWatch {
    files: KeyFiles,
    keys: Arc<LocalKeys>,
    /// The complaint that was logged last.
    complaint: String,
}

impl KeyWatch {
    /// Loads the keys for the first time.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let mut files = KeyFiles::new(config);
        let keys = LocalKeys::new(&config.pool, files.load()?)?;
        Ok(Self { files, keys, complaint: String::new() })
    }

    pub(crate) fn keys(&self) -> Arc<LocalKeys> {
        self.keys.clone()
    }

    /// Whether there are other keys now. To be asked every [`LOOK`].
    pub(crate) fn look(&mut self) -> bool {
        if !self.files.have_changed() {
            return false;
        }
        match self.load() {
            Ok(ids) => {
                self.complaint.clear();
                if ids.is_empty() {
                    tracing::error!(
                        "the last unseal key is gone, and was forgotten with all keys that it opened: no new handshake can \
                         be signed until a key file is back"
                    )
                } else {
                    tracing::info!(keys = ids.join(", "), "unseal keys were loaded again")
                }
                true
            }
            Err(error) => {
                let text = format!("{error:#}");
                if text != self.complaint {
                    tracing::error!(
                        error = text,
                        "unseal keys have changed and cannot be loaded: going on with the old ones"
                    );
                    self.complaint = text;
                }
                false
            }
        }
    }

    fn load(&mut self) -> anyhow::Result<Vec<String>> {
        let loaded = self.files.reload()?;
        let keys = loaded.iter().map(|key| format!("{} (epoch {})", key.key_id(), key.epoch()));
        let legacy = loaded.legacy().iter().map(|key| format!("{} (legacy)", key.id()));
        let ids = keys.chain(legacy).collect();
        self.keys.replace(loaded)?;
        Ok(ids)
    }
}

/// The PKCS#11 URI that stands in the place of a path.
fn uri(source: &Path) -> Option<&str> {
    source.to_str().filter(|text| TokenUri::is_meant_by(text))
}

/// Whether there is no such file; not when that cannot be seen.
fn is_gone(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn read_legacy(key: &LegacyKeyFile) -> anyhow::Result<LegacyUnsealKey> {
    let text = files::read_private(&key.file)?;
    LegacyUnsealKey::from_file(key.suite, text.as_bytes()).with_context(|| key.file.display().to_string())
}

/// When a file was changed, and its size; none when there is none.
fn state(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Between two looks at the files.
pub(crate) const LOOK: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use certseal_resolver::KeyHolder;
    use certseal_seal::{LegacySuite, Suite};
    use certseal_unseal::UnsealKey;
    use certseal_wire::Epoch;
    use files::write_private;

    use super::*;

    #[test]
    fn keys_of_all_formats_come_and_go_with_their_files_to_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut config: Config = toml::from_str(include_str!("../../../../deploy/certedge.toml")).unwrap();
        let key = |epoch| UnsealKey::generate(config.pool.clone(), Epoch(epoch), Suite::P256).unwrap();
        let (first, second) = (key(1).expose_pem().unwrap(), key(2).expose_pem().unwrap());
        write_private(&path("first.pem"), &first).unwrap();
        fs::create_dir(path("keys")).unwrap();
        write_private(&path("keys/second.key"), &second).unwrap();
        write_private(&path("legacy"), &"01".repeat(32)).unwrap();
        config.unseal_keys = vec![path("first.pem"), path("keys")];
        config.legacy_keys = vec![LegacyKeyFile { suite: LegacySuite::EciesSecp256k1, file: path("legacy") }];

        let mut watch = KeyWatch::start(&config).unwrap();
        let loaded = |watch: &KeyWatch| watch.keys().loaded();
        let all = loaded(&watch);
        assert_eq!(all.len(), 3);
        assert!(!watch.look(), "nothing has changed");

        fs::remove_file(path("legacy")).unwrap();
        assert!(watch.look());
        assert_eq!(loaded(&watch), all[..2]);
        write_private(&path("legacy"), &"02".repeat(32)).unwrap();
        assert!(watch.look());
        assert_eq!(loaded(&watch).len(), 3);
        assert_ne!(loaded(&watch)[2], all[2], "another legacy key was not seen");

        fs::remove_file(path("first.pem")).unwrap();
        fs::remove_file(path("legacy")).unwrap();
        assert!(watch.look());
        assert_eq!(loaded(&watch), all[..1]);
        fs::remove_dir_all(path("keys")).unwrap();
        assert!(watch.look());
        assert_eq!(loaded(&watch), [], "the last key is still there");
        assert!(!watch.look());

        write_private(&path("first.pem"), &first).unwrap();
        assert!(watch.look());
        assert_eq!(loaded(&watch), all[1..2]);
        // The control: an edge does not start like that.
        fs::remove_file(path("first.pem")).unwrap();
        assert!(KeyWatch::start(&config).is_err());
    }
}
