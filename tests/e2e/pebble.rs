//! The real ACME test server Pebble, with its DNS and challenge-test server.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{
    https::Origin,
    process::{Process, free_address, run, tool},
};

pub struct Pebble {
    pub address: SocketAddr,
    /// Where Pebble looks for http-01 answers.
    pub http: SocketAddr,
    /// Where Pebble looks for tls-alpn-01 answers.
    pub tls: SocketAddr,
    /// The CA of Pebble's own TLS certificate.
    pub tls_root: PathBuf,
    proxy_identity: (PathBuf, PathBuf),
    management: SocketAddr,
    dns_management: SocketAddr,
    _dns: Process,
    _pebble: Process,
    dir: TempDir,
}

/// What is not the same for all.
struct Settings<'a> {
    profiles: &'a [(&'a str, u32)],
    resolver: Option<SocketAddr>,
    external: Option<(&'a str, &'a str)>,
    http: Option<SocketAddr>,
    /// The OCSP responder that certificates name.
    responder: Option<&'a str>,
    /// Further roots, to each of which an alternate chain leads.
    alternate_roots: u32,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        let (resolver, external, http, responder) = (None, None, None, None);
        Self { profiles: &[("default", 7_776_000)], resolver, external, http, responder, alternate_roots: 0 }
    }
}

impl Pebble {
    /// Starts Pebble. It refuses `nonce_reject` per cent of nonces.
    pub fn start(nonce_reject: u32) -> Self {
        Self::start_with_profiles(nonce_reject, &[("default", 7_776_000)])
    }

    /// Like [`Self::start`], with profiles and the seconds for which their certificates are valid. Pebble takes one at random
    /// for an order that names none.
    pub fn start_with_profiles(nonce_reject: u32, profiles: &[(&str, u32)]) -> Self {
        Self::start_as(nonce_reject, Settings { profiles, ..Settings::default() })
    }

    /// Like [`Self::start`], and it looks names up with this resolver.
    pub fn start_resolving(resolver: SocketAddr) -> Self {
        Self::start_as(0, Settings { resolver: Some(resolver), ..Settings::default() })
    }

    /// Like [`Self::start`], and it takes accounts only that this one vouches for, of an id and a key in base64url; and looks for
    /// answers where another CA does.
    pub fn start_bound(external: (&str, &str), http: SocketAddr) -> Self {
        Self::start_as(0, Settings { external: Some(external), http: Some(http), ..Settings::default() })
    }

    /// Like [`Self::start`], and its certificates name an OCSP responder.
    pub fn start_naming(responder: &str) -> Self {
        Self::start_as(0, Settings { responder: Some(responder), ..Settings::default() })
    }

    /// Like [`Self::start`], and it offers so many alternate chains for each certificate. It refuses some nonces.
    pub fn start_with_alternates(alternate_roots: u32) -> Self {
        Self::start_as(20, Settings { alternate_roots, ..Settings::default() })
    }

    fn start_as(nonce_reject: u32, settings: Settings<'_>) -> Self {
        let Settings { profiles, resolver, external, http, responder, alternate_roots } = settings;
        let profile = |(name, seconds): &(&str, u32)| {
            ((*name).to_owned(), serde_json::json!({ "description": name, "validityPeriod": seconds }))
        };
        let profiles: serde_json::Map<_, _> = profiles.iter().map(profile).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let [address, management, tls, dns_address, dns_management] = [(); 5].map(|()| free_address());
        let http = http.unwrap_or_else(free_address);
        let keys: serde_json::Map<_, _> = external.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        make_identities(dir.path(), ["pebble", "proxy"]);
        // Of its own keys it gives out RSA ones only, to a responder for example.
        let algorithm = if responder.is_some() { "rsa" } else { "ecdsa" };
        let config = serde_json::json!({ "pebble": {
            "listenAddress": address.to_string(), "managementListenAddress": management.to_string(),
            "certificate": path("pebble.pem"), "privateKey": path("pebble.key"),
            "httpPort": http.port(), "tlsPort": tls.port(), "ocspResponderURL": responder.unwrap_or_default(),
            "externalAccountBindingRequired": external.is_some(), "externalAccountMACKeys": keys, "retryAfter": { "authz": 1, "order": 1 }, "keyAlgorithm": algorithm,
            "profiles": profiles,
        }});
        fs::write(path("pebble.json"), config.to_string()).unwrap();
        let mut dns = Process::start(
            Command::new(tool("pebble-challtestsrv"))
                .args(["-dnsserver", &dns_address.to_string(), "-management", &dns_management.to_string()])
                .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]),
            &path("dns.log"),
        );
        dns.wait_for(dns_management);
        let mut pebble = Process::start(
            Command::new(tool("pebble"))
                .args(["-strict", "-dnsserver", &resolver.unwrap_or(dns_address).to_string(), "-config"])
                .arg(path("pebble.json"))
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "0")
                .env("PEBBLE_ALTERNATE_ROOTS", alternate_roots.to_string())
                .env("PEBBLE_WFE_NONCEREJECT", nonce_reject.to_string()),
            &path("pebble.log"),
        );
        pebble.wait_for(address);
        pebble.wait_for(management);
        Self {
            address,
            http,
            tls,
            tls_root: path("tls-root.pem"),
            proxy_identity: (path("proxy.pem"), path("proxy.key")),
            management,
            dns_management,
            _dns: dns,
            _pebble: pebble,
            dir,
        }
    }

    pub fn origin(&self) -> Origin<'_> {
        Origin { address: self.address, tls_root: &self.tls_root, proxy_identity: &self.proxy_identity }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Tells the DNS server of the CA something, such as `set-servfail` of a host.
    pub fn dns(&self, command: &str, host: &str) {
        let url = format!("http://{}/{command}", self.dns_management);
        let body = serde_json::json!({ "host": host }).to_string();
        run(Command::new("curl").args(["-sf", "--noproxy", "*", "-d", &body, &url]));
    }

    /// Puts a TXT record into the DNS of the CA.
    pub fn set_text(&self, owner: &str, value: &str) {
        let url = format!("http://{}/set-txt", self.dns_management);
        let body = serde_json::json!({ "host": format!("{owner}."), "value": value }).to_string();
        run(Command::new("curl").args(["-sf", "--noproxy", "*", "-d", &body, &url]));
    }

    /// The CA's status of a certificate by its serial number in hexadecimal digits.
    pub fn certificate_status(&self, serial: &str) -> serde_json::Value {
        let url = format!("https://{}/cert-status-by-serial/{serial}", self.management);
        let mut curl = Command::new("curl");
        let output = run(curl.args(["-sf", "--noproxy", "*", "--cacert"]).arg(&self.tls_root).arg(&url));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Has the CA advise to renew a certificate within a window from `start` to `end`.
    pub fn advise(&self, certificate_pem: &str, start: Timestamp, end: Timestamp) {
        let advice = serde_json::json!({
            "suggestedWindow": { "start": start, "end": end }, "explanationURL": "https://ca.example/incident-7",
        });
        let body = serde_json::json!({ "Certificate": certificate_pem, "ARIResponse": advice.to_string() });
        let url = format!("https://{}/set-renewal-info/", self.management);
        let mut curl = Command::new("curl");
        run(curl.args(["-sf", "--noproxy", "*", "--cacert"]).arg(&self.tls_root).args(["-d", &body.to_string(), &url]));
    }

    /// The root that issued certificates lead to, as a file.
    pub fn issuing_root(&self) -> PathBuf {
        self.root(0)
    }

    /// The root that the default chain leads to, or the alternate of this number, as a file.
    pub fn root(&self, number: u32) -> PathBuf {
        self.given_out(&format!("roots/{number}"), &format!("issuing-root-{number}.pem"))
    }

    /// The certificate that signs the issued ones, and its key, as files.
    pub fn issuer(&self) -> (PathBuf, PathBuf) {
        (self.given_out("intermediates/0", "issuer.pem"), self.given_out("intermediate-keys/0", "issuer.key"))
    }

    /// What the management interface has under `path`, in a file.
    fn given_out(&self, path: &str, file: &str) -> PathBuf {
        let out = self.dir.path().join(file);
        let url = format!("https://{}/{path}", self.management);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let output = Command::new("curl")
                .args(["-sf", "--noproxy", "*", "--cacert"])
                .arg(&self.tls_root)
                .args(["-o", out.to_str().unwrap(), &url])
                .status()
                .unwrap();
            if output.success() {
                return out;
            }
            assert!(Instant::now() < deadline, "Pebble does not give out {path}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A CA, and certificates under it for loopback: one for an ACME server, one for a proxy in front of it.
pub fn make_identities(dir: &Path, names: [&str; 2]) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a leaf with the name of its issuer for a root.
    params.distinguished_name.push(rcgen::DnType::CommonName, "TLS root of ACME servers");
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(dir.join("tls-root.pem"), root.pem()).unwrap();
    for name in names {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &root).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let key_file = dir.join(format!("{name}.key"));
        fs::write(&key_file, key.serialize_pem()).unwrap();
        run(Command::new("chmod").arg("600").arg(key_file));
    }
}
