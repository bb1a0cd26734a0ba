//! Names as they are filed, so that wildcards and what they cover are found.

use certseal_issuance::Site;
use certseal_wire::DnsName;
use serde::{Deserialize, Serialize};

/// The holder of a name that lies under another one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) site: DnsName,
    pub(crate) owner: Option<String>,
}

impl Held {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Serialization fails for maps with other than text keys only; this has none.
        serde_json::to_vec(self).expect("names and text serialize")
    }
}

/// Whether the platform says that the site is of `owner` too.
pub(crate) fn is_of_owner(site: &Site, owner: Option<&str>) -> bool {
    owner.is_some() && site.owner.as_deref() == owner
}

/// Where a name is filed, by what it lies under; wildcards are not.
pub(crate) fn under(name: &DnsName) -> Option<String> {
    Some(format!("{}/{name}", parent(name)?))
}

/// The name that a name lies under, if there may be a wildcard over it; wildcards lie under none.
pub(crate) fn parent(name: &DnsName) -> Option<String> {
    let wildcard = name.covering_wildcard().filter(|_| !name.is_wildcard())?;
    Some(wildcard.as_str().trim_start_matches("*.").to_owned())
}
