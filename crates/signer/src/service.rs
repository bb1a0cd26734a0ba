//! The answers of the signer.

use std::sync::Arc;

use certseal_resolver::{KeyHolder, LeafKey, Unopened};
use certseal_seal::Sealed;
use rustls::sign::SigningKey;

use crate::{
    opened::OpenedKeys,
    protocol::{Request, Response, SealedFor},
    tls_input::is_tls_input,
};

/// Answers requests with the keys of a holder.
pub struct Service {
    holder: Arc<dyn KeyHolder>,
    opened: OpenedKeys,
}

impl Service {
    /// A service that keeps about `cache_bytes` of opened keys.
    pub fn new(holder: Arc<dyn KeyHolder>, cache_bytes: u64) -> Self {
        Self { holder, opened: OpenedKeys::new(cache_bytes) }
    }

    /// Forgets what was opened, since other unseal keys are loaded now.
    pub fn keys_changed(&self) {
        self.opened.forget();
    }

    /// The answer to the body of a frame, whatever it is.
    pub fn answer(&self, body: &[u8]) -> Response {
        let outcome = match Request::parse(body) {
            Ok(Request::Loaded) => Ok(Response::Loaded(self.holder.loaded())),
            Ok(Request::Check(key)) => self.check(&key).map(|()| Response::Done),
            Ok(Request::Open(key)) => self.open(&key).map(|_| Response::Done),
            Ok(Request::Sign { key, scheme, message }) => {
                if !is_tls_input(scheme, message) {
                    return Response::Refused("only what a TLS server signs is signed here".to_owned());
                }
                self.open(&key).and_then(|key| {
                    let signer = key.choose_scheme(&[scheme]).ok_or_else(|| unusable(SCHEME))?;
                    signer.sign(message).map(Response::Signature).map_err(|_| unusable("the key does not sign"))
                })
            }
            Err(error) => return Response::Refused(error.to_string()),
        };
        outcome.unwrap_or_else(|unopened| match unopened {
            Unopened::Unusable(reason) => Response::Unusable(reason),
            Unopened::Unavailable(reason) => Response::Unavailable(reason),
        })
    }

    fn check(&self, key: &SealedFor<'_>) -> Result<(), Unopened> {
        let (sealed, leaf) = parsed(key)?;
        self.holder.check(&sealed, &leaf)
    }

    fn open(&self, key: &SealedFor<'_>) -> Result<Arc<dyn SigningKey>, Unopened> {
        self.opened.get_or_open(key, || {
            let (sealed, leaf) = parsed(key)?;
            self.holder.signing_key(&sealed, &leaf)
        })
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

fn parsed(key: &SealedFor<'_>) -> Result<(Sealed, LeafKey), Unopened> {
    let sealed = Sealed::parse(key.sealed).map_err(|error| Unopened::Unusable(error.to_string()))?;
    let leaf = LeafKey::from_spki(key.spki).ok_or_else(|| unusable("expected an ECDSA P-256 or RSA public key"))?;
    Ok((sealed, leaf))
}

fn unusable(reason: &str) -> Unopened {
    Unopened::Unusable(reason.to_owned())
}

const SCHEME: &str = "the key does not sign by this scheme";
