//! How far the writer has come.

use crate::{AuditLink, Position};

/// How far the writer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) position: Position,
    pub(super) audit: AuditLink,
}
