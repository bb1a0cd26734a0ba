//! This release takes over what the release before left, and works beside it while a platform is upgraded.
//!
//! Every run resumes a platform from the data of the release before, which `tests/golden` keeps. The programs of that
//! release are 500 MB and take minutes to build, so that they run only when asked for: `CERTSEAL_PREVIOUS_RELEASE=build`
//! builds them from Git's history under `target/previous`, and `CERTSEAL_PREVIOUS_RELEASE=DIR` takes them from there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use certseal_wire::{DnsName, Route, SiteRequest};

use crate::{
    edge::eventually_async,
    platform::Platform,
    process::{program, run},
};

/// The last commit of the release before.
const PREVIOUS: &str = "25ccc46329e828ecee670c6edf9e1d953979946e";

/// The archive that it left: the directory of a platform with `ours.customers.test` and `theirs.customers.test`.
const GOLDEN: &str = "tests/golden/release-1.tar.gz";

fn ours() -> DnsName {
    "ours.customers.test".parse().unwrap()
}

fn theirs() -> DnsName {
    "theirs.customers.test".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_goes_on_with_the_data_of_the_release_before() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    run(Command::new("tar").arg("-xzf").arg(golden).arg("-C").arg(dir.path()));
    // Identities are for a year. The signed and sealed files are the golden part.
    let pki = dir.path().join("pki");
    let kept = ["security.key", "security.pub", "issuer.key", "issuer.pub", "local-ca.pem", "local-ca.key"];
    let golden_keys = dir.path().join("golden-keys");
    fs::rename(&pki, &golden_keys).unwrap();
    run(Command::new(program("certctl")).args(["pki", "init", "--pool", "eu", "--pool", "us", "--dir"]).arg(&pki));
    for key in kept {
        fs::copy(golden_keys.join(key), pki.join(key)).unwrap();
    }
    let version: u64 = fs::read_to_string(dir.path().join("route-version")).unwrap().trim().parse().unwrap();

    let platform = Platform::resume(dir).await;
    let certman = platform.certman_as("platform");
    for name in [ours(), theirs()] {
        // The upstream of that time is gone; the certificate is there at once.
        let status = certman.site(&name).await.unwrap().unwrap();
        assert!(status.version >= 1, "{status:?}");
        let shown = platform.curl(&platform.pki("local-ca.pem"), &name);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    }
    let stored = platform.store_as("admin").route(&ours()).await.unwrap().unwrap();
    assert!(!stored.payload.0.starts_with(br#"{"format""#), "the route is of the first form");
    // A change makes it one of the second form, with the version that follows.
    let request =
        SiteRequest { names: certman.site(&ours()).await.unwrap().unwrap().names, ..platform.request(&ours()) };
    certman.put_site(&ours(), &request).await.unwrap();
    serves(&platform, &ours()).await;
    let stored = platform.store_as("admin").route(&ours()).await.unwrap().unwrap();
    let route: Route = serde_json::from_slice(&stored.payload.0).unwrap();
    assert_eq!((route.version, stored.payload.0.starts_with(br#"{"format":"2""#)), (version + 1, true));
    let new: DnsName = "new.customers.test".parse().unwrap();
    platform.add_site(&new).await;
    serves(&platform, &new).await;
}

/// The order of docs/compatibility.md: certstore, edges, certctl, certman; and certman back again.
#[tokio::test(flavor = "multi_thread")]
async fn daemons_of_two_releases_work_side_by_side() {
    let Some(previous) = previous_programs() else { return };
    let programs = ["certstore", "certedge", "certman"].map(|name| (name, previous.join(name)));
    let mut platform = Platform::start_of(BTreeMap::from(programs)).await;
    platform.certman.kill();
    let config = platform.dir.path().join("certman.toml");
    // For as long as the golden files are to be read.
    let text = fs::read_to_string(&config).unwrap() + "lifetime_seconds = 300000000\n";
    fs::write(&config, text).unwrap();
    platform.restart_certman();
    for name in [ours(), theirs()] {
        platform.add_site(&name).await;
        serves(&platform, &name).await;
    }
    if let Some(file) = std::env::var_os("CERTSEAL_WRITE_GOLDEN") {
        return keep(platform, Path::new(&file)).await;
    }

    let mut sites = vec![ours(), theirs()];
    for upgraded in ["certstore", "certedge", "certman"] {
        platform.other_programs.remove(upgraded);
        match upgraded {
            "certstore" => {
                platform.certstore.kill();
                platform.restart_certstore();
            }
            "certedge" => {
                platform.edge.kill();
                platform.restart_edge();
            }
            _ => {
                platform.certman.kill();
                platform.restart_certman();
            }
        }
        for (n, name) in sites.iter().enumerate() {
            // A change of each site's route, and the certificate again.
            let more: DnsName = format!("{}-{n}.{name}", upgraded).parse().unwrap();
            let names = vec![name.clone(), more.clone()].try_into().unwrap();
            let request = SiteRequest { names, ..platform.request(name) };
            platform.certman_as("platform").put_site(name, &request).await.unwrap();
            serves(&platform, &more).await;
            serves(&platform, name).await;
        }
        let new: DnsName = format!("new-with-{upgraded}.customers.test").parse().unwrap();
        platform.add_site(&new).await;
        serves(&platform, &new).await;
        sites.push(new);
    }

    // An edge of the release before does not know the second form: it keeps what it had, and says so.
    let old_edge: PathBuf = previous.join("certedge");
    platform.edge.kill();
    fs::remove_dir_all(platform.dir.path().join("mirror")).unwrap();
    platform.other_programs.insert("certedge", old_edge);
    platform.restart_edge();
    eventually_async("refused routes", async || platform.edge_gauge("certedge_refused_items") >= sites.len() as f64)
        .await;
    // The control, and the way back: this release reads them again.
    platform.edge.kill();
    platform.other_programs.clear();
    platform.restart_edge();
    for name in &sites {
        serves(&platform, name).await;
    }
}

/// Waits until the edge serves a site's upstream over HTTPS.
async fn serves(platform: &Platform, name: &DnsName) {
    let roots = platform.pki("local-ca.pem");
    eventually_async(&format!("{name} is served"), async || platform.curl(&roots, name).status.success()).await;
}

/// Where the programs of the release before are, if they are asked for.
fn previous_programs() -> Option<PathBuf> {
    let wish = std::env::var("CERTSEAL_PREVIOUS_RELEASE").ok()?;
    if wish != "build" {
        return Some(wish.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let previous = root.join("target/previous");
    fs::create_dir_all(&previous).unwrap();
    let source = format!("git archive {PREVIOUS} | tar -x -C target/previous");
    run(Command::new("sh").args(["-c", &source]).current_dir(root));
    let target = previous.join("target");
    run(Command::new(env!("CARGO"))
        .args(["build", "--workspace", "--bins", "--locked"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(&previous));
    Some(target.join("debug"))
}

/// Keeps a platform's directory, with the version of a route beside it.
async fn keep(mut platform: Platform, file: &Path) {
    let stored = platform.store_as("admin").route(&ours()).await.unwrap().unwrap();
    let route: serde_json::Value = serde_json::from_slice(&stored.payload.0).unwrap();
    fs::write(platform.dir.path().join("route-version"), route["version"].to_string()).unwrap();
    // A checkpoint, and the edge's look at it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for daemon in [&mut platform.edge, &mut platform.certman, &mut platform.certstore] {
        daemon.signal("TERM");
        daemon.wait(Duration::from_secs(20));
    }
    let parts = ["pki", "unseal-keys", "certstore", "certman", "mirror", "route-version"];
    run(Command::new("tar").arg("-czf").arg(file).arg("-C").arg(platform.dir.path()).args(parts));
}
