//! Staged onboarding by `certctl site onboard`: planned, run, and stopped by bad signs.

use std::{fmt::Write, process::Output};

use certseal_issuance::budget::LimitName;
use certseal_planner::{Override, Scenario, TwinLimits};
use serde_json::{Value, json};

use crate::{
    platform::{Authority, POOL, Platform},
    twin_ca::{Terms, TwinCa},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_are_onboarded_in_the_planned_steps_until_too_many_fail() {
    let new_orders = Override { burst: 20, count: 10, period_seconds: 1 };
    let overrides = [(LimitName::NewOrders, new_orders)].into();
    let limits = TwinLimits::of(&Scenario { overrides, ..Scenario::default() }).unwrap();
    let twin = TwinCa::start(Terms { limits, ..Terms::default() });
    let directory = twin.directory();
    let authority = Authority::Acme { directory: &directory, roots: &twin.tls_root };
    let mut platform = Platform::start_with_http(authority, twin.http).await;
    platform.configure_certman("workers = 16");
    platform.configure_authority(
        "limits = \"letsencrypt\"\noverrides = { new_orders = { burst = 20, count = 10, period_seconds = 1 } }",
    );
    let onboard = |platform: &Platform, list: &str, more: &[&str]| {
        let upstream = format!("http://{}", platform.upstream);
        let begin = ["--json", "site", "onboard", list, "--batch", "50", "--upstream", &upstream, "--pool", POOL];
        platform.certctl(&[&begin, more].concat())
    };
    let list = |name: &str, count: usize, broken: &[usize]| {
        let mut text = "# new customers\n".to_owned();
        for number in 0..count {
            let site = format!("www.{name}-{number}.test");
            twin.break_dns(&site, broken.contains(&number));
            writeln!(text, "{}", if number % 2 == 0 { site } else { json!({ "site": site }).to_string() }).unwrap();
        }
        let path = platform.pki(&format!("{name}.txt"));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };

    let good = list("good", 60, &[7, 20, 59]);
    let plan = answer(&onboard(&platform, &good, &["--plan"]));
    assert_eq!(column(&plan, "sites"), [10, 50]);
    assert_eq!((column(&plan, "active"), plan["onboarding"]["missing"].as_u64()), (vec![10, 50], Some(0)));
    assert!(twin.log().is_empty(), "a plan places no order");
    let ran = answer(&onboard(&platform, &good, &[]));
    assert_eq!(
        (column(&ran, "sites"), column(&ran, "active"), column(&ran, "failing")),
        (vec![10, 50], vec![9, 48], vec![1, 2])
    );
    let failing: Vec<&String> = ran["failing"].as_object().unwrap().keys().collect();
    assert_eq!(failing, ["www.good-20.test", "www.good-59.test", "www.good-7.test"]);
    assert!(ran["failing"]["www.good-7.test"].as_str().unwrap().contains("www.good-7.test"), "{ran}");

    let bad = list("bad", 30, &[1, 4, 8]);
    let output = onboard(&platform, &bad, &[]);
    let (ran, said) = (answer(&output), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), column(&ran, "sites"), ran["left"].as_u64()), (Some(1), vec![10], Some(20)));
    assert!(said.contains("stopped with 20 sites left") && said.contains("of 10 sites of the step fail"), "{said}");
    let certman = platform.certman_as("platform");
    assert!(certman.site(&"www.bad-10.test".parse().unwrap()).await.unwrap().is_none(), "the second step was begun");

    // The cause is gone: the same command tries those that failed once more, and goes on.
    list("bad", 30, &[]);
    let output = onboard(&platform, &bad, &[]);
    let ran = answer(&output);
    assert_eq!((column(&ran, "active"), ran["left"].as_u64()), (vec![10, 20], Some(0)), "{ran}");
    let other = answer(&onboard(&platform, &bad, &["--profile", "shortlived"]));
    assert!(other["failing"]["www.bad-0.test"].as_str().unwrap().contains("with other settings"), "{other}");
    let kept = certman.site(&"www.bad-0.test".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((kept.profile, kept.order), (None, None), "the site is as it was");
    assert!(output.status.success() && twin.refused().is_empty(), "{output:?} {:?}", twin.refused());

    // Somebody who is away takes patience, and is no failure of a site.
    platform.certman.kill();
    let output = onboard(&platform, &good, &["--patience", "3"]);
    let (ran, said) = (answer(&output), String::from_utf8_lossy(&output.stderr));
    assert_eq!((column(&ran, "failing"), column(&ran, "active"), ran["left"].as_u64()), (vec![0], vec![0], Some(50)));
    assert!(said.contains("no site got a certificate for 3 s") && said.contains("cannot reach"), "{said}");
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn column(answer: &Value, name: &str) -> Vec<u64> {
    answer["steps"].as_array().unwrap().iter().map(|step| step[name].as_u64().unwrap()).collect()
}
