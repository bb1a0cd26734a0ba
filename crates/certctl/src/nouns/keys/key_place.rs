//! Where the private half of a new key goes.

use std::path::PathBuf;

use certseal_ceremonies::keys::KeyPlace;
use clap::Args;

use crate::failure::Failure;

/// Where the private half of a new key goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PlaceArgs {
    /// File for the private half, which goes to the pool's edges
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// PKCS#11 URI of a token that makes the key and keeps it: pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE
    // Not parsed here: clap would show the whole text, which may hold a PIN.
    #[arg(long, value_name = "URI")]
    pub(crate) token: Option<String>,
}

impl PlaceArgs {
    /// The place that they name.
    pub(super) fn place(&self) -> Result<KeyPlace, Failure> {
        match (&self.out, &self.token) {
            (Some(path), _) => Ok(KeyPlace::File(path.clone())),
            (None, Some(uri)) => KeyPlace::token(uri).map_err(|error| Failure::Usage(format!("--token: {error}"))),
            (None, None) => Err(Failure::Usage("expected --out or --token".to_owned())),
        }
    }
}
