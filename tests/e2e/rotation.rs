//! Rotations of an unseal key on a running platform, by two people.

use std::{fs, process::Stdio, time::Duration};

use certseal_wire::{DnsName, Epoch};

use crate::{
    edge::eventually,
    platform::POOL,
    team::{Load, Team},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unseal_key_is_replaced_by_two_people_while_no_handshake_fails() {
    let team = Team::new(20).await;
    let load = Load::start(&team.platform, &team.sites, &team.root);
    let (id, digest) = team.plan(&[]);
    let (id, digest) = (id.as_str(), digest.as_str());

    // Neither alone, nor before the other has agreed, nor for another plan.
    let run_args = ["keys", "rotate", "run", id, "--unseal-key", &team.old_key(), "--timeout", "60"];
    assert!(team.refused("admin", &run_args).contains("waits for the approval of another admin"));
    assert!(team.refused("admin", &["keys", "rotate", "approve", id, "--digest", digest]).contains("another admin"));
    let other_digest = "0".repeat(64);
    let wrong = team.refused("bob", &["keys", "rotate", "approve", id, "--digest", &other_digest]);
    assert!(wrong.contains("look at it"), "{wrong}");
    team.json("bob", &["keys", "rotate", "approve", id, "--digest", digest]);

    // The edge does not have the new key yet: the run waits, is killed, and goes on where it was.
    let mut waiting = team.certctl("admin", &run_args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually(Duration::from_secs(20), || team.state(id) == "announced");
    std::thread::sleep(Duration::from_millis(300));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!(team.state(id), "announced");
    fs::copy(team.new_key(), team.platform.dir.path().join("unseal-keys/2.key")).unwrap();
    assert_eq!(team.json("admin", &run_args)["state"], "active");
    assert_eq!(team.json("admin", &run_args)["state"], "active", "once more changes nothing");

    // A site that comes now may still be sealed to the old key, as certman knew it: the run is for those too.
    let late: DnsName = "late.customers.test".parse().unwrap();
    team.platform.add_site(&late).await;
    team.platform.wait_active(&late, 1).await;
    assert_eq!(team.json("admin", &run_args)["state"], "active");
    assert!(team.epochs(&late).await.contains(&Epoch(2)));

    let verify = ["keys", "rotate", "verify", id, "--unseal-key"];
    let with_old = team.refused("admin", &[verify.as_slice(), &[&team.old_key()]].concat());
    assert!(with_old.contains("nothing is proved"), "{with_old}");
    assert!(team.refused("admin", &team.with_security(&["keys", "rotate", "retire", id])).contains("verify it first"));
    assert_eq!(team.json("admin", &[verify.as_slice(), &[&team.new_key()]].concat())["state"], "verified");
    assert_eq!(team.epochs(&team.sites[0]).await, [Epoch(1), Epoch(2)]);

    let retired = team.json("admin", &team.with_security(&["keys", "rotate", "retire", id]));
    assert_eq!(retired["state"], "retired");
    assert_eq!(team.epochs(&team.sites[0]).await, [Epoch(2)]);
    fs::remove_file(team.platform.dir.path().join("unseal-keys/1.key")).unwrap();
    eventually(Duration::from_secs(20), || team.edge_keys() == 1);

    // Everything opens with the new key alone, on the edge too.
    let drill = team.json("admin", &["drill", "unseal", "--pool", POOL, "--sample", "100"]);
    let classes = drill[0]["classes"].as_array().unwrap();
    assert_eq!((classes.len(), &classes[0]["epoch"], &classes[0]["opened"]), (1, &2.into(), &21.into()), "{drill}");
    let (handshakes, failed) = load.stop().await;
    assert_eq!(failed, 0, "{failed} of {handshakes} handshakes failed\n{}", team.platform.edge.log());
    let steps = retired["steps"].as_array().unwrap();
    let by = |n: usize| steps[n]["by"].as_str().unwrap();
    assert_eq!((steps.len(), by(0), by(1)), (6, "admin/admin-1", "admin/bob"), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_given_up_before_its_key_is_active_and_the_next_one_goes_on() {
    let team = Team::new(1).await;
    let (first, digest) = team.plan(&[]);
    team.json("bob", &["keys", "rotate", "approve", &first, "--digest", &digest]);
    let timed_out = team
        .certctl("admin", &["keys", "rotate", "run", &first, "--unseal-key", &team.old_key(), "--timeout", "1"])
        .output()
        .unwrap();
    assert_eq!(timed_out.status.code(), Some(3), "{timed_out:?}");
    let aborted = team.json("admin", &team.with_security(&["keys", "rotate", "abort", &first]));
    assert_eq!(aborted["state"], "aborted");
    fs::remove_file(team.new_key()).unwrap();
    let (second, _) = team.plan(&[]);
    let shown = team.json("admin", &["keys", "rotate", "show", &second]);
    assert_eq!((&shown["plan"]["to"]["epoch"], &shown["plan"]["from"]), (&3.into(), &vec![1].into()));
    assert_eq!(team.json("admin", &["keys", "rotate", "show"]).as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_counts_from_when_it_is_added_until_it_is_removed() {
    let team = Team::new(1).await;
    let other = team.platform.pki("security.pub");
    let added = team.with_security(&["keys", "issuers", "add", "--public", other.to_str().unwrap()]);
    let issuers = team.json("admin", &added)["issuers"].as_array().unwrap().clone();
    assert_eq!(issuers.len(), 2);
    // Without certman's own, nothing that it signed counts any more, on edges that serve it neither.
    let certmans = issuers[0]["id"].as_str().unwrap();
    let ring = team.json("admin", &team.with_security(&["keys", "issuers", "remove", certmans]));
    assert_eq!(ring["issuers"].as_array().unwrap().len(), 1);
    let root = team.platform.pki("local-ca.pem");
    eventually(Duration::from_secs(10), || !team.platform.curl(&root, &team.sites[0]).status.success());
    let again = team.certctl("admin", &team.with_security(&["keys", "issuers", "remove", certmans])).output().unwrap();
    assert_eq!(again.status.code(), Some(4), "{again:?}");
}
