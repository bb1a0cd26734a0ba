//! Orders, for operators: where they are, and what became of those that the CA rejects.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use certseal_issuance::{Site, Stage, order_status};
use certseal_service::problem::Refusal;
use certseal_wire::{DnsName, OrderList, OrderStatus, ProblemKind, SiteStatus};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    api::request::{Allowed, Name, change_present, journaled, malformed, present},
    worker::Worker,
};

pub(crate) fn router() -> Router<Arc<Worker>> {
    Router::new()
        .route("/v1/orders", get(orders))
        .route("/v1/sites/{site}/order", get(order).delete(discard))
        .route("/v1/sites/{site}/order/retry", post(retry))
}

async fn orders(
    State(worker): State<Arc<Worker>>,
    _: Allowed,
    query: Result<Query<OrdersQuery>, QueryRejection>,
) -> Result<Json<OrderList>, Refusal> {
    let Query(OrdersQuery { stage, after }) = query.map_err(|e| malformed(e.body_text()))?;
    let page = journaled(&worker, move |journal| journal.at_stage(stage, after.as_ref(), PAGE)).await?;
    let next = (page.len() == PAGE).then(|| page.last().map(|site| site.site.clone())).flatten();
    Ok(Json(OrderList { orders: page.iter().filter_map(order_status).collect(), next }))
}

async fn order(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<OrderStatus>, Refusal> {
    let order = order_status(&present(&worker, &name).await?.site);
    let none = || Refusal::new(ProblemKind::NotFound, format!("{name} has no order under way"));
    order.map(Json).ok_or_else(none)
}

async fn retry(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<SiteStatus>, Refusal> {
    change_present(&worker, &name, |site| site.order_retried(Timestamp::now())).await
}

async fn discard(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<SiteStatus>, Refusal> {
    change_present(&worker, &name, Site::order_discarded).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersQuery {
    stage: Stage,
    after: Option<DnsName>,
}

/// Orders in one answer.
const PAGE: usize = 200;
