//! An edge whose unseal key is in a PKCS#11 token: SoftHSM2.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use certseal_wire::{DnsName, SiteRequest};

use crate::{
    edge::eventually,
    platform::{Authority, Platform, SMALL_EDGE},
    process::{Process, free_address, program, run, tool},
};

/// While the token is away, the edge serves what is open and takes no bundle that it cannot try; then it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_serves_with_a_key_in_a_token_and_survives_its_absence() {
    let mut platform = Platform::start(Authority::Local).await;
    let token = Token::new(&platform.dir.path().join("token"));
    let pki_dir = platform.dir.path().join("pki");
    run(Command::new(program("certctl"))
        .args(["pki", "issue", "--role", "edge/hsm", "--name", "edge-hsm", "--dir"])
        .arg(pki_dir));
    let output = run(platform
        .certctl_command(&["--json", "keys", "generate", "--pool", "hsm", "--token", &token.uri(), "--security-key"])
        .arg(platform.pki("security.key"))
        .env("SOFTHSM2_CONF", token.config()));
    // certman reads the key ring when it starts, and then only now and again.
    platform.certman.kill();
    platform.restart_certman();
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let uri = made["token"].as_str().unwrap();
    assert!(uri.contains("object=certseal%2Fhsm%2F1?"), "{uri}");

    let (https, config) = (free_address(), platform.dir.path().join("edge-hsm.toml"));
    let mirror = platform.dir.path().join("mirror-hsm");
    let text = format!(
        "pool = \"hsm\"\nhttps = \"{https}\"\nhttp = \"{}\"\nmirror = {mirror:?}\nunseal_keys = [\"{uri}\"]\n\
         security_key = {:?}\n[store]\nurl = \"https://{}\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n{SMALL_EDGE}",
        free_address(),
        platform.pki("security.pub"),
        platform.addresses["store"],
        platform.pki("ca.pem"),
        platform.pki("edge-hsm.pem"),
        platform.pki("edge-hsm.key"),
    );
    fs::write(&config, text).unwrap();
    let start = || {
        let mut command = Command::new(program("certedge"));
        command.arg("--config").arg(&config).env("SOFTHSM2_CONF", token.config());
        let mut edge = Process::start(&mut command, &platform.dir.path().join("edge-hsm.log"));
        edge.wait_for(https);
        edge
    };
    let edge = start();
    let serves = |name: &DnsName| curl(https, &platform.pki("local-ca.pem"), name).status.success();

    let [first, second]: [DnsName; 2] =
        ["first.customers.test", "second.customers.test"].map(|name| name.parse().unwrap());
    add_site(&platform, &first).await;
    eventually(Duration::from_secs(10), || serves(&first));

    token.take_away();
    add_site(&platform, &second).await;
    eventually(Duration::from_secs(10), || edge.log().contains("cannot be reached"));
    assert!(serves(&first), "a key that is open needs no token");
    assert!(!serves(&second));
    token.bring_back();
    // The follower waits for up to ten seconds between two attempts.
    eventually(Duration::from_secs(30), || serves(&second));
    assert!(!edge.log().contains("refused an item"), "{}", edge.log());
    assert!(!edge.log().contains(PIN));

    // From the mirror, where no key has been opened yet.
    drop(edge);
    let edge = start();
    assert!(serves(&first) && serves(&second), "{}", edge.log());
}

async fn add_site(platform: &Platform, name: &DnsName) {
    let request = SiteRequest { pools: vec!["hsm".parse().unwrap()], ..platform.request(name) };
    platform.certman_as("platform").put_site(name, &request).await.unwrap();
    platform.wait_active(name, 1).await;
}

fn curl(https: std::net::SocketAddr, roots: &Path, name: &DnsName) -> Output {
    Command::new("curl")
        .args(["--silent", "--max-time", "10", "--noproxy", "*", "--cacert"])
        .arg(roots)
        .args(["--connect-to", &format!("::{https}"), &format!("https://{name}/")])
        .output()
        .unwrap()
}

/// A token of SoftHSM2 with its files in a directory of their own.
struct Token(PathBuf);

impl Token {
    fn new(dir: &Path) -> Self {
        let token = Self(dir.to_owned());
        fs::create_dir_all(dir.join("tokens")).unwrap();
        fs::write(token.config(), format!("directories.tokendir = {}\n", dir.join("tokens").display())).unwrap();
        fs::write(dir.join("pin"), PIN).unwrap();
        fs::set_permissions(dir.join("pin"), fs::Permissions::from_mode(0o600)).unwrap();
        run(Command::new(tool("softhsm2-util"))
            .args(["--init-token", "--free", "--label", "certseal", "--so-pin", "314159", "--pin", PIN, "--module"])
            .arg(module())
            .env("SOFTHSM2_CONF", token.config()));
        token
    }

    fn config(&self) -> PathBuf {
        self.0.join("softhsm2.conf")
    }

    fn uri(&self) -> String {
        let pin = self.0.join("pin");
        format!("pkcs11:token=certseal?module-path={}&pin-source=file:{}", module().display(), pin.display())
    }

    fn take_away(&self) {
        fs::rename(self.0.join("tokens"), self.0.join("away")).unwrap();
        fs::create_dir(self.0.join("tokens")).unwrap();
    }

    fn bring_back(&self) {
        fs::remove_dir(self.0.join("tokens")).unwrap();
        fs::rename(self.0.join("away"), self.0.join("tokens")).unwrap();
    }
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/softhsm/usr/lib/softhsm/libsofthsm2.so")
}

const PIN: &str = "271828";
