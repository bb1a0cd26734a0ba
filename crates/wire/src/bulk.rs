//! Many changes of sites in one call of certman.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::{DnsName, Problem, SiteRequest};

/// The body of `POST /v1/sites` at certman: changes that are made in their order. Each stands for itself: what is wrong with
/// one of them holds up no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteChanges {
    /// At most 10,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<SiteChange>, min_items = 1, max_items = 10_000))]
    #[serde(deserialize_with = "bounded")]
    pub changes: Vec<MaybeChange>,
}

impl SiteChanges {
    /// Changes in one call.
    pub const MAX: usize = 10_000;
}

impl FromIterator<SiteChange> for SiteChanges {
    fn from_iter<T: IntoIterator<Item = SiteChange>>(changes: T) -> Self {
        Self { changes: changes.into_iter().map(|change| MaybeChange(Ok(change))).collect() }
    }
}

/// The change of one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteChange {
    /// The site.
    pub site: DnsName,
    /// What is to become of it.
    pub change: Wanted,
}

/// What is to become of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Wanted {
    /// It is there, like this.
    Put(SiteRequest),
    /// It leaves.
    Remove,
}

/// A change, or what is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybeChange(pub Result<SiteChange, Misfit>);

/// What stands in the place of a change and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The site, as far as it says which.
    pub site: Option<DnsName>,
    /// What was expected and what came.
    pub why: String,
}

impl Serialize for MaybeChange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map_err(|misfit| serde::ser::Error::custom(&misfit.why))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MaybeChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // JSON must be right as a whole; what it says may be wrong item by item.
        let value = serde_json::Value::deserialize(deserializer)?;
        let site = value.get("site").and_then(|site| site.as_str()?.parse().ok());
        Ok(Self(serde_json::from_value(value).map_err(|error| Misfit { site, why: error.to_string() })))
    }
}

/// Reads as many changes as a call may have: no more are held, however many come.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MaybeChange>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<MaybeChange>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "1 to {} changes", SiteChanges::MAX)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut changes = Vec::new();
            while let Some(change) = items.next_element()? {
                if changes.len() == SiteChanges::MAX {
                    return Err(serde::de::Error::custom(format!(
                        "expected 1 to {} changes, these are more",
                        SiteChanges::MAX
                    )));
                }
                changes.push(change);
            }
            Ok(changes)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

/// The answer to [`SiteChanges`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangesReport {
    /// What became of each change, in their order.
    pub results: Vec<ChangeResult>,
}

/// What became of the change of one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeResult {
    /// The site, where the change says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<DnsName>,
    /// What became of it.
    pub result: ChangeKind,
    /// Why it was refused. Of very many refusals in one call, the first thousand say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChangeKind {
    /// The site is new.
    Created,
    /// It was there, and is another one now.
    Changed,
    /// It was there like this.
    Unchanged,
    /// It left.
    Removed,
    /// It was not there.
    Absent,
    /// Nothing was done.
    Refused,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Changed, Self::Unchanged, Self::Removed, Self::Absent, Self::Refused];

    /// The name as in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Absent => "absent",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_none_stands_beside_those_that_are() {
        let text = r#"{"changes":[
            {"site":"a.example","change":"remove"},
            {"site":"b_","change":"remove"},
            {"site":"c.example","change":{"put":{"names":["c.example"],"upstream":"http://10.0.0.1:80","pools":["eu"]}}},
            7,
            {"site":"d.example","change":"turn"}]}"#;
        let SiteChanges { changes } = serde_json::from_str(text).unwrap();
        assert_eq!(changes[0].0.as_ref().unwrap().change, Wanted::Remove);
        assert!(changes[1].0.as_ref().unwrap_err().why.contains("expected a DNS name"), "{:?}", changes[1]);
        assert!(matches!(changes[2].0.as_ref().unwrap().change, Wanted::Put(_)));
        assert!(changes[3].0.as_ref().unwrap_err().why.contains("integer `7`"), "{:?}", changes[3]);
        let many = format!("{{\"changes\":[{}7]}}", "7,".repeat(SiteChanges::MAX));
        assert!(serde_json::from_str::<SiteChanges>(&many).unwrap_err().to_string().contains("these are more"));
        assert_eq!(changes[4].0.as_ref().unwrap_err().site.as_ref().unwrap().as_str(), "d.example");
    }
}
