//! The keys of the table of single values.

use certseal_wire::Kind;

pub(super) const FORMAT: &str = "format";
pub(super) const POOL: &str = "pool";
pub(super) const CURSOR: &str = "cursor";
pub(super) const RING: &str = "ring";
pub(super) const ACCOUNTS: &str = "accounts";
/// When the newest checkpoint was made.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The newest checkpoint as it was signed.
pub(super) const CHECKPOINT_DOCUMENT: &str = "checkpoint document";
/// Kinds of record that were passed over, one a line.
pub(super) const PASSED_OVER: &str = "passed over";

pub(super) fn kinds(text: Option<&[u8]>) -> Vec<Kind> {
    let text = text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    text.lines().filter_map(|word| word.parse().ok()).collect()
}

pub(super) fn lines(kinds: &[Kind]) -> String {
    kinds.iter().map(Kind::as_str).collect::<Vec<_>>().join("\n")
}

pub(super) fn timestamp(text: &[u8]) -> Option<jiff::Timestamp> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
