//! New files that appear under their names as a whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// A new file that only its owner can read, and that takes its name once it is complete and on the disk.
pub(crate) struct UnfinishedFile {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    is_complete: bool,
}

impl UnfinishedFile {
    /// Begins a file under its name with `.part` at the end, in place of one that an earlier run left there.
    ///
    /// # Errors
    /// When something is at `path` already, or the directory is not usable.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        if is_taken(path) {
            return Err(Error::Taken(path.to_owned()));
        }
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
        let file = open().map_err(Error::file("make", &part))?;
        Ok(Self { path: path.to_owned(), part, out: BufWriter::new(file), is_complete: false })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::file("write", &self.part))
    }

    /// Makes what was written survive a power cut, under the file's own name.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(Error::file("write", &self.part))?;
        if is_taken(&self.path) {
            return Err(Error::TakenMeanwhile(self.path.clone()));
        }
        fs::rename(&self.part, &self.path).map_err(Error::file("make", &self.path))?;
        self.is_complete = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("sync the directory", dir))
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // A file that cannot be removed is removed by the next run.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Whether something is at `path`, be it a dangling link.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_unfinished_file_has_its_name_once_it_is_complete_and_never_takes_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("x.backup"), dir.path().join("x.backup.part"));
        let mut abandoned = UnfinishedFile::create(&path).unwrap();
        abandoned.write(b"a").unwrap();
        assert!(part.exists() && !path.exists());
        drop(abandoned);
        assert!(!part.exists() && !path.exists());

        fs::write(&part, "from an earlier run").unwrap();
        let mut file = UnfinishedFile::create(&path).unwrap();
        file.write(b"ab").unwrap();
        file.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), part.exists()), (b"ab".to_vec(), false));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let error = UnfinishedFile::create(&path).err().unwrap().to_string();
        assert!(error.contains("is there already"), "{error}");
    }
}
