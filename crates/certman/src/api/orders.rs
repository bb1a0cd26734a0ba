//! Orders, for operators: where they are, and what became of those that the CA rejects.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use certseal_issuance::{Site, Stage, order_status};
use certseal_service::{openapi::ProblemDocument, problem::Refusal};
use certseal_wire::{DnsName, OrderList, OrderStatus, ProblemKind, SiteStatus};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::request::{Allowed, Name, change_present, journaled, malformed, present},
    worker::Worker,
};

pub(crate) fn operations() -> OpenApiRouter<Arc<Worker>> {
    OpenApiRouter::new().routes(routes!(orders)).routes(routes!(order, discard)).routes(routes!(retry))
}

#[utoipa::path(
    get, path = "/v1/orders", tag = "orders",
    summary = "A page of the orders at a stage. Roles platform, admin.",
    params(
        (
            "stage" = String, Query, pattern = "^(authorize|challenge|retrieval|dead-letter)$",
            description = "Only those at this stage."
        ),
        ("after" = Option<DnsName>, Query, description = "Go on after this site."),
    ),
    responses((status = 200, body = OrderList), ProblemDocument),
)]
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

#[utoipa::path(
    get, path = "/v1/sites/{site}/order", tag = "orders",
    summary = "A site's order. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = OrderStatus), ProblemDocument),
)]
async fn order(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<OrderStatus>, Refusal> {
    let order = order_status(&present(&worker, &name).await?.site);
    let none = || Refusal::new(ProblemKind::NotFound, format!("{name} has no order under way"));
    order.map(Json).ok_or_else(none)
}

#[utoipa::path(
    post, path = "/v1/sites/{site}/order/retry", tag = "orders",
    summary = "Has a site's order tried again now. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
async fn retry(State(worker): State<Arc<Worker>>, _: Allowed, Name(name): Name) -> Result<Json<SiteStatus>, Refusal> {
    change_present(&worker, &name, |site| site.order_retried(Timestamp::now())).await
}

#[utoipa::path(
    delete, path = "/v1/sites/{site}/order", tag = "orders",
    summary = "Gives a site's order up. Roles platform, admin.",
    params(("site" = DnsName, Path)),
    responses((status = 200, body = SiteStatus), ProblemDocument),
)]
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
