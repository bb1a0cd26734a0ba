//! The first request of an account that a CA's own customer accounts vouch for: external account binding (RFC 8555, 7.3.4).
//!
//! `instant-acme` makes it for keys that it generates itself, which would be lost with the process. Here the key is on the disk
//! before.

use aws_lc_rs::hmac;
use instant_acme::Error;
use serde_json::{Value, json};

use super::{
    client::Http,
    signed::{self, AccountKey, Directory, Signer},
};

/// An account that a CA knows its customers by.
pub(crate) struct ExternalAccount {
    /// Its id at the CA.
    pub(crate) key_id: String,
    /// The key that the two share.
    pub(crate) key: hmac::Key,
}

/// Has the CA make an account for `key`, bound to `external`.
pub(super) async fn register(
    http: &Http,
    directory: &Directory,
    key: &AccountKey,
    external: &ExternalAccount,
) -> Result<(), Error> {
    let url = &directory.new_account;
    let payload = json!({
        "termsOfServiceAgreed": true, "externalAccountBinding": binding(external, url, &key.jwk()),
    });
    signed::post(http, directory, (key, Signer::Key), url, &payload.to_string()).await.map(drop)
}

/// The external account's word for the key `jwk`.
fn binding(external: &ExternalAccount, url: &str, jwk: &Value) -> Value {
    let protected = json!({ "alg": "HS256", "kid": external.key_id, "url": url });
    let sign = |signed: &[u8]| Ok::<_, ()>(hmac::sign(&external.key, signed).as_ref().to_vec());
    signed::jws(&protected, jwk.to_string().as_bytes(), sign).unwrap_or_default()
}
