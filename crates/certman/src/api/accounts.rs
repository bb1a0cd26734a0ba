//! The accounts at the CAs, for operators.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{AccountDeactivation, AccountList, AccountReport, AccountRollover};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    accounts,
    api::request::{Admin, conflict, malformed, refusal},
    authority::AcmeAuthority,
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new()
        .routes(routes!(list_accounts))
        .routes(routes!(roll_account_over))
        .routes(routes!(deactivate_account))
}

#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts",
    summary = "The accounts at the CAs, and whether edges answer for them. Role admin.",
    responses((status = 200, body = AccountList), ProblemDocument),
)]
async fn list_accounts(State(worker): State<Arc<Worker>>, _: Admin) -> Result<Json<AccountList>, Refusal> {
    let accounts = accounts::list(&worker.authorities, &worker.certstore).await.map_err(refusal)?;
    Ok(Json(AccountList { accounts }))
}

#[utoipa::path(
    post, path = "/v1/accounts/rollover", tag = "accounts",
    summary = "Gives an account another key. Role admin.",
    request_body = AccountRollover,
    responses((status = 200, body = AccountReport), ProblemDocument),
)]
async fn roll_account_over(
    State(worker): State<Arc<Worker>>,
    _: Admin,
    rollover: Result<Json<AccountRollover>, JsonRejection>,
) -> Result<Json<AccountReport>, Refusal> {
    let Json(AccountRollover { directory }) = rollover.map_err(|e| malformed(e.body_text()))?;
    // A caller who leaves stops nothing half way.
    let changed = tokio::spawn(async move {
        let acme = changeable(&worker, &directory)?;
        accounts::roll_over(acme, &worker.certstore).await.map_err(refusal)
    });
    changed.await.map_err(Refusal::internal)?.map(Json)
}

#[utoipa::path(
    post, path = "/v1/accounts/deactivation", tag = "accounts",
    summary = "Ends an account, for good. Role admin.",
    request_body = AccountDeactivation,
    responses((status = 200, body = AccountReport), ProblemDocument),
)]
async fn deactivate_account(
    State(worker): State<Arc<Worker>>,
    _: Admin,
    deactivation: Result<Json<AccountDeactivation>, JsonRejection>,
) -> Result<Json<AccountReport>, Refusal> {
    let Json(AccountDeactivation { directory, account }) = deactivation.map_err(|e| malformed(e.body_text()))?;
    let changed = tokio::spawn(async move {
        let acme = changeable(&worker, &directory)?;
        accounts::deactivate(acme, &account, &worker.certstore).await.map_err(refusal)
    });
    changed.await.map_err(Refusal::internal)?.map(Json)
}

/// The CA whose account is to be changed. Several processes that share a journal share the files of keys, too, and each has the key
/// in its memory: all of them would have to change it at one moment.
fn changeable<'a>(worker: &'a Worker, directory: &str) -> Result<&'a AcmeAuthority, Refusal> {
    let acme = worker.authorities.acme().find(|acme| acme.directory() == directory).ok_or_else(|| {
        let all: Vec<_> = worker.authorities.acme().map(AcmeAuthority::directory).collect();
        malformed(format!("expected the directory of a CA with an account, one of {all:?}"))
    })?;
    if !worker.journal.leases().is_alone() {
        return Err(conflict(
            "several certmans may share this journal and the account's key, and none knows what the others have in memory: stop \
             them all, name another file in `account_key` of each, and start them again, which makes a new account"
                .to_owned(),
        ));
    }
    Ok(acme)
}
