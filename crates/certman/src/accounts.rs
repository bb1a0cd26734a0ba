//! Changes of the accounts at CAs, and of the signed list by which edges answer their challenges.

use certseal_issuance::Failure;
use certseal_wire::AccountReport;
use jiff::Timestamp;

use crate::{
    authority::{AcmeAuthority, Authorities},
    certstore::Certstore,
};

/// The accounts, that of the preferred CA first.
pub(crate) async fn list(authorities: &Authorities, certstore: &Certstore) -> Result<Vec<AccountReport>, Failure> {
    let listed = certstore.listed_accounts().await?;
    let mut reports = Vec::new();
    for acme in authorities.acme() {
        reports.push(acme.account_report(&listed).await);
    }
    Ok(reports)
}

/// Gives an account another key. Edges know it before the CA does: they answer for both keys meanwhile. If an attempt before turns out
/// to have come through, that was it.
pub(crate) async fn roll_over(acme: &AcmeAuthority, certstore: &Certstore) -> Result<AccountReport, Failure> {
    let _alone = acme.changing().await;
    if let Some(next) = acme.prepare_key().await? {
        certstore.vouch_for_account(&next).await?;
        acme.change_key().await?;
    }
    Ok(acme.account_report(&certstore.listed_accounts().await?).await)
}

/// Ends the account of this URL for good. Edges answer for it no more once the CA has confirmed it.
pub(crate) async fn deactivate(
    acme: &AcmeAuthority,
    account: &str,
    certstore: &Certstore,
) -> Result<AccountReport, Failure> {
    let _alone = acme.changing().await;
    acme.deactivate(account).await?;
    forget_keys(acme, certstore).await?;
    Ok(acme.account_report(&certstore.listed_accounts().await?).await)
}

/// Finishes what is unfinished: ends that no CA has confirmed, and answers for keys whose time is over.
pub(crate) async fn tidy(authorities: &Authorities, certstore: &Certstore) {
    for acme in authorities.acme() {
        let _alone = acme.changing().await;
        let finished = match acme.finish_deactivation().await {
            Ok(()) => forget_keys(acme, certstore).await,
            Err(failure) => Err(failure),
        };
        if let Err(Failure { detail, .. }) = finished {
            tracing::warn!(
                directory = acme.directory(),
                detail,
                "an account's change is not finished: trying again later"
            );
        }
    }
}

async fn forget_keys(acme: &AcmeAuthority, certstore: &Certstore) -> Result<(), Failure> {
    let over = acme.keys_over(Timestamp::now()).await;
    if over.is_empty() {
        return Ok(());
    }
    certstore.dismiss_accounts(&over).await?;
    acme.forget_keys(&over)
}
