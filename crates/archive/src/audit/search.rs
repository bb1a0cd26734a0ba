//! Which entries somebody looks for.

use certseal_wire::{AuditAction, AuditLine, AuditOutcome, AuditRecord};
use jiff::Timestamp;

/// The conditions on entries; one that is not set holds for all of them.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Part of who did it: `ROLE/NAME`.
    pub by: Option<String>,
    /// The target of the action, in full; or part of the detail, where refused requests have it.
    pub target: Option<String>,
    /// The action.
    pub action: Option<AuditAction>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Refused requests only.
    pub refused: bool,
}

impl Search {
    /// Whether this entry is one of them. An entry that does not parse always is: it should not be there.
    pub fn matches(&self, line: &AuditLine) -> bool {
        let Ok(record) = serde_json::from_str::<AuditRecord>(&line.entry) else { return true };
        let by = self.by.as_ref().is_none_or(|by| record.by.contains(by.as_str()));
        let target = self.target.as_ref().is_none_or(|target| {
            record.targets.contains(target) || record.detail.as_ref().is_some_and(|detail| detail.contains(target))
        });
        let action = self.action.is_none_or(|action| record.action == action);
        let since = self.since.is_none_or(|since| record.at >= since);
        let until = self.until.is_none_or(|until| record.at < until);
        let refused = !self.refused || record.outcome == AuditOutcome::Refused;
        by && target && action && since && until && refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{NEW_LOG, tests::log};

    fn line(entry: &str) -> AuditLine {
        log(NEW_LOG, &[entry]).remove(0)
    }

    #[test]
    fn an_entry_is_found_by_all_that_is_asked_of_it_together() {
        let done = line(
            r#"{"at":"2026-11-01T08:00:00Z","by":"issuer/certman-1","action":"put-bundle","targets":["a.example"],"outcome":"done"}"#,
        );
        let at = |text: &str| Some(text.parse().unwrap());
        let all = Search {
            by: Some("issuer/".to_owned()),
            target: Some("a.example".to_owned()),
            action: Some(AuditAction::PutBundle),
            since: at("2026-11-01T08:00:00Z"),
            until: at("2026-11-01T08:00:01Z"),
            refused: false,
        };
        assert!(all.matches(&done) && Search::default().matches(&done));
        for other in [
            Search { by: Some("admin/".to_owned()), ..all.clone() },
            Search { target: Some("b.example".to_owned()), ..all.clone() },
            Search { target: Some("example".to_owned()), ..all.clone() },
            Search { action: Some(AuditAction::PutRoute), ..all.clone() },
            Search { since: at("2026-11-01T08:00:01Z"), ..all.clone() },
            Search { until: at("2026-11-01T08:00:00Z"), ..all.clone() },
            Search { refused: true, ..all.clone() },
        ] {
            assert!(!other.matches(&done), "{other:?}");
        }
    }

    #[test]
    fn a_refused_request_is_found_by_the_site_in_its_detail_and_what_does_not_parse_always() {
        let refused = line(
            r#"{"at":"2026-11-01T08:00:00Z","by":"platform/p","action":"other","detail":"PUT /v1/bundles/a.example: 403 Forbidden","outcome":"refused"}"#,
        );
        let search = Search { target: Some("a.example".to_owned()), refused: true, ..Search::default() };
        assert!(search.matches(&refused));
        assert!(search.matches(&line("not an entry")));
    }
}
