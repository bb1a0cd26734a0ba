//! A journal with many sites: how long certman takes to begin, how much memory it takes, and what a look at the queue costs.
//!
//! `CERTSEAL_JOURNAL_SITES=1000000 cargo test --release -p certman --lib scale -- --nocapture` measures with so many, and
//! asks for the bars.

use std::{env, path::Path, process::Command, time::Instant};

use certseal_issuance::{AccountRef, Advice, AuthorityId, Issued, Lineage, Window};
use certseal_wire::{NameSet, SiteRequest};

use super::*;

#[test]
fn a_journal_with_many_sites_opens_at_once_and_a_look_at_its_queue_costs_as_much_as_with_few() {
    if let Some(dir) = env::var_os("CERTSEAL_JOURNAL_DIR") {
        return measure(Path::new(&dir));
    }
    let asked = env::var("CERTSEAL_JOURNAL_SITES").ok().map(|count| count.parse::<u32>().unwrap());
    let many = asked.unwrap_or(10_000);
    let [few, many] = [1_000, many].map(|sites| {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), sites);
        // The engine goes through what was written since it was opened the last time: everything, the first time.
        let first = in_a_process_of_its_own(dir.path());
        let measured = in_a_process_of_its_own(dir.path());
        println!("{sites} sites: {measured:?}; {:.0} ms after all of them were written", first.start_ms);
        measured
    });
    assert_eq!((few.due, many.due), (DUE, DUE));
    if asked.is_some() {
        assert!(many.start_ms < 1_000.0 && many.memory_mib < 512.0, "{many:?}");
        // Noise of any size, and not what a scan of all would cost.
        assert!(many.look_us < 3.0 * few.look_us, "{few:?} {many:?}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// From the start of opening until the first look at the queue is done.
    start_ms: f64,
    /// A look for the next sixteen sites, with their records.
    look_us: f64,
    /// What the process has in memory then, with all else that a test program has.
    memory_mib: f64,
    due: usize,
}

fn measure(dir: &Path) {
    let began = Instant::now();
    let journal = Journal::open(dir).unwrap();
    journal.begin_changes(now()).unwrap();
    let mut turns = Turns::default();
    let mut look = |limit| {
        let due = journal.due(now(), limit, &mut turns, |_| true).unwrap();
        due.iter().for_each(|place| drop(journal.read(&place.site).unwrap().unwrap()));
        due.len()
    };
    look(16);
    let start_ms = began.elapsed().as_secs_f64() * 1e3;
    let began = Instant::now();
    let looked: usize = (0..LOOKS).map(|_| look(16)).sum();
    assert_eq!(looked, 16 * LOOKS as usize);
    let look_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKS);
    let due = look(usize::MAX);
    let pages: f64 = {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let measured = Measured { start_ms, look_us, memory_mib: pages * 4096.0 / 1048576.0, due };
    println!("measured {}", serde_json::to_string(&measured).unwrap());
}

fn in_a_process_of_its_own(dir: &Path) -> Measured {
    let output = Command::new(env::current_exe().unwrap())
        .args(["a_journal_with_many_sites", "--nocapture"])
        .env("CERTSEAL_JOURNAL_DIR", dir)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("measured ")).unwrap_or_else(|| panic!("{said}"));
    serde_json::from_str(line.1).unwrap()
}

/// Sites with certificates, of which a hundred are due.
fn fill(dir: &Path, sites: u32) {
    let journal = Journal::open(dir).unwrap();
    let account =
        AccountRef { authority: AuthorityId("https://ca.example/directory".into()), thumbprint: Some("print".into()) };
    let mut writes = Vec::new();
    for number in 0..sites {
        let name: DnsName = format!("www.shop-{number}.example").parse().unwrap();
        let request = SiteRequest {
            owner: Some("tenant-7".into()),
            ..SiteRequest::new(
                NameSet::try_from(vec![name.clone()]).unwrap(),
                "http://127.0.0.1:1".parse().unwrap(),
                vec!["eu".parse().unwrap()],
            )
        };
        let is_due = number % (sites / DUE as u32) == 0;
        let renew_at = if is_due { now() } else { now() + SignedDuration::from_hours(24 + i64::from(number % 1_000)) };
        let not_after = renew_at + SignedDuration::from_hours(30 * 24);
        let site = Site {
            route_stored: true,
            order: None,
            bundle_version: 3,
            account: Some(account.clone()),
            certificate: Some(Issued {
                authority: "CN=The twin's root".into(),
                ordered_from: Some(account.authority.clone()),
                names: Some(request.names.clone()),
                not_before: Some(not_after - SignedDuration::from_hours(90 * 24)),
                not_after,
                renew_at,
                lineage: Some(Lineage {
                    account: account.clone(),
                    id: format!("AAAA.{number:032}"),
                    is_replaced: false,
                }),
                advice: Advice {
                    window: Window::new(renew_at, not_after),
                    explanation: None,
                    ask_at: (!is_due).then_some(renew_at),
                },
                is_put_forward: false,
            }),
            ..Site::new(name, request)
        };
        writes.extend(journal.writes(None, &site, Writer::Request, &[]).unwrap().unwrap().0);
        if writes.len() > 900 || number + 1 == sites {
            assert!(journal.committed(std::mem::take(&mut writes)).unwrap());
        }
    }
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

const DUE: usize = 100;
const LOOKS: u32 = 200;
