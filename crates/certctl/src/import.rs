//! Sites that a platform has already: their certificates and keys, sealed as the platform sealed them.
//!
//! ```text
//! NAME/chain.pem     the certificate and its intermediates, leaf first
//! NAME/key.sealed    the key, as `LegacySuite` says
//! NAME/site.toml     names, upstream, pools; may be left out
//! ```
//!
//! A folder for each site, in a directory or in a tar archive. Nothing is unpacked, and nothing of a key is opened.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{BufReader, Read},
    path::{Component, Path},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use certseal_client::{CertmanClient, ClientError, Progress};
use certseal_seal::{LegacyKey, LegacySuite};
use certseal_wire::{Base64, DnsName, Import, KeyId, NameSet, PoolName, ProblemKind, SiteRequest, Upstream, causes};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::failure::may_pass;

/// What the files of a site do not say.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// How all keys are sealed.
    pub suite: LegacySuite,
    /// The key pair that they are sealed to.
    pub key_id: KeyId,
    /// The pools of sites whose `site.toml` names none.
    pub pools: Vec<PoolName>,
    /// The upstream of sites whose `site.toml` names none.
    pub upstream: Option<Upstream>,
}

/// What became of the sites.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// Folders that were read.
    pub sites: u64,
    /// Sites that certman took, or had from an import before.
    pub taken: u64,
    /// Sites that have a certificate of their own already, which stays, and what certman said.
    pub kept: Vec<(String, String)>,
    /// Folders that are not usable, or that certman refused, and why.
    pub failed: Vec<(String, String)>,
}

/// Gives every site at `path` to certman. Bad ones do not stop the others. It can be run again: what certman has is no
/// change.
///
/// # Errors
/// When `path` is no directory and no archive, or certman cannot be reached.
pub async fn import(
    certman: &CertmanClient,
    path: &Path,
    defaults: Defaults,
    progress: &dyn Progress,
) -> anyhow::Result<Imported> {
    let total = if path.is_dir() { fs::read_dir(path).map_or(0, |entries| entries.count() as u64) } else { 0 };
    progress.begin("importing", total);
    let (send, mut folders) = mpsc::channel(READ_AHEAD);
    let source = path.to_owned();
    let reader = tokio::task::spawn_blocking(move || read(&source, &|folder| send.blocking_send(folder).is_ok()));
    let defaults = Arc::new(defaults);
    let mut outcome = Imported::default();
    let mut under_way: JoinSet<(String, anyhow::Result<Answer>)> = JoinSet::new();
    while let Some(folder) = folders.recv().await {
        while under_way.len() >= CALLS {
            outcome.count(under_way.join_next().await, progress)?;
        }
        let (certman, defaults) = (certman.clone(), defaults.clone());
        under_way.spawn(async move {
            let name = folder.name.clone();
            (name, hand_over(&certman, &folder, &defaults).await)
        });
    }
    while !under_way.is_empty() {
        outcome.count(under_way.join_next().await, progress)?;
    }
    reader.await.context("reading was stopped")??;
    outcome.kept.sort();
    outcome.failed.sort();
    Ok(outcome)
}

enum Answer {
    Taken,
    Kept(String),
}

impl Imported {
    fn count(
        &mut self,
        done: Option<Result<(String, anyhow::Result<Answer>), tokio::task::JoinError>>,
        progress: &dyn Progress,
    ) -> anyhow::Result<()> {
        let Some(done) = done else { return Ok(()) };
        let (name, answer) = done.context("an import was stopped")?;
        self.sites += 1;
        progress.advance(1);
        match answer {
            Ok(Answer::Taken) => self.taken += 1,
            Ok(Answer::Kept(reason)) => self.kept.push((name, reason)),
            // Nothing about this site: all that follow would fail alike.
            Err(error) if error.downcast_ref::<ClientError>().is_some_and(may_pass) => return Err(error),
            Err(error) => self.failed.push((name, causes(error.as_ref()))),
        }
        Ok(())
    }
}

async fn hand_over(certman: &CertmanClient, folder: &Folder, defaults: &Defaults) -> anyhow::Result<Answer> {
    let (site, import) = folder.import(defaults)?;
    let mut attempts = 0;
    loop {
        match certman.import(&site, &import).await {
            Ok(_) => return Ok(Answer::Taken),
            Err(error) if may_pass(&error) && attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(Duration::from_secs(1 << attempts)).await;
            }
            Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::Conflict => {
                // Conflicts over names are failures; a site that has moved on is none.
                let has_own = certman.site(&site).await?.is_some_and(|status| status.version > 0);
                ensure!(has_own, "{problem}");
                return Ok(Answer::Kept(problem.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The files of one site.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folder {
    name: String,
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Why it cannot be used.
    trouble: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteFile {
    names: Option<NameSet>,
    upstream: Option<Upstream>,
    pools: Option<Vec<PoolName>>,
}

impl Folder {
    fn import(&self, defaults: &Defaults) -> anyhow::Result<(DnsName, Import)> {
        if let Some(trouble) = &self.trouble {
            bail!("{trouble}");
        }
        let file = |name: &'static str| self.files.get(name).with_context(|| format!("there is no {name}"));
        let site: DnsName = self.name.parse().context("the folder's name is that of the site")?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(file(CHAIN)?)
            .collect::<Result<_, _>>()
            .map_err(|error| anyhow::anyhow!("{CHAIN} is not PEM certificates: {error}"))?;
        let leaf = chain.first().with_context(|| format!("{CHAIN} has no certificate"))?;
        let sealed = LegacyKey::new(defaults.suite, defaults.key_id, file(KEY)?.clone()).context(KEY)?;
        let own = match self.files.get(SITE) {
            Some(text) => toml::from_str(std::str::from_utf8(text).context(SITE)?).context(SITE)?,
            None => SiteFile { names: None, upstream: None, pools: None },
        };
        let names = match own.names {
            Some(names) => names,
            None => certified_names(leaf)?,
        };
        let upstream = own.upstream.or_else(|| defaults.upstream.clone());
        let upstream = upstream.with_context(|| format!("no upstream: give --upstream, or `upstream` in {SITE}"))?;
        let pools = own.pools.unwrap_or_else(|| defaults.pools.clone());
        ensure!(!pools.is_empty(), "no pool: give --pool, or `pools` in {SITE}");
        let chain = chain.iter().map(|der| Base64(der.to_vec())).collect();
        let request = SiteRequest { names, upstream, pools, owner: None };
        Ok((site, Import { site: request, chain, sealed: Base64(sealed.to_bytes()) }))
    }

    fn broken(name: &str, trouble: String) -> Self {
        Self { name: name.to_owned(), trouble: Some(trouble), ..Self::default() }
    }
}

fn certified_names(leaf: &[u8]) -> anyhow::Result<NameSet> {
    let (_, leaf) = X509Certificate::from_der(leaf).context("the certificate does not parse")?;
    let alternatives = leaf.subject_alternative_name().context("the certificate's names do not parse")?;
    let names = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.parse::<DnsName>()),
        _ => None,
    });
    let names = names.collect::<Result<Vec<_>, _>>().context("a name in the certificate")?;
    NameSet::try_from(names).with_context(|| format!("the certificate's names: give those to serve in {SITE}"))
}

/// Gives each folder to `take`, until that wants no more.
fn read(path: &Path, take: &dyn Fn(Folder) -> bool) -> anyhow::Result<()> {
    if path.is_dir() {
        read_directory(path, take)
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        read_archive(BufReader::new(file), take)
            .with_context(|| format!("{}: expected a directory or an uncompressed tar archive", path.display()))
    }
}

fn read_directory(path: &Path, take: &dyn Fn(Folder) -> bool) -> anyhow::Result<()> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    ensure!(names.len() <= MAX_SITES, "expected at most {MAX_SITES} folders in {}", path.display());
    names.sort();
    for name in names {
        let folder = path.join(&name);
        let name = name.to_string_lossy();
        let folder = match folder.is_dir() {
            true => read_folder(&name, &folder).unwrap_or_else(|error| Folder::broken(&name, causes(error.as_ref()))),
            false => Folder::broken(&name, "expected a folder for each site, got a file".to_owned()),
        };
        if !take(folder) {
            break;
        }
    }
    Ok(())
}

fn read_folder(name: &str, path: &Path) -> anyhow::Result<Folder> {
    let mut folder = Folder { name: name.to_owned(), ..Folder::default() };
    for known in FILES {
        match File::open(path.join(known)) {
            Ok(file) => drop(folder.files.insert(known, bounded(file).context(known)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(known),
        }
    }
    Ok(folder)
}

/// Reads an archive once, in its order: the files of a folder stand together in it, as tar writes them.
fn read_archive(reader: impl Read, take: &dyn Fn(Folder) -> bool) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(reader);
    let mut current: Option<Folder> = None;
    let mut seen = HashSet::new();
    for (count, entry) in archive.entries()?.enumerate() {
        ensure!(count < MAX_SITES * 4, "expected at most {} entries", MAX_SITES * 4);
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
        let contents = match entry.header().entry_type().is_file() {
            true => bounded(entry),
            false => Err(anyhow::anyhow!("expected a file, got a link or a device")),
        };
        match contents {
            Ok(contents) => {
                if folder.files.insert(file, contents).is_some() {
                    folder.trouble = Some(format!("{file} is there twice"));
                }
            }
            Err(error) => folder.trouble = Some(format!("{file}: {}", causes(error.as_ref()))),
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

fn bounded(reader: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut contents = Vec::new();
    reader.take(MAX_FILE + 1).read_to_end(&mut contents)?;
    ensure!(contents.len() as u64 <= MAX_FILE, "expected at most {MAX_FILE} octets");
    Ok(contents)
}

const CHAIN: &str = "chain.pem";
const KEY: &str = "key.sealed";
const SITE: &str = "site.toml";
const FILES: [&str; 3] = [CHAIN, KEY, SITE];

/// Octets of one file: a chain of 64 KiB as PEM.
const MAX_FILE: u64 = 96 * 1024;
const MAX_SITES: usize = 2_000_000;

/// Folders that wait for their turn, in memory.
const READ_AHEAD: usize = 64;

/// Calls under way at one time.
const CALLS: usize = 16;

/// How often a call is made again while certman cannot be reached.
const ATTEMPTS: u32 = 3;

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

    #[test]
    fn what_a_folder_lacks_is_said() {
        let suite = LegacySuite::RsaOaepSha256;
        let defaults = Defaults { suite, key_id: KeyId([1; 16]), pools: Vec::new(), upstream: None };
        let folder = Folder { name: "a.example".to_owned(), ..Folder::default() };
        let error = folder.import(&defaults).unwrap_err().to_string();
        assert_eq!(error, "there is no chain.pem");
    }
}
