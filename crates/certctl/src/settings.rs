//! Where the daemons are, and as whom to call them.

use std::path::{Path, PathBuf};

use certseal_ceremonies::ring_client::RingClient;
use certseal_client::{CertmanClient, Connection, StoreClient};
use certseal_seal::{SigningKey, VerifyingKey};
use certseal_service::{
    config,
    tls::{CERTMAN, CERTSTORE, TlsFiles},
};
use serde::Deserialize;

use crate::failure::Failure;

/// Settings of calls, each from its flag, its environment variable, or the settings file, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[command(next_help_heading = "Connection")]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// certstore, such as https://certstore.internal:7443
    #[arg(long, global = true, env = "CERTCTL_STORE", value_name = "URL")]
    store: Option<String>,
    /// certman, such as https://certman.internal:7444
    #[arg(long, global = true, env = "CERTCTL_CERTMAN", value_name = "URL")]
    certman: Option<String>,
    /// Certificate of the private CA, PEM
    #[arg(long, global = true, env = "CERTCTL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate, PEM
    #[arg(long, global = true, env = "CERTCTL_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Our private key, PEM, readable by its owner only
    #[arg(long, global = true, env = "CERTCTL_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Revocation list of the private CA: daemons in it are refused
    #[arg(long, global = true, env = "CERTCTL_CRL", value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Name in certstore's identity, service/NAME; several separated by commas [default: certstore]
    #[arg(long, global = true, env = "CERTCTL_STORE_NAME", value_name = "NAME")]
    store_name: Option<String>,
    /// Name in certman's identity, service/NAME; several separated by commas [default: certman]
    #[arg(long, global = true, env = "CERTCTL_CERTMAN_NAME", value_name = "NAME")]
    certman_name: Option<String>,
    /// Public key of the security team, which signs the key ring: without it, nothing shown is verified
    #[arg(long, global = true, env = "CERTCTL_SECURITY_PUBLIC", value_name = "FILE")]
    security_public: Option<PathBuf>,
    /// Directory that remembers the newest key ring seen [default: $XDG_STATE_HOME/certctl or ~/.local/state/certctl]
    #[arg(long, global = true, env = "CERTCTL_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Settings {
    /// Fills what is not set from the TOML file at `path`. Paths in it are relative to its directory.
    pub(crate) fn or_from(self, path: &Path) -> Result<Self, config::ConfigError> {
        let file: Self = config::load(path)?;
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = |found: Option<PathBuf>| found.map(|found| directory.join(found));
        Ok(Self {
            store: self.store.or(file.store),
            certman: self.certman.or(file.certman),
            ca: self.ca.or(beside(file.ca)),
            cert: self.cert.or(beside(file.cert)),
            key: self.key.or(beside(file.key)),
            crl: self.crl.or(beside(file.crl)),
            store_name: self.store_name.or(file.store_name),
            certman_name: self.certman_name.or(file.certman_name),
            security_public: self.security_public.or(beside(file.security_public)),
            state: self.state.or(beside(file.state)),
        })
    }

    /// The client of certstore.
    pub(crate) fn store(&self) -> anyhow::Result<StoreClient> {
        Ok(StoreClient::new(self.connection(&self.store, "store", self.store_name.as_deref().unwrap_or(CERTSTORE))?))
    }

    /// The client of certman.
    pub(crate) fn certman(&self) -> anyhow::Result<CertmanClient> {
        Ok(CertmanClient::new(self.connection(
            &self.certman,
            "certman",
            self.certman_name.as_deref().unwrap_or(CERTMAN),
        )?))
    }

    /// The security team's public key, if it is set.
    pub(crate) fn security_public(&self) -> anyhow::Result<Option<VerifyingKey>> {
        self.security_public.as_deref().map(verifying_key).transpose()
    }

    /// The security team's public key, without which no `document` can be trusted.
    pub(crate) fn security_public_to_trust(&self, document: &str) -> anyhow::Result<VerifyingKey> {
        Ok(self.security_public()?.ok_or_else(|| {
            Failure::Usage(format!(
                "expected --security-public: without the security team's public key no {document} can be trusted"
            ))
        })?)
    }

    /// The key ring in `store`, with the memory of the newest one.
    pub(crate) fn rings<'a>(&self, store: &'a StoreClient, security: VerifyingKey) -> anyhow::Result<RingClient<'a>> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let by_default = || {
            let home = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
            Some(home.join("certctl"))
        };
        let state = self.state.clone().or_else(by_default);
        let missing = "expected --state, the variable CERTCTL_STATE, or `state` in the --config file: where to remember the \
                       newest key ring, since there is no home directory";
        Ok(RingClient::new(store, security, &state.ok_or_else(|| Failure::Usage(missing.to_owned()))?))
    }

    fn connection(&self, url: &Option<String>, name: &str, daemons: &str) -> anyhow::Result<Connection> {
        let url = required(url, name)?;
        let uri = url.parse().map_err(|e| Failure::Usage(format!("--{name} {url:?} is no URL: {e}")))?;
        let tls = TlsFiles {
            ca: required(&self.ca, "ca")?.clone(),
            certificate: required(&self.cert, "cert")?.clone(),
            key: required(&self.key, "key")?.clone(),
            crl: self.crl.clone(),
        };
        let daemons = daemons.split(',').map(|name| name.trim().to_owned()).collect();
        // A command may run for hours.
        Ok(Connection::new(uri, tls.live_client(daemons)?))
    }
}

/// Reads a public key file.
pub(crate) fn verifying_key(path: &Path) -> anyhow::Result<VerifyingKey> {
    let text = config::read(path)?;
    Ok(VerifyingKey::from_pem(&text).map_err(|e| config::ConfigError::invalid(path, e))?)
}

/// The security team's signing key in a file.
pub(crate) fn signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_pem(&config::read_private(path)?).map_err(|e| config::ConfigError::invalid(path, e))?)
}

fn required<'a, T>(setting: &'a Option<T>, name: &str) -> Result<&'a T, Failure> {
    setting.as_ref().ok_or_else(|| {
        let variable = name.to_uppercase();
        Failure::Usage(format!("expected --{name}, the variable CERTCTL_{variable}, or `{name}` in the --config file"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_whose_paths_are_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certctl.toml");
        std::fs::write(&path, "store = \"https://file:1\"\nca = \"ca.pem\"\nkey = \"/keys/admin.key\"\n").unwrap();
        let flags = Settings { store: Some("https://flag:1".into()), ..Settings::default() };
        let settings = flags.or_from(&path).unwrap();
        assert_eq!(settings.store.as_deref(), Some("https://flag:1"));
        assert_eq!(settings.ca, Some(dir.path().join("ca.pem")));
        assert_eq!(settings.key, Some("/keys/admin.key".into()));
        assert_eq!(settings.cert, None);
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certctl.toml");
        std::fs::write(&path, "stoer = \"https://file:1\"\n").unwrap();
        let error = Settings::default().or_from(&path).unwrap_err().to_string();
        assert!(error.contains("stoer"), "{error}");
    }

    #[test]
    fn a_missing_setting_is_named_with_all_the_ways_to_give_it() {
        let error = Settings::default().store().unwrap_err().to_string();
        assert!(error.contains("--store") && error.contains("CERTCTL_STORE"), "{error}");
    }
}
