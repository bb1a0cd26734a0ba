//! Files that were cut short or altered while the store was closed: all that is shown is right, or there is an error.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use certseal_store::{Storage, StoreError, Table};

use crate::workload::{Writer, check, noted, open, places};

#[test]
fn a_file_that_was_cut_short_is_refused_with_what_to_do() {
    let closed = Closed::new();
    for file in ["sled/db", "high-water"] {
        for part in [0, 1, 2] {
            let copy = closed.copy();
            let path = copy.path().join("store").join(file);
            let length = fs::metadata(&path).unwrap().len();
            // Nothing left, half, and all but the last bytes that are not padding.
            let cut = [0, length / 2, last_byte(&path)][part];
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            match opened(&copy.path().join("store")) {
                Ok(store) => {
                    // Then nothing that was acknowledged may be missing.
                    drop(store);
                    check(&copy.path().join("store"), &closed.acknowledged);
                }
                Err(error) => {
                    let advice = ["bring back", "restored copy"];
                    assert!(advice.iter().any(|words| error.contains(words)), "{file} cut to {cut}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_missing_file_is_refused_with_what_to_do() {
    let closed = Closed::new();
    for file in ["sled/db", "high-water"] {
        let copy = closed.copy();
        fs::remove_file(copy.path().join("store").join(file)).unwrap();
        let error = opened(&copy.path().join("store")).err().unwrap();
        assert!(error.contains("bring"), "without {file}: {error}");
    }
}

#[test]
fn altered_bytes_are_an_error_or_harmless_and_never_something_else() {
    let closed = Closed::new();
    let (mut refused, mut damaged, mut harmless) = (0, 0, 0);
    for round in 0..ALTERATIONS {
        let copy = closed.copy();
        let directory = copy.path().join("store");
        let path = directory.join("sled/db");
        let end = last_byte(&path);
        // Spread over the file; the same in every run.
        let at = (round * 2_654_435_761) % end;
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        drop(file);

        // The engine may give up with a panic once it is open: the process ends then.
        let looked = catch_unwind(AssertUnwindSafe(|| match open(&directory) {
            Err(error) => Seen::Refused(error),
            Ok(store) => closed.look(&store),
        }));
        match looked {
            Err(_) | Ok(Seen::Refused(_)) => refused += 1,
            Ok(Seen::Damaged) => damaged += 1,
            Ok(Seen::AsItWas) => harmless += 1,
            Ok(Seen::Other(what)) => panic!("byte {at} altered, and then: {what}"),
        }
    }
    println!("{ALTERATIONS} alterations: {refused} refused, {damaged} with a named error, {harmless} harmless");
    assert!(refused + damaged > 0, "no alteration was noticed: they are none");
}

enum Seen {
    Refused(#[allow(dead_code)] StoreError),
    /// Some records answer with an error of their own.
    Damaged,
    AsItWas,
    /// Something was missing or different, and nothing said so.
    Other(String),
}

/// A store that was closed, with all that is in it.
struct Closed {
    directory: tempfile::TempDir,
    acknowledged: String,
    records: Vec<(Table, Vec<u8>, certseal_store::Record)>,
}

impl Closed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, notes) = places(directory.path());
        let mut writer = Writer::start(&path, &notes);
        writer.progress(&notes, 0, 400);
        writer.kill();
        let acknowledged = noted(&notes);
        check(&path, &acknowledged);
        let store = open(&path).unwrap();
        let records = [LEFT, RIGHT].into_iter().flat_map(|table| {
            let records = store.scan(table, None, 10_000).unwrap();
            records.into_iter().map(move |(key, record)| (table, key, record))
        });
        let records = records.collect();
        drop(store);
        Self { directory, acknowledged, records }
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(self.directory.path().join("store"))
            .arg(copy.path())
            .status()
            .unwrap();
        assert!(status.success());
        copy
    }

    fn look(&self, store: &impl Storage) -> Seen {
        let mut seen = Seen::AsItWas;
        for (table, key, record) in &self.records {
            match store.get(*table, key) {
                Ok(Some(found)) if found == *record => {}
                Err(_) => seen = Seen::Damaged,
                other => return Seen::Other(format!("{table} {} is {other:?}", key.escape_ascii())),
            }
        }
        seen
    }
}

/// The result of opening.
fn opened(directory: &Path) -> Result<certseal_store::SledStore, String> {
    open(directory).map_err(|error| error.to_string())
}

/// Where the last byte is that is not zero.
fn last_byte(path: &PathBuf) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64
}

const ALTERATIONS: u64 = 40;
const LEFT: Table = Table::new("left");
const RIGHT: Table = Table::new("right");
