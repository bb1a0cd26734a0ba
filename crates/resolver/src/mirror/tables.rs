//! The tables of the mirror's database, for writing and for reading.

use certseal_seal::sha256;
use certseal_wire::{Change, Digest, DnsName, Kind, NameSet, Signed, SignerId};
use redb::{
    Database, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

/// Begins a transaction after which the database opens in constant time, whatever happens.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// All tables of one write transaction.
pub(super) struct Tables<'txn> {
    pub(super) bundles: Sites<'txn>,
    pub(super) routes: Sites<'txn>,
    pub(super) staples: Table<'txn, &'static str, &'static [u8]>,
    pub(super) meta: Table<'txn, &'static str, &'static [u8]>,
    marks: Table<'txn, &'static str, MarkRow>,
    refused: Table<'txn, &'static str, &'static str>,
    awaited: Table<'txn, &'static str, u64>,
    awaited_by: Table<'txn, &'static str, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            bundles: Sites::open(transaction, BUNDLES, BUNDLE_NAMES)?,
            routes: Sites::open(transaction, ROUTES, ROUTE_NAMES)?,
            staples: transaction.open_table(STAPLES)?,
            meta: transaction.open_table(META)?,
            marks: transaction.open_table(MARKS)?,
            refused: transaction.open_table(REFUSED)?,
            awaited: transaction.open_table(AWAITED)?,
            awaited_by: transaction.open_table(AWAITED_BY)?,
        })
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.meta.get(key)?.map(|row| row.value().to_vec()))
    }

    /// A site's OCSP answer, as it was signed.
    pub(super) fn staple(&self, site: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.staples.get(site)?.map(|row| row.value().to_vec()))
    }

    pub(super) fn mark(&self, kind: Kind, name: &str) -> Result<Option<Mark>, Error> {
        Ok(self.marks.get(item(kind, name).as_str())?.map(|row| Mark::from(row.value())))
    }

    pub(super) fn set_mark(&mut self, kind: Kind, name: &str, mark: &Mark) -> Result<(), Error> {
        let tail = mark.tail();
        self.marks.insert(item(kind, name).as_str(), (mark.version, tail.as_slice(), mark.left))?;
        Ok(())
    }

    /// Remembers an item that is to be fetched again. False, with nothing remembered, when the table has no room for it.
    pub(super) fn refuse(&mut self, kind: Kind, name: &str, reason: &str) -> Result<bool, Error> {
        let item = item(kind, name);
        let has_room = self.refused.len()? < MAX_REFUSED || self.refused.get(item.as_str())?.is_some();
        if has_room {
            self.refused.insert(item.as_str(), reason)?;
        }
        Ok(has_room)
    }

    /// Remembers a site whose bundle was here and is to be fetched again: there are no more of these than marks.
    pub(super) fn miss(&mut self, site: &str, reason: &str) -> Result<(), Error> {
        self.refused.insert(item(Kind::Bundle, site).as_str(), reason)?;
        Ok(())
    }

    pub(super) fn forgive(&mut self, kind: Kind, name: &str) -> Result<(), Error> {
        self.refused.remove(item(kind, name).as_str())?;
        Ok(())
    }

    /// Remembers what a checkpoint of `signer` lists and the mirror lacks; with very much of it already there, nothing
    /// more.
    pub(super) fn expect(&mut self, change: &Change, signer: SignerId) -> Result<(), Error> {
        let item = item(change.kind, &change.name);
        if self.awaited.len()? < MAX_AWAITED {
            self.awaited.insert(item.as_str(), change.version)?;
            self.awaited_by.insert(item.as_str(), signer.0.as_slice())?;
        }
        Ok(())
    }

    /// Awaits no more what only signers listed who do not count any more.
    pub(super) fn forget_awaited(&mut self, counts: impl Fn(SignerId) -> bool) -> Result<(), Error> {
        let mut gone = Vec::new();
        self.awaited_by.retain(|item, signer| {
            let stays = <[u8; 16]>::try_from(signer).is_ok_and(|signer| counts(SignerId(signer)));
            if !stays {
                gone.push(item.to_owned());
            }
            stays
        })?;
        for item in gone {
            self.awaited.remove(item.as_str())?;
        }
        Ok(())
    }

    pub(super) fn awaits(&self, kind: Kind, name: &str) -> Result<bool, Error> {
        Ok(self.awaited.get(item(kind, name).as_str())?.is_some())
    }

    /// Forgets what was awaited, once `version` of it is here.
    pub(super) fn settle(&mut self, kind: Kind, name: &str, version: u64) -> Result<(), Error> {
        let item = item(kind, name);
        let has_come = self.awaited.get(item.as_str())?.is_some_and(|row| row.value() <= version);
        if has_come {
            self.awaited.remove(item.as_str())?;
            self.awaited_by.remove(item.as_str())?;
        }
        Ok(())
    }
}

/// Records by site, and the names that lead to them. Where several sites claim a name, the newest claim holds, and when it
/// goes, the one before it.
pub(super) struct Sites<'txn> {
    records: Table<'txn, &'static str, SiteRow>,
    names: Table<'txn, &'static str, &'static str>,
}

impl<'txn> Sites<'txn> {
    fn open(
        transaction: &'txn WriteTransaction,
        records: TableDefinition<'_, &'static str, SiteRow>,
        names: TableDefinition<'_, &'static str, &'static str>,
    ) -> Result<Self, Error> {
        Ok(Self { records: transaction.open_table(records)?, names: transaction.open_table(names)? })
    }

    pub(super) fn holds(&self, site: &str) -> Result<bool, Error> {
        Ok(self.records.get(site)?.is_some())
    }

    pub(super) fn record(&self, site: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.records.get(site)?.map(|row| row.value().1.to_vec()))
    }

    /// Replaces a site's record; the names that lead to it stay.
    pub(super) fn replace(&mut self, site: &DnsName, record: &[u8]) -> Result<(), Error> {
        let names = self.records.get(site.as_str())?.map(|row| row.value().0.to_owned()).unwrap_or_default();
        self.records.insert(site.as_str(), (names.as_str(), record))?;
        Ok(())
    }

    pub(super) fn put(&mut self, site: &DnsName, names: &NameSet, record: &[u8]) -> Result<(), Error> {
        self.remove(site)?;
        for name in names.iter() {
            let others = self.claims(name.as_str())?;
            let claims: Vec<&str> = std::iter::once(site.as_str()).chain(others.lines()).take(MAX_CLAIMS).collect();
            self.names.insert(name.as_str(), in_one(&claims).as_str())?;
        }
        let names: Vec<&str> = names.iter().map(DnsName::as_str).collect();
        self.records.insert(site.as_str(), (names.join("\n").as_str(), record))?;
        Ok(())
    }

    /// Removes a site's record, and its claims to names.
    pub(super) fn remove(&mut self, site: &DnsName) -> Result<(), Error> {
        let Some(names) = self.records.remove(site.as_str())?.map(|row| row.value().0.to_owned()) else {
            return Ok(());
        };
        for name in names.split('\n') {
            let claims = self.claims(name)?;
            let others: Vec<&str> = claims.lines().filter(|claim| *claim != site.as_str()).collect();
            if others.is_empty() {
                self.names.remove(name)?;
            } else {
                self.names.insert(name, in_one(&others).as_str())?;
            }
        }
        Ok(())
    }

    /// The sites that claim a name, one a line, the newest claim first.
    fn claims(&self, name: &str) -> Result<String, Error> {
        let row = self.names.get(name)?;
        Ok(row.map(|row| row.value().trim_start_matches(SEVERAL).to_owned()).unwrap_or_default())
    }
}

/// The newest version of an item that was accepted. It outlives the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) version: u64,
    /// SHA-256 of the item's bytes.
    pub(super) digest: Digest,
    /// Of a route: the site has left, or is served by other pools.
    pub(super) left: bool,
    /// The signer of the item; none of marks that an earlier release left.
    pub(super) signer: Option<SignerId>,
    /// Of a bundle: its key was in an envelope once, and never goes back to a legacy format.
    pub(super) enveloped: bool,
}

impl Mark {
    /// Of a document of `version`, whose one encoding is `record`.
    pub(super) fn of(version: u64, record: &[u8], signed: &Signed) -> Self {
        Self { version, digest: sha256(record), left: false, signer: Some(signed.signer), enveloped: false }
    }

    /// Digest, signer and flags, as a row keeps them. Earlier releases wrote the digest only.
    fn tail(&self) -> Vec<u8> {
        let signer = self.signer.map(|signer| signer.0).unwrap_or_default();
        [self.digest.0.as_slice(), &signer, &[u8::from(self.enveloped)]].concat()
    }
}

impl From<(u64, &[u8], bool)> for Mark {
    fn from((version, tail, left): (u64, &[u8], bool)) -> Self {
        // A digest that is cut short, which is never written, becomes one that is equal to none.
        let (digest, tail) = tail.split_first_chunk::<32>().map_or(([0; 32], tail), |(digest, tail)| (*digest, tail));
        let signer = tail.first_chunk::<16>().filter(|signer| **signer != [0; 16]).map(|signer| SignerId(*signer));
        let enveloped = tail.get(16).is_some_and(|flags| flags & 1 == 1);
        Self { version, digest: Digest(digest), left, signer, enveloped }
    }
}

/// One committed state of all tables.
pub(super) struct Reader {
    pub(super) bundles: SiteReader,
    pub(super) routes: SiteReader,
    staples: ReadOnlyTable<&'static str, &'static [u8]>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    marks: ReadOnlyTable<&'static str, MarkRow>,
    refused: ReadOnlyTable<&'static str, &'static str>,
    awaited: ReadOnlyTable<&'static str, u64>,
}

impl Reader {
    pub(super) fn open(database: &Database) -> Result<Self, Error> {
        let transaction = database.begin_read()?;
        Ok(Self {
            bundles: SiteReader {
                records: transaction.open_table(BUNDLES)?,
                names: transaction.open_table(BUNDLE_NAMES)?,
            },
            routes: SiteReader {
                records: transaction.open_table(ROUTES)?,
                names: transaction.open_table(ROUTE_NAMES)?,
            },
            staples: transaction.open_table(STAPLES)?,
            meta: transaction.open_table(META)?,
            marks: transaction.open_table(MARKS)?,
            refused: transaction.open_table(REFUSED)?,
            awaited: transaction.open_table(AWAITED)?,
        })
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.meta.get(key)?.map(|row| row.value().to_vec()))
    }

    pub(super) fn mark(&self, kind: Kind, name: &str) -> Result<Option<Mark>, Error> {
        Ok(self.marks.get(item(kind, name).as_str())?.map(|row| Mark::from(row.value())))
    }

    /// A site's OCSP answer, as it was signed.
    pub(super) fn staple(&self, site: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.staples.get(site)?.map(|row| row.value().to_vec()))
    }

    pub(super) fn awaited_count(&self) -> Result<u64, Error> {
        Ok(self.awaited.len()?)
    }

    /// At most `limit` changes that a checkpoint lists and the mirror lacks.
    pub(super) fn awaited(&self, limit: usize) -> Result<Vec<Change>, Error> {
        let mut found = Vec::new();
        for row in self.awaited.iter()?.take(limit) {
            let (key, version) = row?;
            let change = |(kind, name)| Change { kind, name, version: version.value() };
            found.extend(parse_item(key.value()).map(change));
        }
        Ok(found)
    }

    pub(super) fn refused_count(&self) -> Result<u64, Error> {
        Ok(self.refused.len()?)
    }

    /// At most `limit` refused items after the item `after`, with the reasons.
    pub(super) fn refused(&self, after: &str, limit: usize) -> Result<Vec<(Kind, String, String)>, Error> {
        let mut found = Vec::new();
        for row in self.refused.range(after..)?.filter(|row| !matches!(row, Ok((key, _)) if key.value() == after)) {
            let (key, reason) = row?;
            found.extend(parse_item(key.value()).map(|(kind, name)| (kind, name, reason.value().to_owned())));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

/// Records by site, and the names that lead to them.
pub(super) struct SiteReader {
    records: ReadOnlyTable<&'static str, SiteRow>,
    names: ReadOnlyTable<&'static str, &'static str>,
}

impl SiteReader {
    pub(super) fn count(&self) -> Result<u64, Error> {
        Ok(self.records.len()?)
    }

    pub(super) fn each(&self, mut look: impl FnMut(&str, &[u8])) -> Result<(), Error> {
        for row in self.records.iter()? {
            let (site, row) = row?;
            look(site.value(), row.value().1);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.records.is_empty()?)
    }

    pub(super) fn record(&self, site: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.records.get(site)?.map(|row| row.value().1.to_vec()))
    }

    /// The site that `name` leads to, itself or through the wildcard over it; or after [`SEVERAL`] the sites, one a line:
    /// the first whose record counts is it.
    pub(super) fn sites_of(&self, name: &DnsName) -> Result<Option<String>, Error> {
        if name.is_wildcard() {
            return Ok(None);
        }
        if let Some(row) = self.names.get(name.as_str())? {
            return Ok(Some(row.value().to_owned()));
        }
        let Some(wildcard) = name.covering_wildcard() else { return Ok(None) };
        Ok(self.names.get(wildcard.as_str())?.map(|row| row.value().to_owned()))
    }
}

/// The key of an item in the tables of marks, of refused and of awaited items.
pub(super) fn item(kind: Kind, name: &str) -> String {
    format!("{kind}/{name}")
}

fn parse_item(key: &str) -> Option<(Kind, String)> {
    let (kind, name) = key.split_once('/')?;
    Some((kind.parse().ok()?, name.to_owned()))
}

/// A site's names, one a line, and its record.
type SiteRow = (&'static str, &'static [u8]);

/// Version, digest, whether the site has left.
type MarkRow = (u64, &'static [u8], bool);

const BUNDLES: TableDefinition<'_, &str, SiteRow> = TableDefinition::new("bundles");
const BUNDLE_NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("bundle names");
const ROUTES: TableDefinition<'_, &str, SiteRow> = TableDefinition::new("routes");
const ROUTE_NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("route names");
/// OCSP answers by site. Mirrors of earlier releases have no such table.
const STAPLES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("staples");
const MARKS: TableDefinition<'_, &str, MarkRow> = TableDefinition::new("marks");
const REFUSED: TableDefinition<'_, &str, &str> = TableDefinition::new("refused");
const AWAITED: TableDefinition<'_, &str, u64> = TableDefinition::new("awaited");
/// Names the signer of the checkpoint that lists the awaited items.
const AWAITED_BY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("awaited by");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Claims as they are kept. A single one stands by itself: looking it up costs nothing more.
fn in_one(claims: &[&str]) -> String {
    match claims {
        [site] => (*site).to_owned(),
        several => format!("{SEVERAL}{}", several.join("\n")),
    }
}

/// The beginning of several claims, and of no site's name.
pub(crate) const SEVERAL: char = '\n';

/// The most sites that a name leads to; the oldest claim goes.
const MAX_CLAIMS: usize = 16;

/// The most refused items that are remembered: names cost a hostile store nothing.
const MAX_REFUSED: u64 = 10_000;

/// The most changes that are awaited at one time: from there on their number is a lower bound.
const MAX_AWAITED: u64 = 10_000;
