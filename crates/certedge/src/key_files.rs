//! The unseal keys of the configuration, loaded again when their files change.

use std::{
    fs,
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

    /// Reads all keys.
    fn load(&mut self) -> anyhow::Result<UnsealKeys> {
        let sources = self.sources()?;
        ensure!(
            !sources.is_empty() || !self.legacy.is_empty(),
            "expected at least one file or PKCS#11 URI in unseal_keys: without a key no handshake can be signed"
        );
        // Before they are read: what changes meanwhile is read again.
        let seen = self.look(&sources);
        let keys = sources.iter().map(|source| self.read(source)).collect::<anyhow::Result<UnsealKeys>>()?;
        let legacy = self.legacy.iter().map(read_legacy).collect::<anyhow::Result<Vec<_>>>()?;
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
        let key = match source.to_str().filter(|text| TokenUri::is_meant_by(text)) {
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

/// Loads keys again whenever their files change. What cannot be loaded leaves the keys as they are.
pub(crate) struct KeyWatch {
    files: KeyFiles,
    keys: Arc<LocalKeys>,
    /// What was said last.
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
                tracing::info!(keys = ids.join(", "), "unseal keys were loaded again");
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
        let loaded = self.files.load()?;
        let ids = loaded.iter().map(|key| format!("{} (epoch {})", key.key_id(), key.epoch())).collect();
        self.keys.replace(loaded)?;
        Ok(ids)
    }
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
