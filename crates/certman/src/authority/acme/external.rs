//! The first request of an account that a CA's own customer accounts vouch for: external account binding (RFC 8555, 7.3.4).
//!
//! `instant-acme` makes it for keys that it generates itself, which would be lost with the process. Here the key is on the disk
//! before.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    Method, Request,
    header::{CONTENT_TYPE, USER_AGENT},
};
use instant_acme::{BodyWrapper, Error, HttpClient, Problem};
use rustls_pki_types::PrivateKeyDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Http;

/// An account that a CA knows its customers by.
pub(crate) struct ExternalAccount {
    /// Its id at the CA.
    pub(crate) key_id: String,
    /// The key that the two share.
    pub(crate) key: hmac::Key,
}

/// Has the CA make an account for the key `der`, bound to `external`.
pub(super) async fn register(
    http: &Http,
    directory: &str,
    der: &PrivateKeyDer<'static>,
    external: &ExternalAccount,
) -> Result<(), Error> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
        .map_err(|_| Error::Str("the account's key is no P-256 key"))?;
    let found: Directory = serde_json::from_slice(&body(http, Method::GET, directory, None).await?.1)?;
    let (nonce, _) = body(http, Method::HEAD, &found.new_nonce, None).await?;
    let nonce = nonce.ok_or(Error::Str("the CA gives no nonce"))?;
    let jwk = jwk(&key);
    let binding = binding(external, &found.new_account, &jwk);
    let protected = json!({ "alg": "ES256", "jwk": jwk, "nonce": nonce, "url": found.new_account });
    let payload = json!({ "termsOfServiceAgreed": true, "externalAccountBinding": binding });
    let sign = |signed: &[u8]| key.sign(&SystemRandom::new(), signed).map(|signature| signature.as_ref().to_vec());
    let request = jws(&protected, payload.to_string().as_bytes(), sign).map_err(|_| Error::Str("no signature"))?;
    body(http, Method::POST, &found.new_account, Some(request.to_string())).await.map(drop)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
}

/// The nonce and the body of an answer that is no problem.
async fn body(http: &Http, method: Method, url: &str, jose: Option<String>) -> Result<(Option<String>, Bytes), Error> {
    let request = Request::builder().method(method).uri(url).header(CONTENT_TYPE, "application/jose+json");
    // CAs want one (RFC 8555, 6.1).
    let request = request.header(USER_AGENT, concat!("certman/", env!("CARGO_PKG_VERSION")));
    let request = request.body(BodyWrapper::from(jose.unwrap_or_default().into_bytes()))?;
    let mut response = http.request(request).await?;
    let nonce = response.parts.headers.get("replay-nonce").and_then(|nonce| nonce.to_str().ok()).map(str::to_owned);
    let status = response.parts.status;
    let octets = response.body.into_bytes().await.map_err(Error::Other)?;
    if status.is_success() {
        return Ok((nonce, octets));
    }
    let mut problem: Problem = serde_json::from_slice(&octets)?;
    problem.status = Some(status.as_u16());
    Err(Error::Api(problem))
}

/// The external account's word for the key `jwk`.
fn binding(external: &ExternalAccount, url: &str, jwk: &Value) -> Value {
    let protected = json!({ "alg": "HS256", "kid": external.key_id, "url": url });
    let sign = |signed: &[u8]| Ok::<_, ()>(hmac::sign(&external.key, signed).as_ref().to_vec());
    jws(&protected, jwk.to_string().as_bytes(), sign).unwrap_or_default()
}

/// A JSON web signature (RFC 7515, 7.2.2).
fn jws<E>(protected: &Value, payload: &[u8], sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>) -> Result<Value, E> {
    let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = URL_SAFE_NO_PAD.encode(sign(format!("{protected}.{payload}").as_bytes())?);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
}

/// The public half of a P-256 key (RFC 7518, 6.2).
fn jwk(key: &EcdsaKeyPair) -> Value {
    // Uncompressed: 4, x, y (SEC 1, 2.3.3).
    let point = key.public_key().as_ref();
    let half = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    json!({ "crv": "P-256", "kty": "EC", "x": half(&point[1..33]), "y": half(&point[33..65]) })
}
