//! Folders of sites, read from a directory or from a tar archive.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path},
};

use certseal_wire::causes;

use super::folder::{CHAIN, FILES, Folder, KEY, SITE, in_file};
use crate::error::{FolderError, ImportError};

/// Gives each folder to `take`, until that wants no more.
pub(super) fn read(path: &Path, take: &dyn Fn(Folder) -> bool) -> Result<(), ImportError> {
    if path.is_dir() {
        read_directory(path, take)
    } else {
        let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        read_archive(BufReader::new(file), take)
            .map_err(|source| ImportError::NoArchive { path: path.to_owned(), source: Box::new(source) })
    }
}

fn read_directory(path: &Path, take: &dyn Fn(Folder) -> bool) -> Result<(), ImportError> {
    let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(unreadable)?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    if names.len() > MAX_SITES {
        return Err(ImportError::TooManyFolders { path: path.to_owned(), limit: MAX_SITES });
    }
    names.sort();
    for name in names {
        let folder = path.join(&name);
        let name = name.to_string_lossy();
        let folder = if folder.is_dir() {
            read_folder(&name, &folder).unwrap_or_else(|error| Folder::broken(&name, causes(&error)))
        } else {
            Folder::broken(&name, "expected a folder for each site, got a file".to_owned())
        };
        if !take(folder) {
            break;
        }
    }
    Ok(())
}

fn read_folder(name: &str, path: &Path) -> Result<Folder, FolderError> {
    let mut folder = Folder { name: name.to_owned(), ..Folder::default() };
    for known in FILES {
        match File::open(path.join(known)) {
            Ok(file) => drop(folder.files.insert(known, bounded(file).map_err(in_file(known))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(in_file(known)(error)),
        }
    }
    Ok(folder)
}

/// Reads an archive once, in its order: the files of a folder stand together in it, as tar writes them.
fn read_archive(reader: impl Read, take: &dyn Fn(Folder) -> bool) -> Result<(), ImportError> {
    let mut archive = tar::Archive::new(reader);
    let mut current: Option<Folder> = None;
    let mut seen = HashSet::new();
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= MAX_SITES * 4 {
            return Err(ImportError::TooManyEntries(MAX_SITES * 4));
        }
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let Some((name, file)) = place(&path) else {
            let unexpected = format!("expected NAME/{CHAIN}, NAME/{KEY} and NAME/{SITE} only");
            if !take(Folder::broken(&path.to_string_lossy(), unexpected)) {
                return Ok(());
            }
            continue;
        };
        if current.as_ref().is_none_or(|folder| folder.name != name) {
            let finished = current.replace(Folder { name: name.clone(), ..Folder::default() });
            if finished.is_some_and(|folder| !take(folder)) {
                return Ok(());
            }
            if !seen.insert(name) {
                let apart = "its files do not stand together in the archive: pack it folder by folder";
                current.iter_mut().for_each(|folder| folder.trouble = Some(apart.to_owned()));
            }
        }
        let Some(folder) = &mut current else { continue };
        // A link has no contents of its own, and leads nowhere: nothing is unpacked.
        let contents = if entry.header().entry_type().is_file() {
            bounded(entry)
        } else {
            Err(io::Error::other("expected a file, got a link or a device"))
        };
        match contents {
            Ok(contents) => {
                if folder.files.insert(file, contents).is_some() {
                    folder.trouble = Some(format!("{file} is there twice"));
                }
            }
            Err(error) => folder.trouble = Some(format!("{file}: {}", causes(&error))),
        }
    }
    if let Some(folder) = current {
        take(folder);
    }
    Ok(())
}

/// The folder and the known file that a path in an archive names. None for any other.
fn place(path: &Path) -> Option<(String, &'static str)> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    // One folder around all of them, as `tar -c sites` makes it.
    let [name, file] = match parts.as_slice() {
        [name, file] | [_, name, file] => [name, file],
        _ => return None,
    };
    Some(((*name).to_owned(), FILES.into_iter().find(|known| known == file)?))
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    reader.take(MAX_FILE + 1).read_to_end(&mut contents)?;
    match contents.len() as u64 {
        0..=MAX_FILE => Ok(contents),
        _ => Err(io::Error::other(format!("expected at most {MAX_FILE} octets"))),
    }
}

/// Octets of one file: a chain of 64 KiB as PEM.
const MAX_FILE: u64 = 96 * 1024;

/// The most sites in one import.
const MAX_SITES: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, contents) in entries {
            let mut header = tar::Header::new_ustar();
            // Unlike `append_data`, this writes paths that lead out of the archive.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn folders(bytes: &[u8]) -> Vec<Folder> {
        let found = RefCell::new(Vec::new());
        read_archive(bytes, &|folder| {
            found.borrow_mut().push(folder);
            true
        })
        .unwrap();
        found.into_inner()
    }

    #[test]
    fn an_archive_is_read_with_or_without_a_folder_around_it() {
        for prefix in ["", "./", "sites/", "./sites/"] {
            let path = |rest: &str| format!("{prefix}{rest}");
            let bytes = archive(&[
                (&path("a.example/chain.pem"), b"1"),
                (&path("a.example/key.sealed"), b"2"),
                (&path("b.example/chain.pem"), b"3"),
            ]);
            let found = folders(&bytes);
            assert_eq!(found.len(), 2, "{prefix}");
            assert_eq!((found[0].name.as_str(), &found[0].files[KEY]), ("a.example", &b"2".to_vec()));
            assert!(found.iter().all(|folder| folder.trouble.is_none()));
        }
    }

    #[test]
    fn what_is_wrong_in_an_archive_is_reported_by_name_and_stops_nothing() {
        let large = vec![0; MAX_FILE as usize + 1];
        let bytes = archive(&[
            ("../evil/chain.pem", b"1"),
            ("/etc/chain.pem", b"1"),
            ("a.example/passwd", b"1"),
            ("b.example/chain.pem", &large),
            ("c.example/chain.pem", b"1"),
            ("c.example/chain.pem", b"1"),
            ("d.example/chain.pem", b"1"),
            ("b.example/key.sealed", b"1"),
            ("e.example/chain.pem", b"1"),
        ]);
        let found = folders(&bytes);
        let whole: Vec<_> =
            found.iter().filter(|folder| folder.trouble.is_none()).map(|folder| folder.name.as_str()).collect();
        assert_eq!(whole, ["d.example", "e.example"]);
        let trouble: Vec<_> = found.iter().filter_map(|folder| folder.trouble.as_deref()).collect();
        assert_eq!(trouble.len(), 6, "{trouble:?}");
        assert!(trouble[3].contains("at most") && trouble[4].contains("twice") && trouble[5].contains("together"));
    }
}
