//! The account at a CA: how it is opened, gets another key, and ends (RFC 8555, 7.3).
//!
//! Another key comes in steps. A process may die after each of them, and goes on with the key that the CA knows:
//!
//! ```text
//!  FILE.next on the disk -> edges know both keys -> the CA takes the next one -> FILE.next becomes FILE -> an hour later edges forget the old one
//!                                                   +--- died here: the CA is asked for an account with FILE.next ---+
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context;
use certseal_issuance::{Failure, FailureKind};
use certseal_seal::secret_pem;
use certseal_service::config as files;
use certseal_wire::{AccountReport, AccountState, causes};
use instant_acme::{Account, AccountBuilder, Error, Key, Problem};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;
use zeroize::Zeroizing;

use super::{
    AcmeAuthority, NO_ACCOUNT, Opened,
    account_note::{AccountNote, Deactivation, NEXT, REPLACED, beside},
    external::{self, ExternalAccount},
    failure, rejected,
    signed::{self, AccountKey, Signer},
};

/// For the journal, the books and the list of accounts.
impl AcmeAuthority {
    /// The thumbprint by which the account is known, whatever key it has by now.
    pub(crate) async fn known_as(&self) -> Result<String, Failure> {
        let _key = self.key_in_use.read().await;
        let opened = self.opened().await?;
        Ok(self.note().known_as.unwrap_or_else(|| opened.account.key_thumbprint().to_owned()))
    }

    /// The account, for people. `listed` are the thumbprints for which edges answer.
    pub(crate) async fn account_report(&self, listed: &[String]) -> AccountReport {
        let _key = self.key_in_use.read().await;
        // An account that nobody has needed yet is not made for this.
        let is_there = self.account_key.exists() && !self.is_away();
        let opened = if is_there { self.opened().await.ok() } else { self.known_account() };
        let of_file = || AccountKey::from_der(&load(&self.account_key).ok()?).ok();
        let thumbprint = match &opened {
            Some(opened) => Some(opened.key.thumbprint()),
            None => of_file().map(|key| key.thumbprint()),
        };
        let AccountNote { mut former, deactivation, .. } = self.note();
        former.retain(|key| Some(&key.thumbprint) != thumbprint.as_ref());
        AccountReport {
            directory: self.directory.clone(),
            state: match &deactivation {
                None => AccountState::Active,
                Some(Deactivation { is_done: false, .. }) => AccountState::Deactivating,
                Some(Deactivation { is_done: true, .. }) => AccountState::Deactivated,
            },
            account: opened.map(|opened| opened.account.id().to_owned()).or(deactivation.map(|it| it.account)),
            is_vouched_for: thumbprint.as_ref().is_some_and(|own| listed.contains(own)),
            thumbprint,
            former,
        }
    }

    /// Keeps others from changing the account, until it is dropped.
    pub(crate) async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The thumbprints of keys for which edges need not answer any more.
    pub(crate) async fn keys_over(&self, now: Timestamp) -> Vec<String> {
        let _key = self.key_in_use.read().await;
        let over = self.note().over(now);
        if over.is_empty() || self.has_ended() {
            return over;
        }
        // Before the CA has said so, nobody knows which key it goes by.
        let Ok(opened) = self.opened().await else { return Vec::new() };
        let own = opened.key.thumbprint();
        over.into_iter().filter(|thumbprint| *thumbprint != own).collect()
    }

    /// Forgets keys for which edges answer no more.
    pub(crate) fn forget_keys(&self, thumbprints: &[String]) -> Result<(), Failure> {
        self.change_note(|note| note.former.retain(|key| !thumbprints.contains(&key.thumbprint)))
    }
}

/// Another key (RFC 8555, 7.3.5).
impl AcmeAuthority {
    /// Puts the next key on the disk. Answers its thumbprint, which edges must know before the CA does; none if the CA has taken the
    /// key of an attempt before, which is the account's from then on.
    pub(crate) async fn prepare_key(&self) -> Result<Option<String>, Failure> {
        // The account may turn out to have another key: the one before signs nothing meanwhile.
        let _alone = self.key_in_use.write().await;
        let opened = self.opened().await?;
        let own = opened.account.key_thumbprint();
        if self.note().former.iter().filter(|key| key.thumbprint != own).count() >= MAX_FORMER {
            return Err(rejected(format!("the account had {MAX_FORMER} other keys within an hour: try again later")));
        }
        // Should the CA not take the next key, this one stays in use, and is not forgotten.
        let until = Timestamp::now() + KEPT;
        self.change_note(|note| {
            note.known_as.get_or_insert_with(|| own.to_owned());
            note.leaves(own, until);
        })?;
        if let Some(changed) = self.open_next(ASKED).await? {
            self.forget_account();
            self.set_account(Some(Arc::new(changed)));
            return Ok(None);
        }
        self.make_next_key().map(Some)
    }

    /// Puts a new next key on the disk, and answers its thumbprint. A key of an attempt before may have lain there for long, and be
    /// known to others by now: it is replaced, and edges answer for it no more. It is kept beside the others, in `FILE.replaced`: a CA
    /// that took it, and did not say so when it was asked, has no other key for the account.
    fn make_next_key(&self) -> Result<String, Failure> {
        let next = self.next_key();
        if next.exists() {
            let left = thumbprint(&load(&next).map_err(unusable)?)?;
            self.change_note(|note| note.leaves(&left, Timestamp::now()))?;
            std::fs::rename(&next, beside(&self.account_key, REPLACED)).map_err(|error| unusable(error.into()))?;
        }
        make(&next, files::replace_private).map_err(unusable)?;
        thumbprint(&load(&next).map_err(unusable)?)
    }

    /// Has the CA take the prepared key. Edges know it by now.
    pub(crate) async fn change_key(&self) -> Result<(), Failure> {
        // No request is under way that the old key signed, and none begins.
        let _alone = self.key_in_use.write().await;
        let opened = self.opened().await?;
        let der = load(&self.next_key()).map_err(unusable)?;
        let next = AccountKey::from_der(&der).map_err(failure)?;
        let urls = self.urls().await?;
        let none = || rejected(format!("{} has no interface for another key", self.directory));
        let url = urls.key_change.as_deref().ok_or_else(none)?;
        let account = opened.account.id();
        let statement = next.statement(url, &json!({ "account": account, "oldKey": opened.key.jwk() }));
        let statement = statement.map_err(failure)?.to_string();
        let signer = (&opened.key, Signer::Account(account));
        let asked = signed::post(&self.http, urls, signer, url, &statement).await;
        // Whatever came back, or did not: from now on the account is the one that the CA finds.
        self.forget_account();
        let asks = if asked.is_ok() { ASKED } else { 1 };
        if asked.is_ok()
            && let Err(Failure { detail, .. }) = self.change_note(|note| note.taken = Some(next.thumbprint()))
        {
            tracing::warn!(directory = self.directory, detail, "cannot note that the CA took the next key");
        }
        match (self.open_next(asks).await?, asked) {
            (Some(changed), _) => {
                self.set_account(Some(Arc::new(changed)));
                Ok(())
            }
            (None, Err(error)) => Err(failure(error)),
            (None, Ok(_)) => Err(self.unknown_yet()),
        }
    }

    /// The account with the next key, if there is one and the CA has taken it. The next key is the account's from then on. A CA may
    /// have parts that learn of it late: one that knows no such account is asked so many times, a second apart.
    ///
    /// # Errors
    /// Also when the CA said that it took the key, and knows no account with it yet: the key before is not gone back to.
    async fn open_next(&self, asks: u32) -> Result<Option<Opened>, Failure> {
        let next = self.next_key();
        if !next.exists() {
            return Ok(None);
        }
        let der = load(&next).map_err(unusable)?;
        for ask in 0..asks {
            if ask > 0 {
                tokio::time::sleep(BETWEEN).await;
            }
            let Some(opened) = self.existing(&der).await? else { continue };
            let renamed = files::rename_durably(&next, &self.account_key);
            let to_that = || format!("cannot rename {} to that of the key before", next.display());
            renamed.with_context(to_that).map_err(unusable)?;
            let (directory, thumbprint) = (&self.directory, opened.key.thumbprint());
            tracing::warn!(directory, thumbprint, "the account has another key");
            return Ok(Some(opened));
        }
        if self.note().taken == Some(thumbprint(&der)?) { Err(self.unknown_yet()) } else { Ok(None) }
    }

    fn unknown_yet(&self) -> Failure {
        let next = self.next_key();
        unavailable(format!(
            "the CA took the key in {}, and knows no account with it yet: trying again",
            next.display()
        ))
    }

    fn next_key(&self) -> PathBuf {
        beside(&self.account_key, NEXT)
    }
}

/// The end (RFC 8555, 7.3.6).
impl AcmeAuthority {
    /// Ends the account of this URL for good. It gets no orders from now on, also while the CA has not confirmed it.
    pub(crate) async fn deactivate(&self, account: &str) -> Result<(), Failure> {
        let _alone = self.key_in_use.write().await;
        let own = match self.note().deactivation {
            Some(Deactivation { account, .. }) => account,
            None => self.opened().await?.account.id().to_owned(),
        };
        if own != account {
            let directory = &self.directory;
            return Err(rejected(format!("expected {own}, which is the account at {directory}, got {account:?}")));
        }
        if !self.has_ended() {
            self.change_note(|note| note.deactivation = Some(Deactivation { account: own, is_done: false }))?;
            self.forget_account();
        }
        self.end().await
    }

    /// Asks the CA again for an end that it has not confirmed.
    pub(crate) async fn finish_deactivation(&self) -> Result<(), Failure> {
        let is_open = |deactivation: &Deactivation| !deactivation.is_done;
        if !self.note().deactivation.as_ref().is_some_and(is_open) {
            return Ok(());
        }
        let _alone = self.key_in_use.write().await;
        self.end().await
    }

    async fn end(&self) -> Result<(), Failure> {
        let Some(Deactivation { account, is_done: false }) = self.note().deactivation else { return Ok(()) };
        let der = load(&self.account_key).map_err(unusable)?;
        let key = AccountKey::from_der(&der).map_err(failure)?;
        let payload = json!({ "status": "deactivated" }).to_string();
        let signer = (&key, Signer::Account(&account));
        let answered = signed::post(&self.http, self.urls().await?, signer, &account, &payload).await;
        // It may have ended before, and the CA's word for that did not come here. The same error has other reasons, too.
        let (is_unauthorized, is_told) = match &answered {
            Err(Error::Api(problem)) => (is_unauthorized(problem), says_ended(problem)),
            _ => (false, false),
        };
        let has_ended = is_unauthorized && (is_told || self.is_known_as_ended(&key).await?);
        if !has_ended {
            answered.map_err(failure)?;
        }
        // A next key may be listed that the CA never took.
        let next = load(&self.next_key()).ok().and_then(|der| AccountKey::from_der(&der).ok());
        let now = Timestamp::now();
        self.change_note(|note| {
            note.former.iter_mut().for_each(|former| former.until = now);
            [Some(&key), next.as_ref()].into_iter().flatten().for_each(|key| note.leaves(&key.thumbprint(), now));
            note.deactivation = Some(Deactivation { account: account.clone(), is_done: true });
        })?;
        tracing::warn!(directory = self.directory, account, "the account has ended");
        Ok(())
    }

    /// Whether the CA, asked for the account with this key, says that it has ended.
    async fn is_known_as_ended(&self, key: &AccountKey) -> Result<bool, Failure> {
        let urls = self.urls().await?;
        let payload = json!({ "onlyReturnExisting": true }).to_string();
        match signed::post(&self.http, urls, (key, Signer::Key), &urls.new_account, &payload).await {
            Ok(account) => {
                let account = serde_json::from_slice::<Value>(&account);
                Ok(account.is_ok_and(|account| account["status"] == "deactivated"))
            }
            Err(Error::Api(problem)) => Ok(is_unauthorized(&problem) && says_ended(&problem)),
            Err(error) => Err(failure(error)),
        }
    }

    /// Whether the account gets no orders any more.
    pub(super) fn has_ended(&self) -> bool {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).deactivation.is_some()
    }

    /// Refuses what the CA would have done for the account only.
    pub(super) fn not_ended(&self) -> Result<(), Failure> {
        match self.note().deactivation {
            Some(Deactivation { account, .. }) => Err(rejected(ended(&account))),
            None => Ok(()),
        }
    }
}

/// How it is opened.
impl AcmeAuthority {
    pub(super) async fn account(&self) -> Result<Account, Failure> {
        self.opened().await.map(|opened| opened.account.clone())
    }

    /// The account, as the CA knows it.
    pub(super) async fn opened(&self) -> Result<Arc<Opened>, Failure> {
        if let Some(opened) = self.known_account() {
            return Ok(opened);
        }
        let _alone = self.opening.lock().await;
        if let Some(opened) = self.known_account() {
            return Ok(opened);
        }
        let opened = Arc::new(self.open().await?);
        tracing::info!(directory = self.directory, account = opened.account.id(), "ACME account is ready");
        self.set_account(Some(opened.clone()));
        Ok(opened)
    }

    /// The account, once the CA has said which one it is.
    pub(super) fn known_account(&self) -> Option<Arc<Opened>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_account(&self, opened: Option<Arc<Opened>>) {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = opened;
    }

    /// Has the CA asked for the account, and for its orders, which are signed for with its key.
    fn forget_account(&self) {
        self.set_account(None);
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Finds the account at the CA, or makes it. Its key is durable before the CA hears of it, and the CA finds the account by the
    /// key: a process that dies in between leaves no account behind.
    async fn open(&self) -> Result<Opened, Failure> {
        if let Some(Deactivation { account, .. }) = self.note().deactivation {
            return Err(unavailable(ended(&account)));
        }
        if let Some(opened) = self.open_next(1).await? {
            return Ok(opened);
        }
        if self.next_key().exists() {
            // The account has one of the two keys: with the other one, none is made.
            let opened = self.existing(&load(&self.account_key).map_err(unusable)?).await?;
            return opened.ok_or_else(|| self.unknown_with_both());
        }
        if !self.account_key.exists() {
            make(&self.account_key, files::write_private).map_err(unusable)?;
        }
        let der = load(&self.account_key).map_err(unusable)?;
        let key = AccountKey::from_der(&der).map_err(failure)?;
        if let Some(external) = &self.choices.external {
            return self.bound(&der, key, external).await;
        }
        let (account, _) =
            self.builder().create_from_key(parts(&der)?, self.directory.clone()).await.map_err(failure)?;
        Ok(Opened { account, key })
    }

    fn unknown_with_both(&self) -> Failure {
        let (file, next) = (self.account_key.display(), self.next_key());
        let next = next.display();
        unavailable(format!(
            "the CA knows no account with the key in {file}, nor with that in {next}: trying again; without {next}, a new account is made"
        ))
    }

    /// The account that is bound to one that the CA knows its customers by (RFC 8555, 7.3.4). It is asked for first: many of
    /// these accounts may be used once.
    async fn bound(
        &self,
        der: &PrivatePkcs8KeyDer<'static>,
        key: AccountKey,
        external: &ExternalAccount,
    ) -> Result<Opened, Failure> {
        if let Some(opened) = self.existing(der).await? {
            return Ok(opened);
        }
        external::register(&self.http, self.urls().await?, &key, external).await.map_err(failure)?;
        let (account, _) = self.builder().from_key(parts(der)?, self.directory.clone()).await.map_err(failure)?;
        Ok(Opened { account, key })
    }

    /// The account with this key, if the CA knows one.
    async fn existing(&self, der: &PrivatePkcs8KeyDer<'static>) -> Result<Option<Opened>, Failure> {
        let key = AccountKey::from_der(der).map_err(failure)?;
        match self.builder().from_key(parts(der)?, self.directory.clone()).await {
            Ok((account, _)) => Ok(Some(Opened { account, key })),
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => Ok(None),
            Err(error) => Err(failure(error)),
        }
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.http.clone()))
    }

    fn note(&self) -> AccountNote {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the note, on the disk first.
    fn change_note(&self, change: impl FnOnce(&mut AccountNote)) -> Result<(), Failure> {
        let mut held = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let mut note = held.clone();
        change(&mut note);
        let written = note.write(&self.account_key);
        written.with_context(|| format!("cannot write beside {}", self.account_key.display())).map_err(unusable)?;
        *held = note;
        Ok(())
    }
}

/// A key as `instant-acme` takes it.
fn parts(der: &PrivatePkcs8KeyDer<'static>) -> Result<(Key, PrivateKeyDer<'static>), Failure> {
    Ok((Key::from_pkcs8_der(der.clone_key()).map_err(failure)?, der.clone_key().into()))
}

fn thumbprint(der: &PrivatePkcs8KeyDer<'static>) -> Result<String, Failure> {
    AccountKey::from_der(der).map(|key| key.thumbprint()).map_err(failure)
}

/// Puts a new key into a file, which `write` does durably.
fn make(file: &Path, write: impl FnOnce(&Path, &str) -> io::Result<()>) -> anyhow::Result<()> {
    let (_, der) = Key::generate_pkcs8()?;
    let der = Zeroizing::new(der);
    let text = secret_pem::encode_crlf("PRIVATE KEY", der.secret_pkcs8_der());
    write(file, text.as_str()).with_context(|| format!("cannot write {}", file.display()))
}

fn load(file: &Path) -> anyhow::Result<PrivatePkcs8KeyDer<'static>> {
    let text = files::read_private(file)?;
    let (_, der) = secret_pem::decode(text.as_bytes())
        .filter(|(tag, _)| *tag == "PRIVATE KEY")
        .with_context(|| format!("expected a PEM private key in {}", file.display()))?;
    Ok(PrivatePkcs8KeyDer::from(der.to_vec()))
}

fn is_unauthorized(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some(UNAUTHORIZED)
}

/// Whether a problem's words are that the account has ended. Boulder and Pebble name the account's status.
fn says_ended(problem: &Problem) -> bool {
    problem.detail.as_deref().is_some_and(|detail| detail.to_ascii_lowercase().contains("deactivated"))
}

fn ended(account: &str) -> String {
    format!(
        "the account {account} has ended: name another file in `account_key` for a new one, or take the CA out of the configuration"
    )
}

fn unusable(error: anyhow::Error) -> Failure {
    unavailable(causes(error.as_ref()))
}

fn unavailable(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Unavailable, detail)
}

const UNAUTHORIZED: &str = "urn:ietf:params:acme:error:unauthorized";
/// For how long edges answer for a key that an account had before: orders that were under way are over by then.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Keys that an account may have had within that time.
const MAX_FORMER: usize = 8;
/// How often a CA is asked for the account with a key that it may have taken a moment ago, and how long it is left alone between.
const ASKED: u32 = 4;
const BETWEEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::acme::tests::{authority, refusing};

    #[test]
    fn the_next_key_of_an_attempt_before_is_replaced_and_leaves_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path(), refusing());
        let on_disk = || thumbprint(&load(&dir.path().join("account.key.next")).unwrap()).unwrap();
        let left = ca.make_next_key().unwrap();
        assert_eq!((on_disk(), ca.note().former), (left.clone(), Vec::new()));
        let next = ca.make_next_key().unwrap();
        assert_ne!(next, left);
        assert_eq!((on_disk(), ca.note().over(Timestamp::now())), (next, vec![left]));
    }

    #[test]
    fn an_account_that_may_not_do_something_has_not_ended() {
        let problem = |name: &str, detail: &str| -> Problem {
            let name = format!("urn:ietf:params:acme:error:{name}");
            serde_json::from_value(json!({ "type": name, "detail": detail, "status": 403 })).unwrap()
        };
        let is_end = |problem: Problem| is_unauthorized(&problem) && says_ended(&problem);
        // The second detail is in Boulder's words.
        assert!(is_end(problem("unauthorized", "Account has been deactivated")));
        assert!(is_end(problem("unauthorized", "Account is not valid, has status \"deactivated\"")));
        assert!(!is_end(problem("unauthorized", "no permission to access this account")));
        assert!(!is_end(problem("malformed", "deactivated")));
    }
}
