//! Configuration files and files that hold secrets.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Why a file that the configuration needs is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {detail}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The fault, and the expected value.
        detail: String,
    },
    /// A private file that others can read.
    #[error("{} can be read by others (mode {mode:03o}): a private key must be readable by its owner only; run `chmod 600 {}`",
        path.display(), path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl ConfigError {
    /// `path` is not what it should be.
    pub fn invalid(path: &Path, detail: impl ToString) -> Self {
        Self::Invalid { path: path.to_owned(), detail: detail.to_string() }
    }
}

/// Reads a TOML file. An unknown field is an error where `T` denies them, as all of certseal's configurations do.
///
/// # Errors
/// [`ConfigError`] names the file, and the line where it is wrong.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    toml::from_str(&read(path)?).map_err(|e| ConfigError::invalid(path, e))
}

/// Reads a text file.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// Reads a file that holds a secret. It is refused when its group or others have any access.
///
/// # Errors
/// [`ConfigError::Exposed`] and [`ConfigError::Unreadable`].
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    // The file that is checked is the one that is read, whatever happens to the path meanwhile.
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode });
    }
    // The whole capacity at once: growing would leave copies behind that nobody wipes.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Writes a file that only its owner can read; it must not be there yet. It is there as a whole or not at all, and
/// durable when this returns.
///
/// # Errors
/// When it is there already, or the directory cannot be written.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = unfinished(path)?;
    // Unlike a rename, a link fails when the name is taken.
    let written = write_synced(&unfinished, text).and_then(|()| fs::hard_link(&unfinished, path));
    let removed = fs::remove_file(&unfinished);
    written.and(removed)?;
    sync_directory_of(path)
}

/// Writes a file that only its owner can read, in the place of one that may be there: what is there is the one or the other as a
/// whole, and the new one is durable when this returns.
///
/// # Errors
/// When the directory cannot be written.
pub fn replace_private(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = unfinished(path)?;
    let written = write_synced(&unfinished, text).and_then(|()| rename_durably(&unfinished, path));
    if written.is_err() {
        // It may be gone, or never have been there.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Gives a file the name of another one, which is gone then. The rename is durable when this returns.
///
/// # Errors
/// When there is no such file, or the directory cannot be written.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory_of(to)
}

/// The name of a file on its way to `path`.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    Ok(directory_of(path).join(format!(".{name}.{}", std::process::id())))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    fs::File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        listen: String,
    }

    #[test]
    fn an_unknown_field_is_named_with_its_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("example.toml");
        fs::write(&path, "listen = \"x\"\nlissten = \"y\"\n").unwrap();
        let error = load::<Example>(&path).unwrap_err().to_string();
        assert!(error.contains("example.toml") && error.contains("lissten") && error.contains("line 2"), "{error}");
        fs::write(&path, "listen = \"x\"\n").unwrap();
        assert_eq!(load::<Example>(&path).unwrap().listen, "x");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Example>(Path::new("/nowhere/x.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.toml"), "{error}");
    }

    #[test]
    fn a_private_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_private(&path, "secret").unwrap();
        assert_eq!(read_private(&path).unwrap().as_str(), "secret");
        assert!(write_private(&path, "other").is_err(), "it was overwritten");
        assert_eq!(read_private(&path).unwrap().as_str(), "secret");
        replace_private(&path, "other").unwrap();
        assert_eq!(read_private(&path).unwrap().as_str(), "other");
        replace_private(&dir.path().join("next.pem"), "next").unwrap();
        rename_durably(&dir.path().join("next.pem"), &path).unwrap();
        assert_eq!(read_private(&path).unwrap().as_str(), "next");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left");
        for mode in [0o640, 0o604, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
}
