//! A stored certificate: what the CA knows it as, when it is renewed, and what the next order costs.

use certseal_wire::NameSet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{AccountRef, Advice, AuthorityId, Lineage, Moment, Revocation, Window, budget::OrderKind, renewal};

/// A stored certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// The CA's name, as the certificate states it.
    pub authority: String,
    /// The CA that it was ordered from; none for one that a platform brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_from: Option<AuthorityId>,
    /// The names that it was ordered for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NameSet>,
    /// Start of validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// End of validity.
    pub not_after: Timestamp,
    /// When the renewal begins.
    pub renew_at: Timestamp,
    /// The certificate in the eyes of its CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// What the CA says of the renewal.
    #[serde(default, skip_serializing_if = "Advice::is_unknown")]
    pub advice: Advice,
    /// The renewal was put forward, to move many sites.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_put_forward: bool,
}

impl Issued {
    /// From when on it is urgent that another one comes: half of what was left when the renewal was due. A sixth of the
    /// lifetime is left then, where renewals are due at two thirds of it.
    pub fn expiring_at(&self) -> Timestamp {
        let part = |from: Timestamp, part: f64| {
            let rest = self.not_after.duration_since(from);
            from.checked_add(renewal::fraction(rest, part)).unwrap_or(self.not_after)
        };
        // Wherever the CA or a migration puts the renewal.
        let due = self.not_before.map_or(self.renew_at.min(self.not_after), |not_before| part(not_before, 2.0 / 3.0));
        part(due, 0.5)
    }

    /// The certificate in the eyes of the CA, if an order of this account says that it replaces it: the CA gave advice on it.
    pub(crate) fn replaced_by(&self, account: &AccountRef) -> Option<&Lineage> {
        let lineage = self.lineage.as_ref().filter(|lineage| lineage.account == *account && !lineage.is_replaced);
        lineage.filter(|_| self.advice.window.is_some())
    }

    /// The next order, for `names`, as the CA counts it.
    pub(crate) fn next_order(&self, account: &AccountRef, names: &NameSet, now: Timestamp) -> OrderKind {
        let Some(before) = &self.names else { return OrderKind::New };
        let (same_names, shares_one) = (before == names, names.iter().any(|name| before.iter().any(|had| had == name)));
        let in_window = self.advice.window.is_some_and(|window| window.contains(now));
        if in_window && shares_one && self.replaced_by(account).is_some() {
            return OrderKind::Replacement { same_names };
        }
        let is_of_late = self.not_before.is_some_and(|at| now.duration_since(at) < KNOWN_SET);
        let is_theirs = self.ordered_from.as_ref() == Some(&account.authority);
        if same_names && is_of_late && is_theirs { OrderKind::SameNames } else { OrderKind::New }
    }

    /// The certificate after the CA's advice on it. A window that is new has the renewal planned anew; one in the past means now.
    pub(crate) fn advised(
        &mut self,
        window: Window,
        retry_after: SignedDuration,
        explanation: Option<String>,
        moment: Moment,
    ) {
        if self.advice.window != Some(window) {
            // Not so late that it becomes urgent, whatever the CA says; nor later than a migration wants it.
            let planned = window.instant(moment.chance).min(self.expiring_at());
            self.renew_at = if self.is_put_forward { self.renew_at.min(planned) } else { planned };
        }
        let explanation = explanation.map(|url| url.chars().take(MAX_EXPLANATION).collect());
        self.advice = Advice { window: Some(window), explanation, ask_at: None };
        self.advice.ask_after(moment.now, retry_after);
    }
}

/// A stored certificate that is to be revoked once another one is there: others may have its key, or somebody wants it for another
/// reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compromised {
    /// The version of its bundle.
    pub version: u64,
    /// The certificate.
    pub certificate: Revocation,
}

impl Compromised {
    /// Whether a word that came before says at least as much as this one.
    pub(crate) fn is_in(&self, known: &Self) -> bool {
        let is_stronger = self.certificate.reason.is_key_compromise() && !known.certificate.reason.is_key_compromise();
        self.version < known.version || self.version == known.version && !is_stronger
    }
}

/// For how long the CA knows a set of names: 120 days, less one for clocks that differ.
const KNOWN_SET: SignedDuration = SignedDuration::from_hours(119 * 24);

/// Characters of the address of a page.
const MAX_EXPLANATION: usize = 500;
