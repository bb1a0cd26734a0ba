//! `certedge --signer separate`: the process that talks to the network never holds a key.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use certseal_wire::DnsName;

use crate::{
    canary::{Canary, memory, needles},
    edge::{eventually, with_one_site},
    platform::Platform,
    process::{Process, program, run},
    tls_client::Connection,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_talks_to_the_network_holds_neither_the_unseal_key_nor_a_tls_key() {
    let (mut platform, _) = with_one_site().await;
    start_separate(&mut platform);
    let name: DnsName = "canary.customers.test".parse().unwrap();
    let canary = Canary::generate();
    canary.put_through(&platform, &name).await;
    let roots = platform.pki("local-ca.pem");
    // In use before, during and after the search.
    let mut connection = Connection::open(platform.addresses["https"], &name, &roots).await.unwrap();
    for _ in 0..20 {
        Connection::open(platform.addresses["https"], &name, &roots).await.unwrap().get().await.unwrap();
    }
    let unseal_key = pem::parse(fs::read(platform.pki("eu-1.unseal.pem")).unwrap()).unwrap();
    let scalar: [u8; 32] = *unseal_key.contents().last_chunk().unwrap();
    let secrets = [("the TLS key", canary.needles.clone()), ("the unseal key", needles(&scalar))];
    let found_in = |pid: u32| {
        let (mut found, mut searched) = (Vec::new(), 0);
        for region in memory(pid) {
            searched += region.len();
            for (what, needles) in &secrets {
                let hit = needles.iter().find(|(_, needle)| memchr::memmem::find(&region, needle).is_some());
                found.extend(hit.map(|(form, _)| format!("{what}, {form}")));
            }
        }
        assert!(searched > 1 << 20, "only {searched} octets of memory could be read");
        found
    };
    assert_eq!(found_in(platform.edge.pid()), [""; 0], "in the process that talks to the network");
    // The control: the same search finds both in the signer.
    let found = found_in(signer_of(&platform.edge));
    for (what, _) in &secrets {
        assert!(found.iter().any(|form| form.starts_with(what)), "{what} was not found in the signer: {found:?}");
    }
    connection.get().await.unwrap();

    // Nor does it keep one of their files open.
    let keys = platform.dir.path().join("unseal-keys");
    let opened = fs::read_dir(format!("/proc/{}/fd", platform.edge.pid())).unwrap();
    let paths = opened.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    assert_eq!(paths.filter(|path| path.starts_with(&keys)).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_is_killed_under_load_is_missed_by_new_handshakes_only_and_not_for_long() {
    let (mut platform, name) = with_one_site().await;
    start_separate(&mut platform);
    let (address, roots) = (platform.addresses["https"], platform.pki("local-ca.pem"));
    let session = platform.dir.path().join("session.pem");
    let mut established = Connection::open(address, &name, &roots).await.unwrap();
    established.get().await.unwrap();

    // A visitor who comes again resumes with a ticket.
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            name.as_str(),
            "-tls1_2",
            "-CAfile",
        ]);
        command.arg(&roots).args(args).stdin(std::process::Stdio::null()).output().unwrap()
    };
    assert!(openssl(&["-sess_out", session.to_str().unwrap()]).status.success());

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done, name, roots) = (stop.clone(), done.clone(), name.clone(), roots.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match Connection::open(address, &name, &roots).await {
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => failed.push(Instant::now()),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                failed
            })
        })
        .collect();
    let wait_for_more = |count: u32| {
        let before = done.load(Ordering::Relaxed);
        eventually(Duration::from_secs(10), || done.load(Ordering::Relaxed) >= before + count);
    };
    tokio::task::block_in_place(|| wait_for_more(50));

    let first = signer_of(&platform.edge);
    let killed = Instant::now();
    run(Command::new("kill").args(["-KILL", &first.to_string()]));
    established.get().await.unwrap();
    let resumed = openssl(&["-sess_in", session.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&resumed.stdout).contains("Reused, TLSv1.2"), "{resumed:?}");
    tokio::task::block_in_place(|| wait_for_more(50));
    let second = signer_of(&platform.edge);
    assert_ne!(first, second);

    // One that does not answer at all: nobody waits for it but new handshakes, and the others go on.
    run(Command::new("kill").args(["-STOP", &second.to_string()]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    established.get().await.unwrap();
    let resumed = openssl(&["-sess_in", session.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&resumed.stdout).contains("Reused, TLSv1.2"), "{resumed:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    tokio::task::block_in_place(|| {
        eventually(Duration::from_secs(20), || platform.edge_gauge("certedge_signer_reached") == 0.0);
    });
    assert!(!platform.is_ready("edge-telemetry"));
    run(Command::new("kill").args(["-CONT", &second.to_string()]));
    tokio::task::block_in_place(|| {
        eventually(Duration::from_secs(20), || platform.is_ready("edge-telemetry"));
        wait_for_more(100);
    });
    let well = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    for visitor in load {
        failed.extend(visitor.await.unwrap());
    }
    let of_kill = failed.iter().filter(|at| **at < begun).map(|at| at.duration_since(killed)).max();
    assert!(of_kill.is_none_or(|last| last < Duration::from_secs(3)), "handshakes failed for {of_kill:?}");
    assert!(failed.iter().all(|at| *at > killed && *at < well), "{}", platform.edge.log());
    assert_eq!(platform.edge_gauge("certedge_signer_reached"), 1.0);

    // News that came while nobody could try it is not lost, and a refusal is not remembered.
    let other: DnsName = "later.customers.test".parse().unwrap();
    run(Command::new("kill").args(["-STOP", &signer_of(&platform.edge).to_string()]));
    platform.add_site(&other).await;
    platform.wait_active(&other, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    run(Command::new("kill").args(["-CONT", &signer_of(&platform.edge).to_string()]));
    eventually(Duration::from_secs(40), || platform.curl(&roots, &other).status.success());
    assert!(!platform.edge.log().contains("refused an item"), "{}", platform.edge.log());

    // The signer does not outlive the edge, however that ends.
    let last = signer_of(&platform.edge);
    platform.edge.kill();
    eventually(Duration::from_secs(5), || !is_running(last));
}

/// With a signer that was started apart: the edge starts without it, says so, and goes on when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_starts_without_its_signer_and_hears_of_its_keys() {
    let (mut platform, name) = with_one_site().await;
    let (config, roots) = (platform.dir.path().join("certedge.toml"), platform.pki("local-ca.pem"));
    let socket = platform.dir.path().join("run/signer.sock");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[signer]\nsocket = {socket:?}\n")).unwrap();
    start_with(&mut platform, "external");
    assert!(!platform.curl(&roots, &name).status.success() && !platform.is_ready("edge-telemetry"));
    let start = || {
        let mut command = Command::new(program("certedge"));
        command.arg("signer").arg("--config").arg(&config);
        Process::start(&mut command, &platform.dir.path().join("signer.log"))
    };
    let mut signer = start();
    eventually(Duration::from_secs(10), || platform.is_ready("edge-telemetry"));
    assert!(platform.curl(&roots, &name).status.success(), "{}\n{}", platform.edge.log(), signer.log());

    // Keys that come and go there are what the edge reports: a rotation waits for that.
    let place = platform.dir.path().join("unseal-keys/1.key");
    fs::remove_file(&place).unwrap();
    fs::copy(platform.pki("eu-1.unseal.pem"), &place).unwrap();
    eventually(Duration::from_secs(15), || signer.log().contains("unseal keys were loaded again"));
    assert!(platform.curl(&roots, &name).status.success());

    // A second signer does not take its socket away; one after it replaces the file that it leaves behind.
    let mut second = start();
    assert!(!second.wait(Duration::from_secs(10)).success());
    signer.kill();
    assert!(!platform.curl(&roots, &name).status.success());
    let _third = start();
    eventually(Duration::from_secs(10), || platform.curl(&roots, &name).status.success());
}

fn start_separate(platform: &mut Platform) {
    start_with(platform, "separate");
}

fn start_with(platform: &mut Platform, signer: &str) {
    platform.edge.kill();
    let mut command = Command::new(program("certedge"));
    command.arg("--config").arg(platform.dir.path().join("certedge.toml")).args(["--signer", signer]);
    platform.edge = Process::start(&mut command, &platform.dir.path().join(format!("certedge-{signer}.log")));
    platform.edge.wait_for(platform.addresses["https"]);
}

/// The process that the edge has started, once it is there.
fn signer_of(edge: &Process) -> u32 {
    let begun = Instant::now();
    loop {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut children =
            pids.filter(|pid| stat(*pid).is_some_and(|(state, parent)| parent == edge.pid() && state != "Z"));
        if let Some(pid) = children.next() {
            return pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no signer; the edge's log:\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
