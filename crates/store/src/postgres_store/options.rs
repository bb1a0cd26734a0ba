//! The options of a connection, and the refusal of connections that somebody on the way could read or answer.

use std::{
    fmt,
    fs::File,
    io::Read,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::StoreError;

/// Where a [`PostgresStore`](crate::PostgresStore) is, and its limits.
#[derive(Clone)]
pub struct PostgresOptions {
    /// A connection string of libpq, as `key=value` pairs or as a URI, with one host or several: the one that accepts
    /// writes is used.
    ///
    /// Hosts that are not this machine need [`ca`](Self::ca); the server then has to prove its name.
    pub url: String,
    /// A file with the password alone, so that the connection string may be shown; readable by its owner only.
    pub password_file: Option<PathBuf>,
    /// The CA of the server's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, PEM, and our private key, PEM and readable by its owner only, if the server asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Sessions for reading; one more writes.
    pub pool_size: usize,
    /// How long one statement may take, and a commit before it is asked after on another connection.
    pub statement_timeout: Duration,
    /// How long connecting to one host may take.
    pub connect_timeout: Duration,
    /// How long a call tries again, during a failover for instance, before it fails.
    pub give_up: Duration,
    /// The largest value of a record.
    pub max_value_bytes: usize,
}

impl PostgresOptions {
    /// The database at `url`, with the limits' defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            ca: None,
            identity: None,
            pool_size: 8,
            statement_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            give_up: Duration::from_secs(30),
            max_value_bytes: 256 << 10,
        }
    }

    /// The hosts, the database and the user: the parts that logs may say.
    pub fn place(&self) -> String {
        self.parsed().map_or_else(|_| "postgres".to_owned(), |config| place(&config))
    }

    /// The configuration for each host by itself, in their order.
    pub(super) fn hosts(&self) -> Result<Vec<Config>, StoreError> {
        let all = self.config()?;
        let count = all.get_hosts().len().max(all.get_hostaddrs().len());
        let fits = |items: usize, least: usize| items <= least || items == count;
        if !fits(all.get_hosts().len(), 0) || !fits(all.get_hostaddrs().len(), 0) || !fits(all.get_ports().len(), 1) {
            return refused("expected as many ports as hosts, or one, and as many addresses as hosts, or none");
        }
        Ok((0..count).map(|index| of_host(&all, index)).collect())
    }

    fn config(&self) -> Result<Config, StoreError> {
        let mut config = self.parsed()?;
        if let Some(file) = &self.password_file {
            let text = secret(file)?;
            config.password(text.trim_end_matches(['\r', '\n']));
        }
        let local = config.get_hosts().iter().all(is_local) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        match (&self.ca, config.get_ssl_mode()) {
            (Some(_), SslMode::Disable) => {
                return refused("sslmode=disable and a CA file contradict each other: leave one of them out");
            }
            (Some(_), _) => config.ssl_mode(SslMode::Require),
            (None, SslMode::Require) => {
                return refused(
                    "expected a CA file to verify the server with: TLS that trusts anybody protects nothing",
                );
            }
            (None, _) if local => config.ssl_mode(SslMode::Disable),
            (None, _) => {
                return refused(
                    "expected a CA file, since a host is not this machine: name the file with the CA of the server's \
                     certificate",
                );
            }
        };
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(self.connect_timeout)
            .application_name("certseal")
            // A host that is gone without a word is noticed after about the time that one statement may take.
            .tcp_user_timeout(self.statement_timeout)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        Ok(config)
    }

    pub(super) fn tls(&self) -> Result<Option<MakeRustlsConnect>, StoreError> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unusable(ca, error))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(ca, error))?
            .with_root_certificates(roots);
        let client = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let private =
                    PrivateKeyDer::from_pem_slice(secret(key)?.as_bytes()).map_err(|error| unusable(key, error))?;
                builder.with_client_auth_cert(certificates(chain)?, private).map_err(|error| unusable(chain, error))?
            }
        };
        Ok(Some(MakeRustlsConnect::new(client)))
    }

    fn parsed(&self) -> Result<Config, StoreError> {
        // The client library knows no stronger word than `require`, which `config` makes mean what these mean.
        let known = self.url.replace("sslmode=verify-full", "sslmode=require");
        let known = known.replace("sslmode=verify-ca", "sslmode=require");
        // The error names keys and places, never values.
        let config: Config = known.parse().map_err(|error| StoreError::Options {
            problem: format!("expected a connection string of PostgreSQL: {error}"),
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return refused("expected a host in the connection string: name one");
        }
        Ok(config)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection string may hold the password.
        f.debug_struct("PostgresOptions")
            .field("place", &self.place())
            .field("ca", &self.ca)
            .field("pool_size", &self.pool_size)
            .field("statement_timeout", &self.statement_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("give_up", &self.give_up)
            .field("max_value_bytes", &self.max_value_bytes)
            .finish_non_exhaustive()
    }
}

fn place(config: &Config) -> String {
    let port = |index: usize| config.get_ports().get(index).or(config.get_ports().first()).copied().unwrap_or(5432);
    let hosts: Vec<String> = (config.get_hosts().iter().enumerate())
        .map(|(index, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(index)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(index)),
        })
        .collect();
    format!(
        "postgres://{}@{}/{}",
        config.get_user().unwrap_or_default(),
        hosts.join(","),
        config.get_dbname().unwrap_or_default()
    )
}

/// The configuration with one of its hosts alone.
fn of_host(all: &Config, index: usize) -> Config {
    let mut one = Config::new();
    match all.get_hosts().get(index) {
        Some(Host::Tcp(name)) => drop(one.host(name)),
        Some(Host::Unix(path)) => drop(one.host_path(path)),
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    if let Some(port) = all.get_ports().get(index).or(all.get_ports().first()) {
        one.port(*port);
    }
    all.get_user().map(|user| one.user(user));
    all.get_password().map(|password| one.password(password));
    all.get_dbname().map(|name| one.dbname(name));
    all.get_options().map(|options| one.options(options));
    all.get_application_name().map(|name| one.application_name(name));
    all.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
    all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
    all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one.keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .target_session_attrs(all.get_target_session_attrs())
        .channel_binding(all.get_channel_binding())
        .load_balance_hosts(all.get_load_balance_hosts());
    one
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(path, "no certificate in it")),
        Err(error) => Err(unusable(path, error)),
    }
}

/// A file that holds a secret. It is refused when its group or others have any access.
fn secret(path: &Path) -> Result<String, StoreError> {
    let unreadable = || StoreError::io("read", path);
    // The file that is checked is the one that is read, whatever happens to the path meanwhile.
    let mut file = File::open(path).map_err(unreadable())?;
    let mode = file.metadata().map_err(unreadable())?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return refused(&format!(
            "{path} can be read by others (mode {mode:03o}): it holds a secret and must be readable by its owner only; \
             run `chmod 600 {path}`"
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable())?;
    Ok(text)
}

fn unusable(path: &Path, error: impl fmt::Display) -> StoreError {
    let problem = format!("expected certificates or a key in PEM in {}, came: {error}", path.display());
    StoreError::Options { problem }
}

fn refused<T>(problem: &str) -> Result<T, StoreError> {
    Err(StoreError::Options { problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_prove_who_it_is() {
        let refused = |url: &str| matches!(PostgresOptions::new(url).config(), Err(StoreError::Options { .. }));
        assert!(refused("host=db.internal user=certseal"));
        assert!(refused("postgres://certseal@10.0.0.1,127.0.0.1/certseal?sslmode=disable"));
        assert!(refused("host=localhost hostaddr=10.0.0.1 user=certseal"));
        assert!(refused("host=127.0.0.1 sslmode=verify-full"));
        assert!(refused("user=certseal"));
        assert!(!refused("host=127.0.0.1,localhost,/run/postgresql user=certseal sslmode=disable"));

        let with_ca = |url: &str| {
            let options = PostgresOptions { ca: Some("ca.pem".into()), ..PostgresOptions::new(url) };
            options.config().map(|config| config.get_ssl_mode())
        };
        assert_eq!(with_ca("host=db.internal").unwrap(), SslMode::Require);
        assert_eq!(with_ca("host=db.internal sslmode=verify-full").unwrap(), SslMode::Require);
        assert!(with_ca("host=db.internal sslmode=disable").is_err());
    }

    #[test]
    fn each_host_is_configured_as_all_of_them_are() {
        let rest = "port=5433 user=u password=p dbname=d options='-c a=b' sslmode=disable connect_timeout=4 \
                    tcp_user_timeout=5 keepalives=0 keepalives_idle=6 keepalives_interval=7 keepalives_retries=8 \
                    channel_binding=require load_balance_hosts=random sslnegotiation=direct";
        for host in
            ["host=localhost", "hostaddr=127.0.0.1", "host=localhost hostaddr=127.0.0.1", "host=/run/postgresql"]
        {
            let options = PostgresOptions::new(format!("{host} {rest}"));
            assert_eq!(options.hosts().unwrap(), [options.config().unwrap()], "{host}");
        }
        let places = |url: &str| {
            let place = |host: &Config| (host.get_hosts().to_vec(), host.get_ports().to_vec());
            PostgresOptions::new(url).hosts().map(|hosts| hosts.iter().map(place).collect::<Vec<_>>())
        };
        let name = |name: &str| vec![Host::Tcp(name.to_owned())];
        let two = [(name("localhost"), vec![1]), (name("127.0.0.1"), vec![2])];
        assert_eq!(places("host=localhost,127.0.0.1 port=1,2 user=u").unwrap(), two);
        assert_eq!(places("host=localhost,127.0.0.1 port=1 user=u").unwrap()[1].1, [1]);
        assert!(places("host=localhost,127.0.0.1,localhost port=1,2 user=u").is_err());
        assert!(places("host=localhost,127.0.0.1 hostaddr=127.0.0.1 user=u").is_err());
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let in_file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let issued = rcgen::generate_simple_self_signed(vec!["db.internal".to_owned()]).unwrap();
        let (password, key) =
            (in_file("password", "canary\n"), in_file("key.pem", &issued.signing_key.serialize_pem()));
        let certificate = in_file("certificate.pem", &issued.cert.pem());
        let options = PostgresOptions {
            password_file: Some(password.clone()),
            ca: Some(certificate.clone()),
            identity: Some((certificate, key.clone())),
            ..PostgresOptions::new("host=db.internal user=certseal")
        };
        let with_mode = |mode: u32| {
            for path in [&password, &key] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            (options.config().map(drop), options.tls().map(drop))
        };
        for mode in [0o640, 0o604, 0o610] {
            let (by_password, by_key) = with_mode(mode);
            for (refused, name) in [(by_password, "password"), (by_key, "key.pem")] {
                let text = refused.unwrap_err().to_string();
                assert!(text.contains("chmod 600") && text.contains(name) && !text.contains("canary"), "{text}");
            }
        }
        // The control.
        assert!(matches!(with_mode(0o600), (Ok(()), Ok(()))));
        assert_eq!(options.config().unwrap().get_password(), Some(b"canary".as_slice()));
    }

    #[test]
    fn nothing_that_is_shown_holds_the_password() {
        let options = PostgresOptions::new("postgres://certseal:canary@a,b:5433/bundles?sslmode=verify-full");
        assert_eq!(options.place(), "postgres://certseal@a:5432,b:5433/bundles");
        assert!(!format!("{options:?}").contains("canary"));
        let broken = PostgresOptions::new("host=a password=canary nonsense=canary");
        assert!(!broken.config().unwrap_err().to_string().contains("canary"));
        assert!(!format!("{broken:?}").contains("canary"));
    }
}
