//! `certctl budget`.

use certseal_wire::{BudgetReport, LimitReport};
use jiff::SignedDuration;

use crate::{
    output::{Output, or_dash, table},
    settings::Settings,
};

pub(super) async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let certman = settings.certman()?;
    let first = certman.budget().await?;
    let mut reports = vec![first];
    for other in reports[0].authorities.iter().skip(1).map(|it| it.authority.clone()).collect::<Vec<_>>() {
        reports.push(certman.budget_at(&other).await?);
    }
    // One CA is the rule, and its report as it always was.
    match &reports[..] {
        [report] => output.show(report, || shown(report)),
        all => output.show(&all, || all.iter().map(shown).collect::<Vec<_>>().join("\n\n")),
    }
}

fn shown(report: &BudgetReport) -> String {
    let BudgetReport { authority, limits, lanes, authorities } = report;
    let is_away = authorities.iter().any(|it| it.authority == *authority && it.is_away);
    let authority = if is_away { format!("{authority} (away)") } else { authority.clone() };
    if limits.is_empty() {
        return format!("{authority}: no limits are known");
    }
    let of_limit = |limit: &LimitReport| {
        let each = SignedDuration::try_from_secs_f64(limit.interval_seconds).unwrap_or(SignedDuration::MAX);
        let row = |subject: &str, left: u32| {
            [limit.limit.clone(), limit.burst.to_string(), format!("{each:#}"), subject.to_owned(), left.to_string()]
        };
        let used = limit.buckets.iter().map(|bucket| row(named(&bucket.subject), bucket.left));
        let rows: Vec<_> = used.collect();
        if rows.is_empty() { vec![row("-", limit.burst)] } else { rows }
    };
    let buckets = table(["LIMIT", "AT ONCE", "THEN ONE IN", "OF", "LEFT NOW"], limits.iter().flat_map(of_limit));
    let lanes = lanes.iter().map(|lane| [lane.lane.clone(), or_dash(lane.waits_until)]);
    format!("{authority}\n\n{buckets}\n\n{}", table(["LANE", "LAST ONE WAITS UNTIL"], lanes))
}

fn named(subject: &str) -> &str {
    if subject.is_empty() { "the account" } else { subject }
}
