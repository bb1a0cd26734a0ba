//! Registered domains, by the public suffix list (publicsuffix.org).

use std::{
    path::PathBuf,
    str::FromStr,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, anyhow};
use certseal_issuance::preflight::Suffix;
use certseal_wire::DnsName;
use publicsuffix::{List, Psl, Type};

/// The list: the one that this release carries, or a file, which is read again when it has changed.
pub(crate) struct Suffixes {
    file: Option<PathBuf>,
    state: RwLock<State>,
}

struct State {
    list: List,
    modified: Option<SystemTime>,
    looked_at: Instant,
}

impl Suffixes {
    pub(crate) fn new(file: Option<PathBuf>) -> anyhow::Result<Self> {
        let (list, modified) = match &file {
            Some(file) => read(file)?,
            None => (parse(BUILT_IN).context("the public suffix list of this release")?, None),
        };
        Ok(Self { file, state: State { list, modified, looked_at: Instant::now() }.into() })
    }

    /// The registered domain of a name; the name itself where it is a public suffix.
    pub(crate) fn registered(&self, name: &DnsName) -> String {
        let host = name.as_str().trim_start_matches("*.");
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let domain = state.list.domain(host.as_bytes());
        domain.and_then(|domain| std::str::from_utf8(domain.as_bytes()).ok()).unwrap_or(host).to_owned()
    }

    /// How a name lies to the list. CAs go by the suffixes of the registries (the ICANN section) alone.
    pub(crate) fn standing(&self, name: &DnsName) -> Suffix {
        let host = name.as_str().trim_start_matches("*.");
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.list.suffix(host.as_bytes()) {
            Some(suffix) if !suffix.is_known() => Suffix::Unknown,
            Some(suffix) if suffix.typ() == Some(Type::Icann) && suffix.as_bytes() == host.as_bytes() => Suffix::Itself,
            Some(_) => Suffix::Below,
            None => Suffix::Unknown,
        }
    }

    /// Reads the file again if it has changed. A file that cannot be read changes nothing.
    pub(crate) fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        state.looked_at = Instant::now();
        if modified(file) == state.modified {
            return;
        }
        match read(file) {
            Ok((list, modified)) => {
                tracing::info!(file = %file.display(), "the public suffix list has changed");
                (state.list, state.modified) = (list, modified);
            }
            Err(error) => tracing::warn!(%error, "the public suffix list stays as it was"),
        }
    }
}

fn read(file: &PathBuf) -> anyhow::Result<(List, Option<SystemTime>)> {
    let modified = modified(file);
    let list = std::fs::read_to_string(file).map_err(anyhow::Error::from).and_then(|text| parse(&text));
    Ok((list.with_context(|| format!("public_suffix_list {}", file.display()))?, modified))
}

fn parse(text: &str) -> anyhow::Result<List> {
    let list = List::from_str(text).map_err(|error| anyhow!("it cannot be read: {error}"))?;
    // A file that was cut short would make one registered domain of all that lie under a suffix.
    let is_list = list.domain(b"a.b.co.uk").is_some_and(|domain| domain == "b.co.uk");
    anyhow::ensure!(is_list, "expected the list of publicsuffix.org, got one in which co.uk is no suffix");
    Ok(list)
}

fn modified(file: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(file).ok()?.modified().ok()
}

/// Mozilla Public License 2.0, as its first lines say.
const BUILT_IN: &str = include_str!("../data/public_suffix_list.dat");

const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_domain_is_a_label_and_a_public_suffix() {
        let suffixes = Suffixes::new(None).unwrap();
        let of = |name: &str| suffixes.registered(&name.parse().unwrap());
        assert_eq!(of("www.shop.example.com"), "example.com");
        assert_eq!(of("*.shop.example.co.uk"), "example.co.uk");
        assert_eq!(of("co.uk"), "co.uk");
        assert_eq!(of("a.customer.github.io"), "customer.github.io", "private suffixes count");
        assert_eq!(of("a.b.nosuchtld"), "b.nosuchtld");
        // 公司.cn, whose suffix is written in Chinese in the list.
        assert_eq!(of("www.shop.xn--55qx5d.cn"), "shop.xn--55qx5d.cn");
    }

    #[test]
    fn a_file_takes_the_place_of_the_list_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        let write = |suffixes: &str| {
            let text = format!("// ===BEGIN ICANN DOMAINS===\n{suffixes}// ===END ICANN DOMAINS===\n");
            std::fs::write(&file, text).unwrap();
        };
        write("com\n");
        let refused = Suffixes::new(Some(file.clone())).err().unwrap();
        assert!(format!("{refused:#}").contains("co.uk is no suffix"), "{refused:#}");
        write("com\nco.uk\nplatform.com\n");
        let suffixes = Suffixes::new(Some(file.clone())).unwrap();
        let of = |name: &str| suffixes.registered(&name.parse().unwrap());
        assert_eq!(of("a.b.platform.com"), "b.platform.com");
        write("co.uk\ncom\n");
        let now = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().append(true).open(&file).unwrap().set_modified(now).unwrap();
        suffixes.refresh();
        assert_eq!(of("a.b.platform.com"), "b.platform.com", "it was looked at a moment ago");
        suffixes.state.write().unwrap().looked_at -= LOOK_EVERY;
        suffixes.refresh();
        assert_eq!(of("a.b.platform.com"), "platform.com");
    }
}
