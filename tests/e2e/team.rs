//! Two administrators over a platform, and its visitors.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use certseal_wire::{DnsName, Epoch};
use serde_json::Value;

use crate::{
    edge::{eventually, eventually_async},
    platform::{Authority, POOL, Platform},
    process::{program, run},
    tls_client::Connection,
};

/// alice, who has the identity `admin` and the security team's key, and bob, over a platform with sites.
pub struct Team {
    pub platform: Platform,
    pub sites: Vec<DnsName>,
    /// The root of the sites' certificates.
    pub root: PathBuf,
}

impl Team {
    pub async fn new(sites: usize) -> Self {
        let platform = Platform::start(Authority::Local).await;
        let root = platform.pki("local-ca.pem");
        let team = Self::over(platform, root);
        team.with_sites(sites).await
    }

    /// The two, over a platform whose certificates lead to `root`.
    pub fn over(platform: Platform, root: PathBuf) -> Self {
        let pki = platform.dir.path().join("pki");
        run(Command::new(program("certctl"))
            .args(["pki", "issue", "--role", "admin", "--name", "bob", "--dir"])
            .arg(pki));
        Self { platform, sites: Vec::new(), root }
    }

    /// With so many sites, all of them served.
    pub async fn with_sites(self, count: usize) -> Self {
        let platform = self.platform;
        let sites: Vec<DnsName> = (0..count).map(|n| format!("site-{n}.customers.test").parse().unwrap()).collect();
        for site in &sites {
            platform.add_site(site).await;
        }
        for site in &sites {
            platform.wait_active(site, 1).await;
        }
        for site in &sites {
            eventually(Duration::from_secs(5), || platform.curl(&self.root, site).status.success());
        }
        Self { platform, sites, ..self }
    }

    pub fn old_key(&self) -> String {
        self.platform.pki("eu-1.unseal.pem").to_str().unwrap().to_owned()
    }

    pub fn new_key(&self) -> String {
        self.platform.pki("eu-2.unseal.pem").to_str().unwrap().to_owned()
    }

    /// Proposes a rotation: its id, and the digest of its plan.
    pub fn plan(&self, more: &[&str]) -> (String, String) {
        let new_key = self.new_key();
        let args = ["keys", "rotate", "plan", "--pool", POOL, "--out", &new_key];
        let planned = self.json("admin", &self.with_security(&[args.as_slice(), more].concat()));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&planned["plan"]["id"]), text(&planned["digest"]))
    }

    pub fn with_security<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let path: &'static str = self.platform.pki("security.key").to_str().unwrap().to_owned().leak();
        [args, &["--security-key", path]].concat()
    }

    pub fn certctl(&self, identity: &str, args: &[&str]) -> Command {
        let runs = args.starts_with(&["keys", "rotate", "run"]);
        let args = if runs { self.with_security(args) } else { args.to_vec() };
        self.platform.certctl_as(identity, &args)
    }

    pub fn json(&self, identity: &str, args: &[&str]) -> Value {
        let output = self.certctl(identity, args).arg("--json").output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn refused(&self, identity: &str, args: &[&str]) -> String {
        let output = self.certctl(identity, args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn state(&self, id: &str) -> String {
        self.json("admin", &["keys", "rotate", "show", id])["state"].as_str().unwrap().to_owned()
    }

    pub fn edge_keys(&self) -> usize {
        self.json("admin", &["edges", "list"])["edges"][0]["keys"].as_array().unwrap().len()
    }

    pub async fn epochs(&self, site: &DnsName) -> Vec<Epoch> {
        let bundle = self.platform.bundle(site).await;
        bundle.sealed().envelope().unwrap().stanzas().iter().map(|stanza| stanza.epoch).collect()
    }
}

/// Visitors that connect to every site in turn, each with a full handshake, until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<[AtomicU64; 2]>,
    last_error: Arc<Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    pub fn start(platform: &Platform, sites: &[DnsName], root: &Path) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let last_error = Arc::new(Mutex::new(String::new()));
        let (address, root, sites) = (platform.addresses["https"], root.to_owned(), sites.to_vec());
        let (ended, counts, errors) = (stop.clone(), done.clone(), last_error.clone());
        let task = tokio::spawn(async move {
            for site in sites.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = Connection::open(address, site, &root).await;
                counts[usize::from(outcome.is_err())].fetch_add(1, Ordering::Relaxed);
                if let Err(error) = outcome {
                    *errors.lock().unwrap() = format!("{site}: {error:#}");
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { stop, done, last_error, task }
    }

    /// Goes on for another hundred handshakes, so that there are some after the last change however fast the machine is.
    /// Returns how many handshakes there were, and how many of them failed.
    pub async fn stop(self) -> (u64, u64) {
        let counts = || (self.done[0].load(Ordering::Relaxed), self.done[1].load(Ordering::Relaxed));
        let (good, bad) = counts();
        eventually_async("a hundred handshakes more", async || counts().0 + counts().1 >= good + bad + 100).await;
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
        let (good, bad) = counts();
        if bad > 0 {
            println!("last failed handshake: {}", self.last_error.lock().unwrap());
        }
        (good + bad, bad)
    }
}
