//! Where the private half of a new key goes.

use std::path::PathBuf;

use certseal_unseal::token::TokenUri;
use clap::Args;

use crate::{failure::Failure, keys::KeyPlace};

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

/// The token that is to make a key, if it is to be one.
pub(super) fn token_uri(place: &PlaceArgs) -> Result<Option<TokenUri>, Failure> {
    let parse = |text: &String| text.parse().map_err(|error| Failure::Usage(format!("--token: {error}")));
    place.token.as_ref().map(parse).transpose()
}

/// Where a new key goes. `uri` is that of [`token_uri`].
pub(super) fn place<'a>(place: &'a PlaceArgs, uri: Option<&'a TokenUri>) -> Result<KeyPlace<'a>, Failure> {
    match (&place.out, uri) {
        (Some(path), _) => Ok(KeyPlace::File(path)),
        (None, Some(uri)) => Ok(KeyPlace::Token(uri)),
        (None, None) => Err(Failure::Usage("expected --out or --token".to_owned())),
    }
}
