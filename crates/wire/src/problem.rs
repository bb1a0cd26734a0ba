//! Refusals as RFC 9457 problem documents.

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem document: what a daemon answers instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of problem it is; a stable name for programs.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The HTTP status.
    pub status: u16,
    /// What was expected, what came, and what to do.
    pub detail: String,
    /// Seconds after which to try again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of `kind` with its status.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, status: kind.status(), detail: detail.into(), retry_after: None }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.status)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $uri:literal;)*) => {
        /// The kinds of problem that certseal's daemons report.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $uri)] $name,)*
            /// A kind that this version does not know.
            #[serde(other, rename = "about:blank")]
            Other,
        }

        impl ProblemKind {
            /// The HTTP status that goes with the kind.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other => 500,
                }
            }
        }
    };
}

kinds! {
    /// The request could not be understood.
    Malformed = 400, "urn:certseal:malformed";
    /// The caller's role may not do this.
    Forbidden = 403, "urn:certseal:forbidden";
    /// There is no such thing, or none that this caller may see.
    NotFound = 404, "urn:certseal:not-found";
    /// The method does not fit the path.
    MethodNotAllowed = 405, "urn:certseal:method-not-allowed";
    /// The body of the request did not come in time.
    TimedOut = 408, "urn:certseal:timed-out";
    /// The version is not above the stored one.
    Conflict = 409, "urn:certseal:conflict";
    /// The cursor is of another feed epoch, or older than what the feed keeps: begin with a snapshot.
    Gone = 410, "urn:certseal:gone";
    /// The body is larger than the limit.
    TooLarge = 413, "urn:certseal:too-large";
    /// The document is well-formed but its signature or binding is not good.
    Unverified = 422, "urn:certseal:unverified";
    /// Too many requests, of this caller or of all, are under way: try again after the time that the answer says.
    Busy = 429, "urn:certseal:busy";
    /// The server failed.
    Internal = 500, "urn:certseal:internal";
    /// A part that this one needs cannot be reached now; try again.
    Unavailable = 503, "urn:certseal:unavailable";
    /// The disk has too little room; nothing was written.
    Full = 507, "urn:certseal:full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_back_and_unknown_kinds_are_kept_apart() {
        let json = serde_json::to_string(&Problem::new(ProblemKind::Conflict, "x")).unwrap();
        assert_eq!(json, r#"{"type":"urn:certseal:conflict","status":409,"detail":"x"}"#);
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap().kind, ProblemKind::Conflict);
        let unknown = r#"{"type":"urn:certseal:new","status":418,"detail":"x"}"#;
        assert_eq!(serde_json::from_str::<Problem>(unknown).unwrap().kind, ProblemKind::Other);
    }
}
