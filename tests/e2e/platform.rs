//! A platform of real daemons in a temporary directory, set up as `README.md` says for setting up by hand.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use certseal_ceremonies::pki;
use certseal_client::{CertmanClient, Connection, StoreClient};
use certseal_seal::Bundle;
use certseal_service::Shutdown;
use certseal_wire::{DnsName, Event, FeedQuery, NameSet, SiteRequest, SiteState, SiteStatus};
use tempfile::TempDir;

use crate::{
    postgres::Database,
    process::{Process, free_address, program, run},
};

/// The signer of the certificates.
pub enum Authority<'a> {
    Local,
    Acme { directory: &'a str, roots: &'a Path },
}

pub struct Platform {
    pub certstore: Process,
    pub certman: Process,
    pub edge: Process,
    pub addresses: BTreeMap<&'static str, SocketAddr>,
    pub upstream: SocketAddr,
    pub dir: TempDir,
    /// Where the daemons' programs are, when they are not those of this release.
    pub other_programs: BTreeMap<&'static str, PathBuf>,
    _upstream: certseal_service::ShutdownHandle,
    /// Where certstore keeps its data, when that is not a directory. Ended after the daemons.
    pub database: Option<Database>,
}

pub const POOL: &str = "eu";

impl Platform {
    pub async fn start(authority: Authority<'_>) -> Self {
        Self::start_at(authority, own_addresses(), None).await
    }

    /// Like `start`, with other programs for some of the daemons.
    pub async fn start_of(programs: BTreeMap<&'static str, PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        init_pki(dir.path());
        Self::start_in(dir, Authority::Local, own_addresses(), None, programs, true).await
    }

    /// The platform that was in `dir` before, with its keys and data and with other addresses.
    pub async fn resume(dir: TempDir) -> Self {
        Self::start_in(dir, Authority::Local, own_addresses(), None, BTreeMap::new(), false).await
    }

    /// Like `start`, with certstore's data in a PostgreSQL database. certman and the edge also know the address
    /// `store-b`, where nobody listens yet.
    pub async fn start_on(database: Database) -> Self {
        let names = ["store", "store-b", "store-telemetry", "man", "man-telemetry", "https", "http", "edge-telemetry"];
        let addresses = names.map(|name| (name, free_address())).into();
        Self::start_at(Authority::Local, addresses, Some(database)).await
    }

    /// Like `start`, with the edge's HTTP side at `http`, where the CA will look for it.
    pub async fn start_with_http(authority: Authority<'_>, http: SocketAddr) -> Self {
        let names = ["store", "store-telemetry", "man", "man-telemetry", "https", "edge-telemetry"];
        let mut addresses: BTreeMap<_, _> = names.map(|name| (name, free_address())).into();
        addresses.insert("http", http);
        Self::start_at(authority, addresses, None).await
    }

    /// Like `start`, with the edge's HTTPS side at `https`, where the CA will look for it.
    pub async fn start_with_https(authority: Authority<'_>, https: SocketAddr) -> Self {
        let mut addresses = own_addresses();
        addresses.insert("https", https);
        Self::start_at(authority, addresses, None).await
    }

    async fn start_at(
        authority: Authority<'_>,
        addresses: BTreeMap<&'static str, SocketAddr>,
        database: Option<Database>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        init_pki(dir.path());
        Self::start_in(dir, authority, addresses, database, BTreeMap::new(), true).await
    }

    async fn start_in(
        dir: TempDir,
        authority: Authority<'_>,
        addresses: BTreeMap<&'static str, SocketAddr>,
        database: Option<Database>,
        other_programs: BTreeMap<&'static str, PathBuf>,
        is_new: bool,
    ) -> Self {
        write_configs(dir.path(), &addresses, &authority, database.as_ref());
        let daemon = |name| daemon(dir.path(), name, &other_programs);
        let mut certstore = daemon("certstore");
        certstore.wait_for(addresses["store"]);
        if is_new {
            first_keys(dir.path(), &addresses);
        }
        let mut certman = daemon("certman");
        certman.wait_for(addresses["man"]);
        let mut edge = daemon("certedge");
        edge.wait_for(addresses["https"]);
        edge.wait_for(addresses["edge-telemetry"]);
        let (handle, shutdown) = Shutdown::new();
        let upstream = certseal::upstream::start(shutdown).await.unwrap();
        Self { certstore, certman, edge, addresses, upstream, dir, other_programs, _upstream: handle, database }
    }

    pub fn restart_certman(&mut self) {
        self.certman = daemon(self.dir.path(), "certman", &self.other_programs);
        self.certman.wait_for(self.addresses["man"]);
    }

    pub fn restart_certstore(&mut self) {
        self.certstore = daemon(self.dir.path(), "certstore", &self.other_programs);
        self.certstore.wait_for(self.addresses["store"]);
    }

    pub fn restart_edge(&mut self) {
        self.edge = daemon(self.dir.path(), "certedge", &self.other_programs);
        self.edge.wait_for(self.addresses["https"]);
        self.edge.wait_for(self.addresses["edge-telemetry"]);
    }

    /// Restarts certstore with other lines in its configuration, put before its first table.
    pub fn configure_certstore(&mut self, lines: &str) {
        self.certstore.kill();
        let config = self.dir.path().join("certstore.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("[tls]", &format!("{lines}\n[tls]"))).unwrap();
        self.restart_certstore();
    }

    /// Restarts certman with other lines in its configuration, put before its first table.
    pub fn configure_certman(&mut self, lines: &str) {
        self.edit_certman(|text| text.replace("[tls]", &format!("{lines}\n[tls]")));
    }

    /// Restarts certman with further lines at the end of its configuration, which is the section of its CA.
    pub fn configure_authority(&mut self, lines: &str) {
        self.edit_certman(|text| format!("{text}{lines}\n"));
    }

    /// Restarts certman with its configuration changed.
    pub fn edit_certman(&mut self, edit: impl Fn(String) -> String) {
        self.certman.kill();
        let config = self.dir.path().join("certman.toml");
        fs::write(&config, edit(fs::read_to_string(&config).unwrap())).unwrap();
        self.restart_certman();
    }

    /// Restarts the edge with its mirror and its configuration changed.
    pub fn edit_edge(&mut self, edit: impl Fn(String) -> String) {
        self.edge.kill();
        let config = self.dir.path().join("certedge.toml");
        fs::write(&config, edit(fs::read_to_string(&config).unwrap())).unwrap();
        self.restart_edge();
    }

    /// Restarts certstore with another identity.
    pub fn identify_certstore_as(&mut self, name: &str) {
        self.certstore.kill();
        let config = self.dir.path().join("certstore.toml");
        let text = fs::read_to_string(&config).unwrap();
        let text =
            text.replace("certstore.pem", &format!("{name}.pem")).replace("certstore.key", &format!("{name}.key"));
        fs::write(&config, text).unwrap();
        self.restart_certstore();
    }

    /// Restarts the edge with its mirror, towards the store at `address`.
    pub fn lead_edge_to(&mut self, address: SocketAddr) {
        self.edge.kill();
        let config = self.dir.path().join("certedge.toml");
        let text = fs::read_to_string(&config).unwrap();
        let old = text.lines().find(|line| line.starts_with("url = ")).unwrap();
        fs::write(&config, text.replace(old, &format!("url = \"https://{address}\""))).unwrap();
        self.restart_edge();
    }

    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.path().join("pki").join(file)
    }

    pub fn certctl(&self, args: &[&str]) -> Output {
        self.certctl_command(args).output().unwrap()
    }

    pub fn certctl_command(&self, args: &[&str]) -> Command {
        self.certctl_as("admin", args)
    }

    pub fn certctl_as(&self, identity: &str, args: &[&str]) -> Command {
        certctl_command(self.dir.path(), &self.addresses, identity, args)
    }

    /// certstore, as one of the identities in the PKI.
    pub fn store_as(&self, identity: &str) -> StoreClient {
        StoreClient::new(self.connection(identity, "store"))
    }

    /// All that certstore hands out to this identity: a snapshot, and what came after it.
    pub async fn snapshot_as(&self, identity: &str) -> Vec<Event> {
        let store = self.store_as(identity);
        let mut events = Vec::new();
        let snapshot = store.snapshot().await.unwrap();
        for segment in snapshot.segments {
            events.extend(store.segment(&segment).await.unwrap());
        }
        let mut query = FeedQuery { after: Some(snapshot.cursor), limit: None, wait: Some(0) };
        loop {
            let page = store.feed(&query).await.unwrap();
            events.extend(page.events);
            query.after = Some(page.cursor);
            if page.end {
                return events;
            }
        }
    }

    pub fn certman_as(&self, identity: &str) -> CertmanClient {
        CertmanClient::new(self.connection(identity, "man"))
    }

    fn connection(&self, identity: &str, daemon: &str) -> Connection {
        let name = if daemon == "man" { "certman" } else { "certstore" };
        let tls = pki::tls_files(&self.dir.path().join("pki"), identity).client_config(&[name]).unwrap();
        Connection::new(format!("https://{}", self.addresses[daemon]).parse().unwrap(), tls)
    }

    /// The certstores at some of the addresses, as one of the identities in the PKI.
    pub fn stores_as(&self, identity: &str, at: &[&str]) -> StoreClient {
        let tls = pki::tls_files(&self.dir.path().join("pki"), identity).client_config(&["certstore"]).unwrap();
        StoreClient::new(Connection::new(origins(at.iter().map(|name| self.addresses[name])).parse().unwrap(), tls))
    }

    /// The bundle that certstore has for a site.
    pub async fn bundle(&self, site: &DnsName) -> Bundle {
        Bundle::parse(&self.store_as("admin").bundle(site).await.unwrap().unwrap()).unwrap()
    }

    pub fn request(&self, name: &DnsName) -> SiteRequest {
        SiteRequest::new(
            NameSet::try_from(vec![name.clone()]).unwrap(),
            format!("http://{}", self.upstream).parse().unwrap(),
            vec![POOL.parse().unwrap()],
        )
    }

    pub async fn add_site(&self, name: &DnsName) -> SiteStatus {
        self.certman_as("platform").put_site(name, &self.request(name)).await.unwrap()
    }

    /// Waits until the site has a certificate of at least `version` and no order under way.
    pub async fn wait_active(&self, name: &DnsName, version: u64) -> SiteStatus {
        let certman = self.certman_as("platform");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = certman.site(name).await.ok().flatten();
            if let Some(status) = status.as_ref().filter(|status| {
                status.state == SiteState::Active && status.version >= version && status.order.is_none()
            }) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "{name} is {status:?}\n{}", self.certman.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// curl, which does its TLS with OpenSSL.
    pub fn curl(&self, roots: &Path, name: &DnsName) -> Output {
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert"])
            .arg(roots)
            .args(["--connect-to", &format!("::{}", self.addresses["https"]), &format!("https://{name}/")])
            .output()
            .unwrap()
    }

    /// The plain HTTP side of the edge: status line and body.
    pub fn http(&self, host: &str, path: &str) -> String {
        let url = format!("http://{}{path}", self.addresses["http"]);
        let output =
            run(Command::new("curl").args(["-s", "-i", "--noproxy", "*", "-H", &format!("Host: {host}"), &url]));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn metrics(&self, telemetry: &str) -> String {
        let url = format!("http://{}/metrics", self.addresses[telemetry]);
        String::from_utf8(run(Command::new("curl").args(["-sf", "--noproxy", "*", &url])).stdout).unwrap()
    }

    pub fn is_ready(&self, telemetry: &str) -> bool {
        let url = format!("http://{}/health/ready", self.addresses[telemetry]);
        Command::new("curl").args(["-sf", "--noproxy", "*", &url]).output().unwrap().status.success()
    }

    /// One gauge of the edge.
    pub fn edge_gauge(&self, name: &str) -> f64 {
        self.metric("edge-telemetry", name)
    }

    /// One counter of certman.
    pub fn certman_counter(&self, name: &str) -> f64 {
        self.metric("man-telemetry", name)
    }

    /// Waits until certman has issued so many certificates since it was started.
    pub async fn wait_certificates(&self, count: u32) {
        let deadline = Instant::now() + Duration::from_secs(60 + u64::from(count));
        while self.certman_counter("certman_certificates_total") < f64::from(count) {
            assert!(Instant::now() < deadline, "{}", self.certman.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn metric(&self, telemetry: &str, name: &str) -> f64 {
        let metrics = self.metrics(telemetry);
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }
}

/// Identities and keys for every part.
fn init_pki(dir: &Path) {
    let pki = dir.join("pki");
    let pki = pki.to_str().unwrap();
    run(Command::new(program("certctl")).args(["pki", "init", "--pool", POOL, "--pool", "us", "--dir", pki]));
    run(Command::new(program("certctl")).args(["pki", "local-ca", "--dir", pki]));
}

/// The first unseal key of each pool, and the edge's copy of its own.
fn first_keys(dir: &Path, addresses: &BTreeMap<&str, SocketAddr>) {
    let pki = dir.join("pki");
    let (security, issuer) = (pki.join("security.key"), pki.join("issuer.pub"));
    for pool in [POOL, "us"] {
        let out = pki.join(format!("{pool}-1.unseal.pem"));
        run(certctl_command(dir, addresses, "admin", &["keys", "generate", "--pool", pool])
            .arg("--out")
            .arg(out)
            .arg("--security-key")
            .arg(&security)
            .arg("--issuer-public")
            .arg(&issuer));
    }
    let unseal_keys = dir.join("unseal-keys");
    fs::create_dir(&unseal_keys).unwrap();
    fs::copy(pki.join(format!("{POOL}-1.unseal.pem")), unseal_keys.join("1.key")).unwrap();
}

fn own_addresses() -> BTreeMap<&'static str, SocketAddr> {
    let names = ["store", "store-telemetry", "man", "man-telemetry", "https", "http", "edge-telemetry"];
    names.map(|name| (name, free_address())).into()
}

/// Starts a daemon with its configuration and log in `dir`.
pub fn daemon(dir: &Path, name: &str, other_programs: &BTreeMap<&str, PathBuf>) -> Process {
    let config = dir.join(format!("{name}.toml"));
    let program = other_programs.get(name).cloned().unwrap_or_else(|| program(name));
    Process::start(Command::new(program).arg("--config").arg(config), &dir.join(format!("{name}.log")))
}

fn certctl_command(dir: &Path, addresses: &BTreeMap<&str, SocketAddr>, identity: &str, args: &[&str]) -> Command {
    let pki = dir.join("pki");
    let mut command = Command::new(program("certctl"));
    command
        .args(args)
        .env("CERTCTL_STORE", format!("https://{}", addresses["store"]))
        .env("CERTCTL_CERTMAN", format!("https://{}", addresses["man"]))
        .env("CERTCTL_CA", pki.join("ca.pem"))
        .env("CERTCTL_CERT", pki.join(format!("{identity}.pem")))
        .env("CERTCTL_KEY", pki.join(format!("{identity}.key")))
        .env("CERTCTL_SECURITY_PUBLIC", pki.join("security.pub"))
        // Each operator has a memory of their own.
        .env("CERTCTL_STATE", dir.join(format!("state-{identity}")));
    command
}

/// The origins by which clients call the service at these addresses.
fn origins(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses.map(|address| format!("https://{address}")).collect::<Vec<_>>().join(", ")
}

/// Limits of an edge that fit into any machine's on open files.
pub const SMALL_EDGE: &str = "[limits]\nconnections = 1000\nrequests = 1000\nupgrades = 1000\n";

fn write_configs(
    dir: &Path,
    addresses: &BTreeMap<&str, SocketAddr>,
    authority: &Authority<'_>,
    database: Option<&Database>,
) {
    let pki = dir.join("pki");
    let pki = pki.to_str().unwrap();
    let at = |name: &str| addresses[name];
    let data = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let authority = match authority {
        Authority::Local => {
            format!("kind = \"local\"\ncertificate = \"{pki}/local-ca.pem\"\nkey = \"{pki}/local-ca.key\"\n")
        }
        Authority::Acme { directory, roots } => {
            format!("kind = \"acme\"\ndirectory = \"{directory}\"\nroots = \"{}\"\n", roots.display())
        }
    };
    let store = origins(["store", "store-b"].iter().filter_map(|name| addresses.get(name).copied()));
    let data_of_store = match database {
        None => format!("data_dir = \"{}\"", data("certstore")),
        Some(database) => {
            let snapshots = data("certstore-snapshots");
            format!("postgres = {{ url = \"{}\" }}\nsnapshot_dir = \"{snapshots}\"", database.url())
        }
    };
    let certstore = format!(
        "listen = \"{}\"\ntelemetry = \"{}\"\n{data_of_store}\ntrust_domain = \"certseal.internal\"\n\
         security_key = \"{pki}/security.pub\"\nreserve_bytes = 1048576\n\
         [tls]\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/certstore.pem\"\nkey = \"{pki}/certstore.key\"\n",
        at("store"),
        at("store-telemetry"),
    );
    let certman = format!(
        "listen = \"{}\"\ntelemetry = \"{}\"\ndata_dir = \"{}\"\ntrust_domain = \"certseal.internal\"\n\
         security_key = \"{pki}/security.pub\"\nissuer_key = \"{pki}/issuer.key\"\nretry_seconds = 1\ncheckpoint_seconds = 1\n\
         [tls]\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/certman-server.pem\"\nkey = \"{pki}/certman-server.key\"\n\
         [store]\nurl = \"{store}\"\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/certman.pem\"\nkey = \"{pki}/certman.key\"\n\
         [authority]\n{authority}",
        at("man"),
        at("man-telemetry"),
        data("certman"),
    );
    let certedge = format!(
        "pool = \"{POOL}\"\nhttps = \"{}\"\nhttp = \"{}\"\ntelemetry = \"{}\"\nmirror = \"{}\"\n\
         unseal_keys = [\"{}\"]\nsecurity_key = \"{pki}/security.pub\"\n\
         [store]\nurl = \"{store}\"\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/edge-{POOL}.pem\"\nkey = \"{pki}/edge-{POOL}.key\"\n\
         [reports]\nevery = 1\n{SMALL_EDGE}",
        at("https"),
        at("http"),
        at("edge-telemetry"),
        data("mirror"),
        data("unseal-keys"),
    );
    for (name, text) in [("certstore", certstore), ("certman", certman), ("certedge", certedge)] {
        fs::write(dir.join(format!("{name}.toml")), text).unwrap();
    }
}
