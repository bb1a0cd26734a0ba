//! A scenario from a JSON file, or a million sites for a year: what takes how long.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use certseal_issuance::budget::LimitName;
use certseal_planner::{Outage, Override, Revocation, Scenario, simulate};

fn main() {
    let raised = Override { burst: 1_000_000, count: 1_000_000, period_seconds: 10_800 };
    let scenario = match std::env::args().nth(1) {
        Some(file) => serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(),
        None => Scenario {
            sites: 1_000_000,
            days: 365,
            broken: 0.03,
            lifetime_days: 45.0,
            overrides: [(LimitName::NewOrders, raised)].into(),
            outages: vec![Outage { day: 20.0, hours: 6.0 }],
            revocations: vec![Revocation { day: 40.0, part: 1.0, hours: 120.0 }],
            orders_per_second: 100.0,
            ..Scenario::default()
        },
    };
    let began = Instant::now();
    let report = simulate(&scenario, |_| {}).unwrap();
    println!("{:.1} s; {} certificates, trace {}", began.elapsed().as_secs_f64(), report.certificates, report.trace);
    if let Some(revoked) = report.revoked.first() {
        let hour = revoked.day as usize * 24;
        for hour in hour.saturating_sub(1)..(hour + 20).min(report.orders_per_hour.len()) {
            println!("hour {hour}: {:?}", report.orders_per_hour[hour]);
        }
        println!("delays {}", report.delays);
    }
    println!(
        "{:?}\n{:?}\nrefused {} {:?}, expired {}",
        report.onboarding, report.revoked, report.refused, report.refused_for, report.expiries
    );
}
