//! Marks of the audit log as people keep them.

use certseal_wire::AuditMark;

/// A mark as people keep it: `NUMBER:HASH`.
pub fn mark_text(mark: &AuditMark) -> String {
    format!("{}:{}", mark.number, mark.hash)
}

/// Reads what [`mark_text`] wrote.
///
/// # Errors
/// When it is something else.
pub fn mark(text: &str) -> Result<AuditMark, String> {
    let parse = || {
        let (number, hash) = text.split_once(':')?;
        Some(AuditMark { number: number.parse().ok()?, hash: hash.parse().ok()? })
    };
    parse().ok_or_else(|| format!("expected NUMBER:HASH as `certctl audit verify` prints it, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{NEW_LOG, tests::log};

    #[test]
    fn a_mark_reads_back() {
        let mark = log(NEW_LOG, &["a"])[0].mark;
        assert_eq!(super::mark(&mark_text(&mark)), Ok(mark));
        for bad in ["", "1", ":", "1:abc", "-1:60463f04ca3911525b598125efe80c0072c605747eaa91e5a0588dd44cd0416f"] {
            assert!(super::mark(bad).is_err(), "{bad}");
        }
    }
}
