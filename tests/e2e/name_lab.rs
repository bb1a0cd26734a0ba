//! A small Internet's DNS in a network namespace of its own: a root, two top-level domains, servers of customers' zones, and
//! resolvers. BIND has the zones, BIND and Unbound resolve; everything is signed as it is outside.
//!
//! All of it lies on loopback addresses. One BIND process plays several servers: what it says depends on the address that is
//! asked, and on who asks.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::process::{Process, run, tool};

/// Answers for the root, the top-level domains, and the zones that name it.
pub const MAIN: &str = "127.10.0.1";
/// Says something else to the second resolver.
pub const GEO: &str = "127.10.0.7";
/// Fails at questions for CAA.
pub const CAA_FAILS: &str = "127.10.0.8";
/// Has no zone at all.
pub const LAME: &str = "127.10.0.9";
/// Does not answer questions for CAA.
pub const CAA_SILENT: &str = "127.10.0.10";
/// A secondary that was left behind.
pub const STALE: &str = "127.10.0.11";
/// Has all zones, and is named by none.
const BACKEND: &str = "127.10.0.2";
/// Nobody listens.
pub const DEAD: &str = "127.10.0.66";
/// Takes questions, and never answers.
pub const MUTE: &str = "127.10.0.67";

/// The names of these servers, below `lab.net`.
const SERVERS: [(&str, &str); 8] = [
    ("main", MAIN),
    ("geo", GEO),
    ("caa-fails", CAA_FAILS),
    ("lame", LAME),
    ("caa-silent", CAA_SILENT),
    ("stale", STALE),
    ("dead", DEAD),
    ("mute", MUTE),
];

/// Unbound, as Let's Encrypt has it.
pub const UNBOUND: &str = "127.20.0.1";
/// BIND.
pub const BIND: &str = "127.20.0.2";
/// Unbound, for one question a second from each address.
pub const LIMITED: &str = "127.20.0.3";

/// Signs updates under the name `certman`, in base64.
pub const UPDATE_KEY: &str = "dGhpcyBpcyBhIHNlY3JldCBvZiAzMiBvY3RldHMgLi4=";

/// What the servers say of a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// `z17.com`.
    pub origin: String,
    /// Lines of a zone file without the apex's SOA and NS records; `@` is the zone.
    pub records: Vec<String>,
    /// What [`STALE`] says, and what [`GEO`] says to the second resolver.
    pub other: Option<Vec<String>>,
    /// Addresses of the servers that the zone above names.
    pub servers: Vec<&'static str>,
    pub signing: Signing,
    /// The file is not one, so that its server fails.
    pub broken: bool,
    /// Its server takes updates that are signed with [`UPDATE_KEY`].
    pub updated: bool,
}

/// How a zone is signed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Signing {
    Unsigned,
    Signed,
    /// The signatures ended yesterday.
    Expired,
    /// The zone above has the digest of another key.
    WrongDigest,
    /// The zone above has a digest, and nothing is signed.
    Stripped,
    /// The signature of the records of this type ended yesterday, and no other.
    ExpiredFor(&'static str),
}

pub struct Lab {
    named: Process,
    _resolvers: Vec<Process>,
    dir: TempDir,
}

impl Lab {
    /// Starts everything. It must be in a network namespace of its own: it takes port 53.
    ///
    /// `tlds` are the top-level domains, with records of their own.
    pub fn start(zones: &[Zone], tlds: &[(&str, &[&str])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        for address in SERVERS.iter().map(|(_, address)| *address).chain([BACKEND, UNBOUND, BIND, LIMITED]) {
            run(Command::new("ip").args(["addr", "add", &format!("{address}/32"), "dev", "lo"]));
        }
        let zone_files = dir.path().join("zones");
        fs::create_dir(&zone_files).unwrap();
        let mut digests: BTreeMap<&str, String> = BTreeMap::new();
        for zone in zones {
            digests.insert(&zone.origin, write_zone(&zone_files, zone));
        }
        let anchor = write_parents(&zone_files, zones, &digests, tlds);
        let named = start_named(dir.path(), zones, tlds);
        for (address, silent) in [(CAA_FAILS, false), (CAA_SILENT, true)] {
            std::thread::spawn(move || refuse_caa(address, silent));
        }
        // Others ask the limited resolver, too, so that it has nothing left.
        std::thread::spawn(|| {
            let socket = UdpSocket::bind((LIMITED, 0)).unwrap();
            loop {
                let _ = socket.send_to(QUESTION, (LIMITED, 53));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mute = UdpSocket::bind((MUTE, 53)).unwrap();
        std::thread::spawn(move || while mute.recv(&mut [0; 512]).is_ok() {});
        let resolvers = vec![
            start_unbound(dir.path(), UNBOUND, &anchor, ""),
            start_bind_resolver(dir.path(), &anchor),
            // All above the limit are dropped.
            start_unbound(dir.path(), LIMITED, &anchor, "ip-ratelimit: 1\n    ip-ratelimit-factor: 0\n"),
        ];
        Self { named, _resolvers: resolvers, dir }
    }

    /// Has the servers say something else of a zone that is not signed.
    pub fn change(&self, zones: &[Zone]) {
        for zone in zones {
            write_zone(&self.dir.path().join("zones"), zone);
        }
        self.named.signal("HUP");
    }
}

fn write_zone(files: &Path, zone: &Zone) -> String {
    let file = files.join(&zone.origin);
    if zone.broken {
        fs::write(&file, "this is no zone\n").unwrap();
        return String::new();
    }
    let text = |records: &[String], serial: u32| {
        let mut text =
            format!("$ORIGIN {}.\n$TTL 300\n@ IN SOA main.lab.net. h.lab.net. {serial} 60 60 60 60\n", zone.origin);
        for server in &zone.servers {
            writeln!(text, "@ IN NS {}", server_name(server)).unwrap();
        }
        records.iter().for_each(|record| writeln!(text, "{record}").unwrap());
        text
    };
    let serial = next_serial();
    fs::write(&file, text(&zone.records, serial)).unwrap();
    if let Some(other) = &zone.other {
        fs::write(files.join(format!("{}.other", zone.origin)), text(other, serial)).unwrap();
    }
    match zone.signing {
        Signing::Unsigned => String::new(),
        Signing::Signed => sign(files, &zone.origin, false),
        Signing::Expired => sign(files, &zone.origin, true),
        Signing::WrongDigest => {
            let digest = sign(files, &zone.origin, false);
            // Of the right form, for a key that is not there.
            let (rest, hash) = digest.trim_end().rsplit_once(' ').unwrap();
            format!("{rest} {}\n", hash.chars().rev().collect::<String>())
        }
        Signing::Stripped => {
            let unsigned = fs::read(&file).unwrap();
            let digest = sign(files, &zone.origin, false);
            fs::write(&file, unsigned).unwrap();
            digest
        }
        Signing::ExpiredFor(kind) => {
            let unsigned = fs::read(&file).unwrap();
            let digest = sign(files, &zone.origin, false);
            let good = fs::read_to_string(&file).unwrap();
            fs::write(&file, unsigned).unwrap();
            sign(files, &zone.origin, true);
            let expired = fs::read_to_string(&file).unwrap();
            let is_of_kind = |line: &&str| {
                let words: Vec<_> = line.split_whitespace().collect();
                words.windows(2).any(|words| words == ["RRSIG", kind])
            };
            let kept = good.lines().filter(|line| !is_of_kind(line));
            let stale = expired.lines().filter(is_of_kind);
            fs::write(&file, kept.chain(stale).fold(String::new(), |all, line| all + line + "\n")).unwrap();
            digest
        }
    }
}

fn next_serial() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SERIAL: AtomicU32 = AtomicU32::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

fn server_name(address: &str) -> String {
    let (name, _) = SERVERS.iter().find(|(_, known)| *known == address).unwrap();
    format!("{name}.lab.net.")
}

/// Signs a zone file in place, each record on a line of its own, and gives the digest for the zone above.
fn sign(files: &Path, origin: &str, expired: bool) -> String {
    let keys = files.join("keys");
    fs::create_dir_all(&keys).unwrap();
    let own = if origin == "." { "." } else { origin };
    let prefix = format!("K{}.+013+", own.trim_end_matches('.'));
    let has_key =
        fs::read_dir(&keys).unwrap().any(|file| file.unwrap().file_name().to_string_lossy().starts_with(&prefix));
    if !has_key {
        run(Command::new(tool("dnssec-keygen"))
            .args(["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", "-K"])
            .arg(&keys)
            .arg(own));
    }
    let file = files.join(zone_file(origin));
    let signed = files.join("signed");
    let mut command = Command::new(tool("dnssec-signzone"));
    command.args(["-q", "-S", "-z", "-P", "-O", "full", "-o", own, "-d"]).arg(&keys).arg("-K").arg(&keys);
    if expired {
        command.args(["-s", "now-864000", "-e", "now-86400"]);
    }
    run(command.arg("-f").arg(&signed).arg(&file));
    fs::rename(signed, file).unwrap();
    fs::read_to_string(keys.join(format!("dsset-{}.", own.trim_end_matches('.')))).unwrap()
}

fn zone_file(origin: &str) -> String {
    if origin == "." { "root".to_owned() } else { origin.to_owned() }
}

/// The root and the top-level domains; gives the root's key.
fn write_parents(files: &Path, zones: &[Zone], digests: &BTreeMap<&str, String>, tlds: &[(&str, &[&str])]) -> String {
    let head = |origin: &str| {
        format!("$ORIGIN {origin}\n$TTL 300\n@ IN SOA main.lab.net. h.lab.net. 1 60 60 60 60\n@ IN NS main.lab.net.\n")
    };
    let mut root = head(".");
    for (tld, own) in tlds {
        let mut text = head(&format!("{tld}."));
        own.iter().for_each(|record| writeln!(text, "{record}").unwrap());
        if *tld == "net" {
            SERVERS.iter().for_each(|(name, address)| writeln!(text, "{name}.lab IN A {address}").unwrap());
        }
        for zone in zones.iter().filter(|zone| zone.origin.rsplit('.').next() == Some(tld)) {
            for server in &zone.servers {
                writeln!(text, "{}. IN NS {}", zone.origin, server_name(server)).unwrap();
            }
            text += &digests[zone.origin.as_str()];
        }
        fs::write(files.join(tld), text).unwrap();
        let digest = sign(files, tld, false);
        writeln!(root, "{tld}. IN NS main.lab.net.\n{digest}").unwrap();
    }
    writeln!(root, "main.lab.net. IN A {MAIN}").unwrap();
    fs::write(files.join("root"), root).unwrap();
    sign(files, ".", false);
    let key = fs::read_dir(files.join("keys")).unwrap().map(|file| file.unwrap().path());
    let is_root = |path: &PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with("K.+") && path.extension().is_some_and(|it| it == "key")
    };
    let key = key.into_iter().find(is_root).unwrap();
    fs::read_to_string(key).unwrap().lines().find(|line| line.starts_with(". ")).unwrap().to_owned()
}

fn start_named(dir: &Path, zones: &[Zone], tlds: &[(&str, &[&str])]) -> Process {
    let files = dir.join("zones");
    let zone = |origin: &str, file: String| {
        format!("  zone \"{origin}\" {{ type primary; file \"{}\"; }};\n", files.join(file).display())
    };
    let mut main = zone(".", "root".to_owned());
    tlds.iter().for_each(|(tld, _)| main += &zone(tld, tld.to_string()));
    // A server that had both a zone and the one above would answer also where it is not named.
    let mut all = String::new();
    for it in zones {
        let zone = zone(&it.origin, it.origin.clone());
        if it.updated {
            main += &zone.replace("};", "allow-update { key certman; }; };");
            continue;
        }
        if it.servers.contains(&MAIN) {
            main += &zone;
        }
        all += &zone;
    }
    let mut other = String::new();
    for it in zones.iter().filter(|it| it.other.is_some()) {
        other += &zone(&it.origin, format!("{}.other", it.origin));
    }
    let config = format!(
        "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; listen-on port 53 {{ {listen} }}; \
         listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; notify no; minimal-responses no; \
         allow-transfer {{ none; }}; max-cache-size 8m; }};\ncontrols {{ }};\n\
         key certman {{ algorithm hmac-sha256; secret \"{UPDATE_KEY}\"; }};\n\
         view \"elsewhere\" {{ match-destinations {{ {GEO}; }}; match-clients {{ {BIND}; }};\n{other}}};\n\
         view \"stale\" {{ match-destinations {{ {STALE}; }};\n{other}}};\n\
         view \"lame\" {{ match-destinations {{ {LAME}; }};\n}};\n\
         view \"main\" {{ match-destinations {{ {MAIN}; }};\n{main}}};\n\
         view \"backend\" {{\n{all}}};\n",
        dir = dir.display(),
        listen = [MAIN, BACKEND, GEO, LAME, STALE].map(|address| format!("{address};")).join(" "),
    );
    start(dir, "named", &["-g", "-n", "1"], &config, MAIN)
}

/// Starts a program with a configuration, and waits until it listens.
fn start(dir: &Path, program: &str, arguments: &[&str], config: &str, address: &str) -> Process {
    let path = dir.join(format!("{program}-{address}.conf"));
    fs::write(&path, config).unwrap();
    let log = dir.join(format!("{program}-{address}.log"));
    let mut process = Process::start(Command::new(tool(program)).args(arguments).arg("-c").arg(&path), &log);
    process.wait_for(resolver(address));
    process
}

fn start_bind_resolver(dir: &Path, anchor: &str) -> Process {
    let fields: Vec<_> = anchor.split_whitespace().collect();
    let at = fields.iter().position(|field| *field == "DNSKEY").unwrap();
    let own = dir.join("bind");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("hints"), format!(". 3600 IN NS main.lab.net.\nmain.lab.net. 3600 IN A {MAIN}\n")).unwrap();
    let config = format!(
        "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; listen-on port 53 {{ {BIND}; }}; \
         listen-on-v6 {{ none; }}; query-source address {BIND}; recursion yes; allow-recursion {{ any; }}; \
         dnssec-validation yes; empty-zones-enable no; max-cache-size 32m; resolver-query-timeout 5000; }};\ncontrols {{ }};\n\
         trust-anchors {{ . static-key {} {} {} \"{}\"; }};\nzone \".\" {{ type hint; file \"hints\"; }};\n",
        fields[at + 1],
        fields[at + 2],
        fields[at + 3],
        fields[at + 4..].concat(),
        dir = own.display(),
    );
    start(dir, "named", &["-g", "-n", "1"], &config, BIND)
}

fn start_unbound(dir: &Path, address: &str, anchor: &str, more: &str) -> Process {
    let hints = dir.join("hints");
    fs::write(&hints, format!(". 3600 IN NS main.lab.net.\nmain.lab.net. 3600 IN A {MAIN}\n")).unwrap();
    let config = format!(
        "server:\n    interface: {address}\n    outgoing-interface: {address}\n    access-control: 127.0.0.0/8 allow\n    \
         do-not-query-localhost: no\n    root-hints: \"{}\"\n    trust-anchor: \"{anchor}\"\n    chroot: \"\"\n    \
         username: \"\"\n    directory: \"{}\"\n    pidfile: \"\"\n    do-ip6: no\n    use-syslog: no\n    ede: yes\n    \
         num-threads: 1\n    module-config: \"validator iterator\"\n    {more}remote-control:\n    control-enable: no\n",
        hints.display(),
        dir.display(),
    );
    start(dir, "unbound", &["-d"], &config, address)
}

/// A server before the backend that cannot do CAA, as some load balancers cannot: it fails, or stays silent.
fn refuse_caa(address: &str, silent: bool) {
    const CAA: [u8; 2] = [1, 1];
    let socket = UdpSocket::bind((address, 53)).unwrap();
    let main = UdpSocket::bind((address, 0)).unwrap();
    main.connect((BACKEND, 53)).unwrap();
    main.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // The question's name ends with an empty label, and its type follows.
        let name_end = 12 + buffer[12..length].iter().position(|octet| *octet == 0).unwrap_or(0);
        if buffer.get(name_end + 1..name_end + 3) == Some(&CAA) {
            if !silent {
                // A response, SERVFAIL.
                (buffer[2], buffer[3]) = (buffer[2] | 0x80, 2);
                buffer[6..12].fill(0);
                let _ = socket.send_to(&buffer[..name_end + 5], from);
            }
            continue;
        }
        let _ = main.send(&buffer[..length]);
        let mut answer = [0; 4096];
        if let Ok(length) = main.recv(&mut answer) {
            let _ = socket.send_to(&answer[..length], from);
        }
    }
}

/// For the root's servers: a header that wants recursion, the root, NS, IN (RFC 1035, 4.1).
const QUESTION: &[u8] = &[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// The address of a server.
pub fn resolver(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 53)
}
