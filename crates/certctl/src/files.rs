//! Sets of new files: all are written or none, and nothing that is there is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use certseal_service::config::write_private;
use serde::Serialize;
use zeroize::Zeroizing;

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub content: String,
    /// Who gets it.
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
    pub(crate) fn write(self, dir: &Path, advice: &str) -> anyhow::Result<Vec<MadeFile>> {
        open_dir(dir)?;
        let taken: Vec<&str> =
            self.0.iter().map(|file| file.name.as_str()).filter(|name| is_taken(&dir.join(name))).collect();
        if !taken.is_empty() {
            bail!("{} holds {} already and nothing there was changed: {advice}", dir.display(), taken.join(", "));
        }
        let mut made: Vec<MadeFile> = Vec::with_capacity(self.0.len());
        for file in self.0 {
            let path = dir.join(&file.name);
            let written = if file.private { write_private(&path, &file.text) } else { write_public(&path, &file.text) };
            // A file that came into being since the check is someone else's: it stays.
            let ours = !matches!(&written, Err(e) if e.kind() == io::ErrorKind::AlreadyExists);
            let outcome = written.with_context(|| format!("cannot write {}", path.display()));
            if ours {
                made.push(MadeFile { path, content: file.content, holder: file.holder, private: file.private });
            }
            outcome.inspect_err(|_| made.iter().for_each(|file| drop(fs::remove_file(&file.path))))?;
        }
        sync_dir(dir)?;
        Ok(made)
    }
}

/// A new file that only its owner can read, and that takes its name once it is complete and on the disk.
pub(crate) struct Growing {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    is_complete: bool,
}

impl Growing {
    /// Begins a file under its name with `.part` at the end, in place of one that an earlier run left there.
    ///
    /// # Errors
    /// When something is at `path` already, or the directory is not usable.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        ensure!(!is_taken(path), "{} is there already and was not changed: give another name", path.display());
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let open = || {
            match fs::remove_file(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)
        };
        let file = open().with_context(|| format!("cannot make {}", part.display()))?;
        Ok(Self { path: path.to_owned(), part, out: BufWriter::new(file), is_complete: false })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes).with_context(|| format!("cannot write {}", self.part.display()))
    }

    /// Makes what was written survive a power cut, under the file's own name.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.with_context(|| format!("cannot write {}", self.part.display()))?;
        ensure!(!is_taken(&self.path), "{} came into being meanwhile and was not changed", self.path.display());
        fs::rename(&self.part, &self.path).with_context(|| format!("cannot make {}", self.path.display()))?;
        self.is_complete = true;
        sync_dir(parent(&self.path))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if !self.is_complete {
            // What cannot be removed is removed by the next run.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Writes a new file that only its owner can read, and makes it survive a power cut.
pub(crate) fn write_durably(path: &Path, text: &str) -> anyhow::Result<()> {
    write_private(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    sync_dir(parent(path))
}

/// Makes a new name in `dir` survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("cannot sync the directory {}", dir.display()))
}

/// The directory that `path` is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes `dir` with mode 0700 when it is not there, and refuses one that others can write to.
pub(crate) fn open_dir(dir: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let mode = fs::metadata(dir).with_context(|| dir.display().to_string())?.permissions().mode() & 0o777;
    ensure!(
        mode & 0o022 == 0,
        "others can write to {} (mode {mode:03o}) and could replace the keys there: run `chmod 700 {}`, or choose \
         another directory",
        dir.display(),
        dir.display(),
    );
    Ok(())
}

/// Whether something is at `path`, be it a dangling link.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Writes a new file that everybody can read.
/// Puts a public file in the place of the one that may be there, whole or not at all.
pub(crate) fn replace_public(
    dir: &Path,
    name: &str,
    text: String,
    content: &str,
    holder: &str,
) -> anyhow::Result<MadeFile> {
    let (path, unfinished) = (dir.join(name), dir.join(format!("{name}.new")));
    let _ = fs::remove_file(&unfinished);
    let written = write_public(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &path));
    written.and_then(|()| File::open(dir)?.sync_all()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(MadeFile { path, content: content.to_owned(), holder: holder.to_owned(), private: false })
}

pub(crate) fn write_public(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_file_has_its_name_once_it_is_complete_and_never_takes_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("x.backup"), dir.path().join("x.backup.part"));
        let mut abandoned = Growing::create(&path).unwrap();
        abandoned.write(b"a").unwrap();
        assert!(part.exists() && !path.exists());
        drop(abandoned);
        assert!(!part.exists() && !path.exists());

        fs::write(&part, "from an earlier run").unwrap();
        let mut file = Growing::create(&path).unwrap();
        file.write(b"ab").unwrap();
        file.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), part.exists()), (b"ab".to_vec(), false));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let error = Growing::create(&path).err().unwrap().to_string();
        assert!(error.contains("is there already"), "{error}");
    }
}
