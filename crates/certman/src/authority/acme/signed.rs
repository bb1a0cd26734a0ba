//! Requests to a CA that `instant-acme` does not make, signed by an account's key (RFC 8555, 6.2).

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use certseal_seal::sha256;
use http::{
    Method, Request,
    header::{CONTENT_TYPE, USER_AGENT},
};
use instant_acme::{BodyWrapper, Error, HttpClient, Problem};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Http;

/// The URLs of a CA, as far as they are needed here (RFC 8555, 7.1.1).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    new_nonce: String,
    pub(super) new_account: String,
    pub(super) key_change: Option<String>,
}

impl Directory {
    /// Reads it from the CA.
    pub(super) async fn read(http: &Http, url: &str) -> Result<Self, Error> {
        let (_, body) = exchange(http, Method::GET, url, None).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// The private key of an account.
pub(super) struct AccountKey(EcdsaKeyPair);

impl AccountKey {
    pub(super) fn from_der(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
        pair.map(Self).map_err(|_| Error::Str("the account's key is no P-256 key"))
    }

    /// The public half (RFC 7518, 6.2).
    pub(super) fn jwk(&self) -> Value {
        // Uncompressed: 4, x, y (SEC 1, 2.3.3).
        let point = self.0.public_key().as_ref();
        let half = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        json!({ "crv": "P-256", "kty": "EC", "x": half(&point[1..33]), "y": half(&point[33..65]) })
    }

    /// The thumbprint of the public half (RFC 7638).
    pub(super) fn thumbprint(&self) -> String {
        // The members stand in the order of their names, without anything between them (section 3).
        URL_SAFE_NO_PAD.encode(sha256(self.jwk().to_string().as_bytes()).0)
    }

    /// A statement of the key for `url`, to be put into a request that another key signs.
    pub(super) fn statement(&self, url: &str, payload: &Value) -> Result<Value, Error> {
        let protected = json!({ "alg": "ES256", "jwk": self.jwk(), "url": url });
        jws(&protected, payload.to_string().as_bytes(), |signed| self.sign(signed))
    }

    fn sign(&self, signed: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign(&SystemRandom::new(), signed).map_err(|_| Error::Crypto)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// By what the CA knows the key that signs.
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// The key itself: the CA may know of no account with it.
    Key,
    /// The account of this URL.
    Account(&'a str),
}

/// Sends a signed request, and answers the body of what came back. An empty payload reads what is there (RFC 8555, 6.3). A
/// request that is refused for its nonce goes again with the one that came with the refusal.
pub(super) async fn post(
    http: &Http,
    directory: &Directory,
    (key, signer): (&AccountKey, Signer<'_>),
    url: &str,
    payload: &str,
) -> Result<Bytes, Error> {
    let mut attempts = 1;
    loop {
        let (nonce, _) = exchange(http, Method::HEAD, &directory.new_nonce, None).await?;
        let nonce = nonce.ok_or(Error::Str("the CA gives no nonce"))?;
        let protected = match signer {
            Signer::Key => json!({ "alg": "ES256", "jwk": key.jwk(), "nonce": nonce, "url": url }),
            Signer::Account(id) => json!({ "alg": "ES256", "kid": id, "nonce": nonce, "url": url }),
        };
        let request = jws(&protected, payload.as_bytes(), |signed| key.sign(signed))?;
        match exchange(http, Method::POST, url, Some(request.to_string())).await {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(BAD_NONCE) && attempts < ATTEMPTS => {
                attempts += 1;
            }
            answered => return answered.map(|(_, body)| body),
        }
    }
}

/// A JSON web signature (RFC 7515, 7.2.2).
pub(super) fn jws<E>(
    protected: &Value,
    payload: &[u8],
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Value, E> {
    let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = URL_SAFE_NO_PAD.encode(sign(format!("{protected}.{payload}").as_bytes())?);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
}

/// The nonce and the body of an answer that is no problem.
async fn exchange(
    http: &Http,
    method: Method,
    url: &str,
    jose: Option<String>,
) -> Result<(Option<String>, Bytes), Error> {
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

const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// How often a request is sent whose nonces are refused: as often as `instant-acme` does.
const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_request_is_signed_by_the_key_that_it_names() {
        let (_, der) = instant_acme::Key::generate_pkcs8().unwrap();
        let key = AccountKey::from_der(&der).unwrap();
        let signed = jws(&json!({ "alg": "ES256", "jwk": key.jwk() }), b"{}", |signed| key.sign(signed)).unwrap();
        let part = |name: &str| signed[name].as_str().unwrap().to_owned();
        let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let protected: Value = serde_json::from_slice(&octets(&part("protected"))).unwrap();
        let half = |name: &str| octets(protected["jwk"][name].as_str().unwrap());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], half("x"), half("y")].concat());
        let input = format!("{}.{}", part("protected"), part("payload"));
        public.verify(input.as_bytes(), &octets(&part("signature"))).unwrap();
        assert!(public.verify(b"another input", &octets(&part("signature"))).is_err());
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let der = PrivatePkcs8KeyDer::from(vec![0x30, 0]);
        assert!(AccountKey::from_der(&der).is_err());
    }

    #[test]
    fn a_thumbprint_is_that_of_rfc_7638() {
        let (_, der) = instant_acme::Key::generate_pkcs8().unwrap();
        let key = AccountKey::from_der(&der).unwrap();
        let jwk = key.jwk();
        let half = |name: &str| jwk[name].as_str().unwrap().to_owned();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, half("x"), half("y"));
        assert_eq!(key.thumbprint(), URL_SAFE_NO_PAD.encode(sha256(canonical.as_bytes()).0));
    }
}
