//! Fleets of some thousand sites, whose course is known.

#![allow(clippy::unwrap_used)]

use certseal_issuance::{Staging, StepCounts, budget::LimitName};
use certseal_planner::{Outage, Override, Report, Revocation, Scenario, pictures, simulate};

fn run(scenario: &Scenario) -> Report {
    let report = simulate(scenario, |_| {}).unwrap();
    assert_eq!((report.refused, &report.refused_for), (0, &None), "the books let pass what the CA refuses");
    report
}

fn raised() -> Scenario {
    let raised = Override { burst: 100_000, count: 100_000, period_seconds: 10_800 };
    Scenario { overrides: [(LimitName::NewOrders, raised)].into(), ..Scenario::default() }
}

#[test]
fn by_default_an_account_gets_three_hundred_sites_at_once_and_a_hundred_an_hour() {
    let report = run(&Scenario { sites: 5_000, days: 4, ..Scenario::default() });
    let hours: Vec<u64> = report.orders_per_hour.iter().map(|hour| hour.iter().sum()).collect();
    assert!((398..=400).contains(&hours[0]), "{:?}", &hours[..5]);
    assert!(hours[1..40].iter().all(|orders| (97..=101).contains(orders)), "{:?}", &hours[..45]);
    assert_eq!((report.onboarding.done, report.onboarding.missing), (5_000, 0));
    assert!((1.9..2.1).contains(&report.onboarding.last_day), "{:?}", report.onboarding);
}

#[test]
fn a_year_of_short_certificates_ends_none_and_renewals_take_no_new_orders() {
    let scenario = Scenario { sites: 3_000, days: 365, lifetime_days: 45.0, ..raised() };
    let report = run(&scenario);
    assert_eq!(report.expiries, 0);
    let each = report.certificates as f64 / 3_000.0;
    assert!((12.0..13.5).contains(&each), "{each} certificates for a site");
    let least = report.per_day.iter().map(|day| day.least_remaining).fold(1.0, f64::min);
    assert!(least > 0.3, "renewals come at two thirds, and {least} was the least that was left");
    let without = run(&Scenario { advice: false, ..scenario });
    assert_eq!(without.expiries, 0);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let scenario = Scenario { sites: 500, days: 60, broken: 0.1, lifetime_days: 20.0, ..Scenario::default() };
    let first = run(&scenario);
    assert_eq!(first, run(&scenario));
    assert_ne!(first.trace, run(&Scenario { seed: 2, ..scenario }).trace);
}

#[test]
fn broken_names_are_tried_less_and_less_and_hold_up_nobody() {
    let report = run(&Scenario { sites: 2_000, days: 120, broken: 0.1, ..raised() });
    assert_eq!(report.onboarding.missing, 0);
    assert!(report.onboarding.last_day < 0.1, "{:?}", report.onboarding);
    let each = report.failed_validations as f64 / 200.0;
    assert!((25.0..=35.0).contains(&each), "{each} attempts for a broken name in 120 days");
}

#[test]
fn an_outage_is_made_up_for_and_ends_no_certificate() {
    let outages = vec![Outage { day: 29.5, hours: 24.0 }];
    let report = run(&Scenario { sites: 2_000, days: 90, lifetime_days: 45.0, outages, ..raised() });
    assert_eq!(report.expiries, 0);
    let hour = |hour: usize| report.orders_per_hour[hour].iter().sum::<u64>();
    let during: u64 = (29 * 24 + 13..30 * 24 + 11).map(hour).sum();
    assert_eq!(during, 0, "the CA was away");
}

#[test]
fn a_mass_revocation_is_over_within_the_time_that_the_ca_asks_about_and_works() {
    let revocations = vec![Revocation { day: 20.0, part: 1.0, hours: 24.0 }];
    let report = run(&Scenario { sites: 20_000, days: 40, orders_per_second: 5.0, revocations, ..raised() });
    let [revoked] = &report.revoked[..] else { panic!("{:?}", report.revoked) };
    assert_eq!((revoked.concerned, revoked.late), (20_000, 0));
    let hours = revoked.safe_after_hours.unwrap();
    assert!((5.5..7.5).contains(&hours), "{hours} hours: all have asked within six, and the work takes over an hour");
}

#[test]
fn a_platforms_own_domain_is_bounded_by_the_limit_on_domains() {
    let report = run(&Scenario { sites: 200, days: 10, under_platform: 1.0, ..Scenario::default() });
    // 50 at once, and then 50 in seven days.
    assert!((118..=122).contains(&report.onboarding.done), "{:?}", report.onboarding);
}

#[test]
fn pictures_show_what_there_is() {
    let report = run(&Scenario { sites: 100, days: 30, ..Scenario::default() });
    let pictures = pictures(&report);
    assert_eq!(pictures.len(), 5);
    for picture in &pictures {
        assert!(picture.svg.starts_with("<svg ") && picture.svg.ends_with("</svg>\n"), "{}", picture.name);
        assert!(!picture.svg.contains("NaN") && !picture.svg.contains("inf"), "{}", picture.svg);
    }
    assert!(pictures[0].svg.contains("new site"));
}

#[test]
fn a_scenario_that_means_nothing_is_refused_with_what_is_expected() {
    let said = |scenario: Scenario| simulate(&scenario, |_| {}).unwrap_err().to_string();
    assert!(said(Scenario { broken: 1.5, ..Scenario::default() }).contains("broken between 0 and 1, got 1.5"));
    assert!(said(Scenario { limits: "zerossl".into(), ..Scenario::default() }).contains("letsencrypt"));
    assert!(said(Scenario { sites: 0, ..Scenario::default() }).contains("sites between 1"));
}

#[test]
fn staged_onboarding_takes_steps_that_grow_and_stops_when_too_many_fail() {
    let staging = Some(Staging { batch: 1_000, may_fail: 0.1 });
    // None of the first ten sites of this seed is broken.
    let scenario = Scenario { sites: 2_500, days: 20, broken: 0.03, staging, seed: 3, ..raised() };
    let report = run(&scenario);
    let sizes: Vec<u32> = report.steps.iter().map(|step| step.counts.sites).collect();
    assert_eq!(sizes, [10, 100, 1_000, 1_000, 390]);
    for step in &report.steps {
        let StepCounts { sites, active, failing } = step.counts;
        assert!(active + failing == sites && step.hours.is_some() && !step.is_stopped, "{step:?}");
    }
    assert!(report.steps.windows(2).all(|pair| pair[0].day + pair[0].hours.unwrap() / 24.0 <= pair[1].day + 1e-6));
    assert_eq!(report.onboarding.missing, 0);
    assert!(report.onboarding.hours_99 < 0.05, "since the step began: {:?}", report.onboarding);
    let unfinished = run(&Scenario { outages: vec![Outage { day: 0.0, hours: 480.0 }], ..scenario.clone() });
    let StepCounts { sites, active, failing } = unfinished.steps[0].counts;
    assert_eq!((unfinished.steps.len(), sites, active, failing, unfinished.steps[0].hours), (1, 10, 0, 0, None));

    let report = run(&Scenario { broken: 0.5, ..scenario.clone() });
    let last = report.steps.last().unwrap();
    assert!(last.is_stopped && report.steps.len() <= 2 && report.onboarding.done < 110, "{:?}", report.steps);

    let both = Scenario { sites_per_day: 5, ..scenario };
    assert!(simulate(&both, |_| {}).unwrap_err().to_string().contains("either staging or sites_per_day"));
}
