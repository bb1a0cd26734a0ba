//! Changes that people and programs ask for, one by one and many together: a site gets names that are nobody else's.

use std::collections::{HashMap, HashSet};

use anyhow::anyhow;
use certseal_issuance::Site;
use certseal_store::{Expect, Record, StoreError, Write};
use certseal_wire::DnsName;

use super::{
    BELOW, CLAIMS, Entry, Journal, MAX_RACES, META, NAMES, NAMES_AT_ONCE, SITES, UNDER, Writer,
    held::{Held, is_of_owner, parent},
};

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The site was like this.
    Nothing,
    /// It was there, and is another one now.
    Changed,
    /// It was not there, or had left.
    Created,
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum NotDone<E> {
    /// It was not wanted, seeing what is there.
    Unwanted(E),
    Clash(Clash),
    /// The site's record cannot be read, or not be written.
    Failed(anyhow::Error),
    /// Somebody else changes the site all the time.
    Outrun,
}

/// Who stands in the way of a site's names.
#[derive(Debug, PartialEq)]
pub(crate) enum Clash {
    /// Another site has the name.
    Taken { name: DnsName, holder: DnsName },
    /// Another owner's site has a name that covers it, or that it covers.
    Covered { name: DnsName, other: DnsName, holder: DnsName },
}

impl Clash {
    fn holder(&self) -> &DnsName {
        match self {
            Self::Taken { holder, .. } | Self::Covered { holder, .. } => holder,
        }
    }
}

/// The outcome of the claim to a site's names.
#[derive(Debug, PartialEq)]
pub(crate) enum Claim {
    Written,
    /// Somebody changed the site first.
    Outrun,
    Clash(Clash),
}

impl Journal {
    /// Changes a site to what `decide` makes of what is there, against whoever else changes it at the same time.
    pub(crate) fn change_alone<E>(
        &self,
        name: &DnsName,
        decide: impl Fn(Option<&Site>) -> Result<Site, E>,
    ) -> anyhow::Result<Result<(Site, Done), NotDone<E>>> {
        for _ in 0..MAX_RACES {
            let before = self.read(name)?;
            let site = match decide(before.as_ref().map(|entry| &entry.site)) {
                Ok(site) => site,
                Err(why) => return Ok(Err(NotDone::Unwanted(why))),
            };
            if before.as_ref().is_some_and(|entry| entry.site == site) {
                return Ok(Ok((site, Done::Nothing)));
            }
            match self.claim(before.as_ref(), &site)? {
                Claim::Written => return Ok(Ok((site, done(before.as_ref())))),
                Claim::Clash(clash) => return Ok(Err(NotDone::Clash(clash))),
                Claim::Outrun => {}
            }
        }
        Ok(Err(NotDone::Outrun))
    }

    /// Changes many sites in their order, as [`Self::change_alone`] would; `decide` gets the change's number, too. Those that have
    /// nothing to do with one another share a transaction.
    pub(crate) fn change_each<E>(
        &self,
        names: &[DnsName],
        decide: impl Fn(usize, Option<&Site>) -> Result<Site, E>,
    ) -> anyhow::Result<Vec<Result<Done, NotDone<E>>>> {
        let mut outcomes = Vec::with_capacity(names.len());
        while outcomes.len() < names.len() {
            let begin = outcomes.len();
            let names = &names[begin..names.len().min(begin + TOGETHER)];
            let together = self.change_together(names, |index, before| decide(begin + index, before))?;
            outcomes.extend(together);
        }
        Ok(outcomes)
    }

    /// Changes the first of these sites, as many as a transaction can have: at least one.
    fn change_together<E>(
        &self,
        names: &[DnsName],
        decide: impl Fn(usize, Option<&Site>) -> Result<Site, E>,
    ) -> anyhow::Result<Vec<Result<Done, NotDone<E>>>> {
        // Read before the look at who has what: a claim with a wildcard changes it, and each claim needs it as it was.
        let claims = self.claims()?;
        let keys: Vec<_> = names.iter().map(|name| (SITES, name.as_str().as_bytes())).collect();
        let decided = self.storage.get_all(&keys)?.into_iter().enumerate().map(|(index, record)| {
            let entry = record.map(Entry::read).transpose().map_err(NotDone::Failed)?;
            let site = decide(index, entry.as_ref().map(|entry| &entry.site)).map_err(NotDone::Unwanted)?;
            Ok((entry, site))
        });
        let decided: Vec<Decided<E>> = decided.collect();
        let new = decided.iter().flatten().flat_map(|(entry, site)| new_names(entry.as_ref(), site));
        let seen = Seen { claims, below: self.marks(new)? };
        let holders = self.holders(decided.iter().flatten())?;

        let (mut outcomes, mut batch) = (Vec::new(), Batch::default());
        for (name, decided) in names.iter().zip(decided) {
            // What is before it in the batch is not yet to be seen.
            if batch.sites.contains(name) {
                break;
            }
            let (entry, site) = match decided {
                Ok(decided) => decided,
                Err(why) => {
                    outcomes.push(Err(why));
                    continue;
                }
            };
            let entry = entry.as_ref();
            if entry.is_some_and(|entry| entry.site == site) {
                outcomes.push(Ok(Done::Nothing));
                continue;
            }
            let new = new_names(entry, &site);
            if new.iter().any(|name| batch.has_to_do_with(name)) {
                break;
            }
            let holder = |name: &DnsName| Ok(holders.get(name).cloned().flatten());
            if let Some(clash) = self.clash(&site, &new, holder)? {
                if batch.sites.contains(clash.holder()) {
                    break;
                }
                outcomes.push(Err(NotDone::Clash(clash)));
                continue;
            }
            let written = self.writes(entry, &site, Writer::Request, &[])?;
            let writes = written.map(|(writes, _)| writes).unwrap_or_default();
            // Each new name has a mark at most.
            if !batch.writes.is_empty() && batch.len() + writes.len() + new.len() > MOST_WRITES {
                break;
            }
            batch.add(outcomes.len(), &site, &new, writes);
            outcomes.push(Ok(done(entry)));
        }
        if batch.writes.is_empty() || self.commit_claims(batch.writes, &batch.names, &seen)? {
            return Ok(outcomes);
        }
        // Somebody changed one of them, or all together are too large.
        for index in batch.members {
            let alone = self.change_alone(&names[index], |before| decide(index, before));
            outcomes[index] = alone.unwrap_or_else(|error| Err(NotDone::Failed(error))).map(|(_, done)| done);
        }
        Ok(outcomes)
    }

    /// Writes a site in place of `before`, unless a name that it did not have before is another site's, or lies under
    /// another owner's wildcard, or has another owner's name under it.
    pub(crate) fn claim(&self, before: Option<&Entry>, site: &Site) -> anyhow::Result<Claim> {
        // Before the look at who has what, as for many.
        let claims = self.claims()?;
        let new = new_names(before, site);
        let seen = Seen { claims, below: self.marks(new.iter().copied())? };
        if let Some(clash) = self.clash(site, &new, |name| self.holder(name))? {
            return Ok(Claim::Clash(clash));
        }
        let Some((writes, _)) = self.writes(before, site, Writer::Request, &[])? else { return Ok(Claim::Outrun) };
        let new = new.into_iter().cloned().collect();
        let is_written = self.commit_claims(writes, &new, &seen)?;
        Ok(if is_written { Claim::Written } else { Claim::Outrun })
    }

    /// Makes writes of sites that get these names; false when somebody else came first.
    ///
    /// A name and a wildcard over it may be claimed at the same moment, by two transactions neither of which sees the other. So
    /// the claim of a wildcard changes one row that each claim needs as it was, and each claim of a name changes its parent's
    /// mark, which the claim of the wildcard needs as it was. A mark is written whatever stands there: of claims of names below
    /// one parent none waits for another, and many in one transaction write it once. To look once more after the commit would
    /// write nothing, but a process that dies in between would leave both claims standing.
    fn commit_claims(&self, mut writes: Vec<Write>, names: &HashSet<DnsName>, seen: &Seen) -> anyhow::Result<bool> {
        let as_it_was = |version: Option<u64>| version.map_or(Expect::Absent, Expect::Version);
        let wildcards: Vec<&str> = names.iter().filter_map(|name| name.as_str().strip_prefix("*.")).collect();
        if !names.is_empty() {
            let before = as_it_was(seen.claims);
            writes.push(if wildcards.is_empty() {
                Write::require(META, CLAIMS, before)
            } else {
                Write::put(META, CLAIMS, seen.claims.map_or(1, |version| version + 1), "").expect(before)
            });
        }
        // Before the marks of names in this transaction: a site may have a wildcard and a name below it.
        let unmarked =
            |parent: &str| Write::require(BELOW, parent, as_it_was(seen.below.get(parent).copied().flatten()));
        writes.extend(wildcards.into_iter().map(unmarked));
        let parents: HashSet<String> = names.iter().filter_map(parent).collect();
        if !parents.is_empty() {
            // A mark that was never there before. The database has 63 bits for it.
            let mark = getrandom::u64().map_err(|error| anyhow!("no randomness: {error}"))? >> 1;
            writes.extend(parents.into_iter().map(|parent| Write::put(BELOW, parent, mark, "")));
        }
        match self.committed(writes) {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::TooLarge { .. })) => Ok(false),
            other => other,
        }
    }

    fn claims(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.storage.get(META, CLAIMS)?.map(|record| record.version))
    }

    /// The marks below those of the names that are wildcards. They are read before the names below.
    fn marks<'a>(&self, names: impl Iterator<Item = &'a DnsName>) -> Result<HashMap<String, Option<u64>>, StoreError> {
        let parents: Vec<&str> = names.filter_map(|name| name.as_str().strip_prefix("*.")).collect();
        let mut marks = HashMap::with_capacity(parents.len());
        for parents in parents.chunks(NAMES_AT_ONCE) {
            let keys: Vec<_> = parents.iter().map(|parent| (BELOW, parent.as_bytes())).collect();
            for (parent, record) in parents.iter().zip(self.storage.get_all(&keys)?) {
                marks.insert((*parent).to_owned(), record.map(|record| record.version));
            }
        }
        Ok(marks)
    }

    /// Who stands in the way of a site's new names.
    fn clash(
        &self,
        site: &Site,
        new: &[&DnsName],
        holder: impl Fn(&DnsName) -> anyhow::Result<Option<DnsName>>,
    ) -> anyhow::Result<Option<Clash>> {
        for name in new.iter().copied() {
            let other = |name: &DnsName| anyhow::Ok(holder(name)?.filter(|holder| *holder != site.site));
            if let Some(holder) = other(name)? {
                return Ok(Some(Clash::Taken { name: name.clone(), holder }));
            }
            if let Some((other, holder)) = self.covered(name, site, other)? {
                return Ok(Some(Clash::Covered { name: name.clone(), other, holder }));
            }
        }
        Ok(None)
    }

    /// A name of another owner that `name` covers or is covered by, and the site that has it.
    fn covered(
        &self,
        name: &DnsName,
        site: &Site,
        other: impl Fn(&DnsName) -> anyhow::Result<Option<DnsName>>,
    ) -> anyhow::Result<Option<(DnsName, DnsName)>> {
        if let Some(wildcard) = name.covering_wildcard().filter(|_| !name.is_wildcard()) {
            let Some(holder) = other(&wildcard)? else { return Ok(None) };
            let entry = self.read(&holder)?;
            let is_ours = entry.is_some_and(|entry| is_of_owner(site, entry.site.owner.as_deref()));
            return Ok((!is_ours).then_some((wildcard, holder)));
        }
        let Some(parent) = name.as_str().strip_prefix("*.") else { return Ok(None) };
        let prefix = format!("{parent}/");
        let mut after = prefix.clone().into_bytes();
        loop {
            let page = self.storage.scan(UNDER, Some(&after), NAMES_AT_ONCE)?;
            let Some((last, _)) = page.last() else { return Ok(None) };
            for (key, record) in &page {
                let Some(other) = key.strip_prefix(prefix.as_bytes()) else { return Ok(None) };
                let Held { site: holder, owner } = serde_json::from_slice(&record.value)?;
                if holder != site.site && !is_of_owner(site, owner.as_deref()) {
                    return Ok(Some((std::str::from_utf8(other)?.parse()?, holder)));
                }
            }
            after = last.clone();
        }
    }

    /// Which site a name leads to.
    pub(crate) fn holder(&self, name: &DnsName) -> anyhow::Result<Option<DnsName>> {
        let Some(record) = self.storage.get(NAMES, name.as_str().as_bytes())? else { return Ok(None) };
        Ok(Some(std::str::from_utf8(&record.value)?.parse()?))
    }

    /// Which sites the new names of these lead to, and the wildcards above them.
    fn holders<'a>(
        &self,
        sites: impl Iterator<Item = &'a (Option<Entry>, Site)>,
    ) -> anyhow::Result<HashMap<DnsName, Option<DnsName>>> {
        let new = sites.flat_map(|(entry, site)| new_names(entry.as_ref(), site));
        let names: HashSet<DnsName> =
            new.flat_map(|name| [Some(name.clone()), name.covering_wildcard()]).flatten().collect();
        let names: Vec<DnsName> = names.into_iter().collect();
        let mut holders = HashMap::with_capacity(names.len());
        for names in names.chunks(NAMES_AT_ONCE) {
            let keys: Vec<_> = names.iter().map(|name| (NAMES, name.as_str().as_bytes())).collect();
            for (name, record) in names.iter().zip(self.storage.get_all(&keys)?) {
                let parse = |record: Record| anyhow::Ok(std::str::from_utf8(&record.value)?.parse()?);
                holders.insert(name.clone(), record.map(parse).transpose()?);
            }
        }
        Ok(holders)
    }
}

/// What is to become of a site that was read.
type Decided<E> = Result<(Option<Entry>, Site), NotDone<E>>;

/// What a claim was decided by: it is made only if nobody has changed it since.
struct Seen {
    /// The version of the row that each claim of a wildcard changes.
    claims: Option<u64>,
    /// By the parents of the wildcards that are claimed, the marks that each claim of a name below changes.
    below: HashMap<String, Option<u64>>,
}

/// Sites that are written together, each with names that have nothing to do with those of the others.
#[derive(Default)]
struct Batch {
    /// The numbers of their changes.
    members: Vec<usize>,
    sites: HashSet<DnsName>,
    /// Their new names, and the wildcards above them.
    names: HashSet<DnsName>,
    above: HashSet<DnsName>,
    writes: Vec<Write>,
}

impl Batch {
    /// Whether the name, the wildcard above it or a name below it is in the batch.
    fn has_to_do_with(&self, name: &DnsName) -> bool {
        let wildcard = name.covering_wildcard();
        self.names.contains(name)
            || wildcard.is_some_and(|wildcard| self.names.contains(&wildcard))
            || name.is_wildcard() && self.above.contains(name)
    }

    /// How many writes it takes, without the one for all claims.
    fn len(&self) -> usize {
        let wildcards = self.names.iter().filter(|name| name.is_wildcard()).count();
        self.writes.len() + wildcards + self.above.len()
    }

    fn add(&mut self, index: usize, site: &Site, new: &[&DnsName], writes: Vec<Write>) {
        self.members.push(index);
        self.sites.insert(site.site.clone());
        self.names.extend(new.iter().map(|name| (*name).clone()));
        self.above.extend(new.iter().filter_map(|name| name.covering_wildcard()));
        self.writes.extend(writes);
    }
}

/// The names that a site gets, or whose owner is another one from now on.
fn new_names<'a>(before: Option<&Entry>, site: &'a Site) -> Vec<&'a DnsName> {
    if site.departed {
        return Vec::new();
    }
    let present = before.map(|entry| &entry.site).filter(|before| !before.departed);
    let same_owner = present.is_none_or(|before| before.owner == site.owner);
    let had = |name: &DnsName| present.is_some_and(|before| before.names.iter().any(|had| had == name));
    site.names.iter().filter(|name| !(had(name) && same_owner)).collect()
}

fn done(before: Option<&Entry>) -> Done {
    if before.is_none_or(|entry| entry.site.departed) { Done::Created } else { Done::Changed }
}

/// Changes that are looked at together.
const TOGETHER: usize = 200;

/// Writes of one transaction, with room for one more.
const MOST_WRITES: usize = certseal_store::MAX_TRANSACTION_WRITES - 1;
