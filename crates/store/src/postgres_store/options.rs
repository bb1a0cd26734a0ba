//! What a connection needs, and the refusal of connections that somebody on the way could read or answer.

use std::{
    fmt, fs,
    net::IpAddr,
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
    /// A file with the password alone, so that the connection string may be shown.
    pub password_file: Option<PathBuf>,
    /// The CA of the server's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, PEM, and our private key, PEM, if the server asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Sessions for reading; one more writes.
    pub pool_size: usize,
    /// How long one statement may take.
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

    /// The hosts, the database and the user: what logs may say.
    pub fn place(&self) -> String {
        self.parsed().map_or_else(|_| "postgres".to_owned(), |config| place(&config))
    }

    pub(super) fn config(&self) -> Result<Config, StoreError> {
        let mut config = self.parsed()?;
        if let Some(file) = &self.password_file {
            let text = fs::read_to_string(file).map_err(StoreError::io("read", file))?;
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
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
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

fn unusable(path: &Path, error: impl fmt::Display) -> StoreError {
    let problem = format!("expected certificates or a key in PEM in {}, came: {error}", path.display());
    StoreError::Options { problem }
}

fn refused<T>(problem: &str) -> Result<T, StoreError> {
    Err(StoreError::Options { problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
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
    fn nothing_that_is_shown_holds_the_password() {
        let options = PostgresOptions::new("postgres://certseal:canary@a,b:5433/bundles?sslmode=verify-full");
        assert_eq!(options.place(), "postgres://certseal@a:5432,b:5433/bundles");
        assert!(!format!("{options:?}").contains("canary"));
        let broken = PostgresOptions::new("host=a password=canary nonsense=canary");
        assert!(!broken.config().unwrap_err().to_string().contains("canary"));
        assert!(!format!("{broken:?}").contains("canary"));
    }
}
