//! Sets of new files: all are written or none, and nothing that is there is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use certseal_service::config::write_private;
use serde::Serialize;
use zeroize::Zeroizing;

/// Why a file or a directory is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refuses.
    #[error("cannot {doing} {}", path.display())]
    Refused {
        /// A verb: `write`, `make`, ..
        doing: &'static str,
        /// The file or the directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A directory cannot be looked at.
    #[error("{}", path.display())]
    Unseen {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// New files would have the names of others.
    #[error("{} holds {names} already and nothing there was changed: {advice}", dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
        /// The names, with commas between them.
        names: String,
        /// The way out.
        advice: &'static str,
    },
    /// A directory for keys that others can write to.
    #[error(
        "others can write to {} (mode {mode:03o}) and could replace the keys there: run `chmod 700 {}`, or choose another \
         directory",
        dir.display(), dir.display()
    )]
    Exposed {
        /// The directory.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FileError {
    /// An error of the system about `path`.
    pub(crate) fn refused(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Refused { doing, path: path.to_owned(), source }
    }
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its content, in words.
    pub content: String,
    /// The party that gets it.
    pub holder: String,
    /// Whether it is a secret; such files are readable by their owner only.
    pub private: bool,
}

/// Files that are ready to be written.
#[derive(Default)]
pub(crate) struct NewFiles(Vec<NewFile>);

struct NewFile {
    name: String,
    text: Zeroizing<String>,
    content: String,
    holder: String,
    private: bool,
}

impl NewFiles {
    pub(crate) fn public(&mut self, name: &str, text: String, content: &str, holder: &str) {
        self.push(name, Zeroizing::new(text), content, holder, false);
    }

    pub(crate) fn private(&mut self, name: &str, text: Zeroizing<String>, content: &str, holder: &str) {
        self.push(name, text, content, holder, true);
    }

    fn push(&mut self, name: &str, text: Zeroizing<String>, content: &str, holder: &str, private: bool) {
        let (name, content, holder) = (name.to_owned(), content.to_owned(), holder.to_owned());
        self.0.push(NewFile { name, text, content, holder, private });
    }

    /// Writes all files durably into `dir`, which is made with mode 0700 when it is not there.
    ///
    /// # Errors
    /// When one of the files is there already (`advice` says what to do then), or the directory is not usable. No new
    /// file is left behind.
    pub(crate) fn write(self, dir: &Path, advice: &'static str) -> Result<Vec<MadeFile>, FileError> {
        open_dir(dir)?;
        let taken: Vec<&str> =
            self.0.iter().map(|file| file.name.as_str()).filter(|name| is_taken(&dir.join(name))).collect();
        if !taken.is_empty() {
            return Err(FileError::Taken { dir: dir.to_owned(), names: taken.join(", "), advice });
        }
        let mut made: Vec<MadeFile> = Vec::with_capacity(self.0.len());
        for file in self.0 {
            let path = dir.join(&file.name);
            let written = if file.private { write_private(&path, &file.text) } else { write_public(&path, &file.text) };
            // A file that came into being since the check is someone else's: it stays.
            let ours = !matches!(&written, Err(e) if e.kind() == io::ErrorKind::AlreadyExists);
            let outcome = written.map_err(FileError::refused("write", &path));
            if ours {
                made.push(MadeFile { path, content: file.content, holder: file.holder, private: file.private });
            }
            outcome.inspect_err(|_| made.iter().for_each(|file| drop(fs::remove_file(&file.path))))?;
        }
        sync_dir(dir)?;
        Ok(made)
    }
}

/// Writes a new file that only its owner can read, and makes it survive a power cut.
pub(crate) fn write_durably(path: &Path, text: &str) -> Result<(), FileError> {
    write_private(path, text).map_err(FileError::refused("write", path))?;
    sync_dir(parent(path))
}

/// Makes a new name in `dir` survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(FileError::refused("sync the directory", dir))
}

/// The directory that `path` is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes `dir` with mode 0700 when it is not there, and refuses one that others can write to.
pub(crate) fn open_dir(dir: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(FileError::refused("make the directory", dir))?;
    let metadata = fs::metadata(dir).map_err(|source| FileError::Unseen { path: dir.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(FileError::Exposed { dir: dir.to_owned(), mode });
    }
    Ok(())
}

/// Whether something is at `path`, be it a dangling link.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Puts a public file in the place of the one that may be there, whole or not at all.
pub(crate) fn replace_public(
    dir: &Path,
    name: &str,
    text: String,
    content: &str,
    holder: &str,
) -> Result<MadeFile, FileError> {
    let (path, unfinished) = (dir.join(name), dir.join(format!("{name}.new")));
    let _ = fs::remove_file(&unfinished);
    let written = write_public(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &path));
    written.and_then(|()| File::open(dir)?.sync_all()).map_err(FileError::refused("write", &path))?;
    Ok(MadeFile { path, content: content.to_owned(), holder: holder.to_owned(), private: false })
}

/// Writes a new file that everybody can read.
pub(crate) fn write_public(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
