//! Values on the command line.

use certseal_wire::AuditAction;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::ServerName;

/// Reads a length of time: `14d`, `36h`, `90m` or `30s`.
///
/// # Errors
/// When it is something else, or no time at all.
pub(crate) fn period(text: &str) -> Result<SignedDuration, String> {
    let parse = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "d" => 24 * 3600,
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        number.parse::<i64>().ok().filter(|n| (1..=10_000).contains(n)).map(|n| SignedDuration::from_secs(n * seconds))
    };
    parse().ok_or_else(|| format!("expected a period such as 14d, 36h or 90m, got {text:?}"))
}

/// Reads the name of an action, such as `put-bundle`.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn action(text: &str) -> Result<AuditAction, String> {
    let parsed = serde_json::from_value::<AuditAction>(serde_json::Value::String(text.to_owned()));
    // An unknown name is read as `other`, since a newer certstore may have more of them.
    let known = parsed.ok().filter(|action| *action != AuditAction::Other || text == "other");
    known.ok_or_else(|| {
        format!("expected an action as the log shows it, such as put-bundle or read-sealed, got {text:?}")
    })
}

/// Reads a point in time: an RFC 3339 instant, or a period before now.
///
/// # Errors
/// When it is neither.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    if let Ok(instant) = text.parse() {
        return Ok(instant);
    }
    let before_now = period(text).ok().and_then(|period| Timestamp::now().checked_sub(period).ok());
    before_now.ok_or_else(|| {
        format!("expected an instant such as 2026-11-01T08:00:00Z, or a period before now such as 36h, got {text:?}")
    })
}

/// Reads a DNS name or an address of a server.
///
/// # Errors
/// When it is neither.
pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("expected a DNS name or an IP address, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_and_times_are_read_by_their_names() {
        assert_eq!(action("put-bundle"), Ok(AuditAction::PutBundle));
        assert_eq!(action("other"), Ok(AuditAction::Other));
        assert!(action("put-bundel").is_err());
        assert_eq!(instant("2026-11-01T08:00:00Z"), Ok("2026-11-01T08:00:00Z".parse().unwrap()));
        assert!(instant("2h").unwrap() < Timestamp::now());
        assert!(instant("yesterday").is_err());
    }

    #[test]
    fn periods_are_read_with_their_unit() {
        assert_eq!(period("14d"), Ok(SignedDuration::from_hours(14 * 24)));
        assert_eq!(period("90m"), Ok(SignedDuration::from_mins(90)));
        for bad in ["", "d", "14", "-1d", "0h", "1w", "é"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }
}
