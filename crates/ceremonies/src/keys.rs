//! The unseal keys of pools, in the key ring that the security team signs.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use certseal_client::ClientError;
use certseal_seal::{RingMark, SigningKey, Suite, VerifyingKey};
use certseal_service::config::read_private;
use certseal_unseal::{
    UnsealKey, UnsealKeys,
    token::{self, KeyLabel, TokenUri},
};
use certseal_wire::{Base64, Epoch, IssuerEntry, KeyRing, KeyState, PoolName, ProblemKind, UnsealEntry};

use crate::{
    error::{Error, KeyError, KeyRingError},
    files::write_durably,
    ring_client::RingClient,
};

/// A pool that is to get its first unseal key.
#[derive(Debug, Clone)]
pub struct NewPool<'a> {
    /// The pool.
    pub pool: PoolName,
    /// The key's suite.
    pub suite: Suite,
    /// Where the private half goes; nothing may be there yet.
    pub out: KeyPlace,
    /// Issuers that the ring must list from now on, besides those that it lists already.
    pub issuers: &'a [VerifyingKey],
    /// The newest ring known, besides the one that was seen here: an older ring in the store is refused.
    pub seen: RingMark,
}

/// Where the private half of a new key goes.
#[derive(Debug, Clone)]
pub enum KeyPlace {
    /// A file.
    File(PathBuf),
    /// A token, which makes the key itself. The label is made of pool and epoch.
    Token(TokenUri),
}

impl KeyPlace {
    /// The token of a PKCS#11 URI.
    ///
    /// # Errors
    /// When it is none; the message does not repeat it, since it may hold a PIN.
    pub fn token(uri: &str) -> Result<Self, KeyError> {
        Ok(Self::Token(uri.parse()?))
    }

    /// Makes a key and keeps it in this place, durably.
    ///
    /// # Errors
    /// When a file is there already or cannot be written, or the token does not make the key.
    pub fn make_key(&self, pool: &PoolName, epoch: Epoch, suite: Suite) -> Result<UnsealKey, KeyError> {
        match self {
            Self::File(path) => {
                let key = UnsealKey::generate(pool.clone(), epoch, suite).map_err(KeyError::Generate)?;
                let text = key.expose_pem().ok_or(KeyError::NoPrivateHalf)?;
                write_durably(path, &text)?;
                Ok(key)
            }
            Self::Token(uri) => {
                if suite != Suite::P256 {
                    return Err(KeyError::TokenSuite);
                }
                Ok(token::generate(uri, pool.clone(), epoch)?.0)
            }
        }
    }

    /// Refuses a file that is there already.
    ///
    /// # Errors
    /// When it is.
    pub fn check_free(&self) -> Result<(), KeyError> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => Err(KeyError::Taken(path.clone())),
            _ => Ok(()),
        }
    }

    /// The PKCS#11 URI of a pool's key in this place; none in a file.
    pub fn key_uri(&self, pool: &PoolName, epoch: Epoch) -> Option<TokenUri> {
        match self {
            Self::File(_) => None,
            Self::Token(uri) => Some(uri.clone().with_key(KeyLabel { pool: pool.clone(), epoch })),
        }
    }
}

/// The unseal key that an entry of `unseal_keys` names: a file, or a PKCS#11 URI.
///
/// # Errors
/// When the file is not one, others can read it, or the token does not have the key.
pub fn load(place: &str) -> Result<UnsealKey, Error> {
    if TokenUri::is_meant_by(place) {
        let uri = place.parse().map_err(KeyError::Uri)?;
        return Ok(UnsealKey::in_token(&uri).map_err(KeyError::Token)?);
    }
    let text = read_private(Path::new(place))?;
    Ok(UnsealKey::from_pem(&text).map_err(|source| KeyError::NoKey { place: place.to_owned(), source })?)
}

/// The unseal keys in these files and tokens, all of one pool.
///
/// # Errors
/// When one of them cannot be loaded, or is of another pool than the first.
pub fn load_of_one_pool(places: &[String]) -> Result<UnsealKeys, Error> {
    let keys = places.iter().map(|place| load(place)).collect::<Result<Vec<_>, _>>()?;
    let first = keys.first().map(|key| key.pool().clone());
    match keys.iter().find(|key| Some(key.pool()) != first.as_ref()) {
        Some(other) => Err(KeyError::SeveralPools(other.pool().clone()).into()),
        None => Ok(UnsealKeys::from_iter(keys)),
    }
}

/// The unseal keys in these files and tokens, in one set for each pool.
///
/// # Errors
/// When one of them cannot be loaded.
pub fn load_by_pool(places: &[String]) -> Result<Vec<UnsealKeys>, Error> {
    let mut pools: BTreeMap<String, Vec<UnsealKey>> = BTreeMap::new();
    for place in places {
        let key = load(place)?;
        pools.entry(key.pool().to_string()).or_default().push(key);
    }
    Ok(pools.into_values().map(UnsealKeys::from_iter).collect())
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Token(uri) => write!(f, "the new key pair in token {:?}", uri.token()),
        }
    }
}

/// Generates the first unseal key of a pool, writes its private half to a file or has a token make it, and adds its public
/// half to the key ring in certstore. Returns the new ring.
///
/// The key is durable before the ring is uploaded, so no ring ever names a key that nobody has.
///
/// # Errors
/// When the stored ring does not count, the pool has a key already, the key cannot be written or made, or certstore does
/// not take the ring. The last kind says whether the key can be deleted.
pub async fn generate(rings: &RingClient<'_>, security: &SigningKey, new: &NewPool<'_>) -> Result<KeyRing, Error> {
    new.out.check_free()?;
    let ring = rings.current(new.seen).await?;
    refuse_second_key(&ring, &new.pool)?;
    let key = new.out.make_key(&new.pool, FIRST, new.suite);
    let key = key.map_err(|error| KeyError::NotMade(Box::new(error)))?;
    let ring = add_pool(ring, &key, new.issuers)?;
    match rings.put(security, &ring).await? {
        Ok(()) => Ok(ring),
        Err(error) => {
            let advice = after_failed_upload(&error, &key, &new.out);
            Err(KeyError::NotListed { advice, source: Box::new(error) }.into())
        }
    }
}

/// `ring` with `key` as the active key of its pool, with `issuers`, and with the next version.
///
/// # Errors
/// When the pool or the key is in the ring already, or `key` is not of epoch 1.
pub fn add_pool(mut ring: KeyRing, key: &UnsealKey, issuers: &[VerifyingKey]) -> Result<KeyRing, Error> {
    let pool = key.pool();
    if key.epoch() != FIRST {
        return Err(KeyError::Epoch { expected: FIRST, found: key.epoch() }.into());
    }
    refuse_second_key(&ring, pool)?;
    if let Some(entry) = ring.keys.iter().find(|entry| entry.key_id == key.key_id()) {
        return Err(KeyError::OtherPools { key_id: entry.key_id, pool: entry.pool.clone() }.into());
    }
    ring.keys.push(UnsealEntry {
        pool: pool.clone(),
        epoch: key.epoch(),
        state: KeyState::Active,
        suite: key.suite() as u16,
        key_id: key.key_id(),
        public_key: Base64(key.public_key().to_vec()),
    });
    issuers.iter().for_each(|issuer| list_issuer(&mut ring, issuer));
    ring.version = ring.version.checked_add(1).ok_or(KeyRingError::VersionsSpent)?;
    Ok(ring)
}

/// Lists an issuer in `ring`, unless it is there.
pub fn list_issuer(ring: &mut KeyRing, issuer: &VerifyingKey) {
    let id = issuer.id();
    if ring.issuers.iter().all(|entry| entry.id != id) {
        ring.issuers.push(IssuerEntry { id, public_key: Base64(issuer.as_bytes().to_vec()) });
    }
}

fn refuse_second_key(ring: &KeyRing, pool: &PoolName) -> Result<(), KeyError> {
    match ring.keys.iter().find(|entry| entry.pool == *pool) {
        Some(entry) => Err(KeyError::Second { pool: pool.clone(), key_id: entry.key_id, epoch: entry.epoch }),
        None => Ok(()),
    }
}

/// Says what became of the ring, and what to do with the key file. Only a clear refusal shows that nothing was stored.
fn after_failed_upload(error: &ClientError, key: &UnsealKey, out: &KeyPlace) -> String {
    match error {
        ClientError::Refused(problem) if problem.kind == ProblemKind::Conflict => {
            format!("someone else changed the key ring first: delete {out}, which no ring names, and run this again")
        }
        ClientError::Refused(problem) if problem.status < 500 || problem.kind == ProblemKind::Full => {
            format!("the key ring was not changed: {out} is named by no ring and can be deleted")
        }
        _ => format!(
            "it is not known whether certstore took the key ring: keep {out} until `certctl keys list` answers, and \
             delete it only if key {} is not listed",
            key.key_id()
        ),
    }
}

/// The epoch of a pool's first key.
pub const FIRST: Epoch = Epoch(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pool: &str, suite: Suite) -> UnsealKey {
        UnsealKey::generate(pool.parse().unwrap(), FIRST, suite).unwrap()
    }

    #[test]
    fn a_pool_is_added_with_its_active_key_and_missing_issuers_only() {
        let issuer = SigningKey::generate().unwrap().verifying_key();
        let eu = key("eu", Suite::P256);
        let ring = add_pool(KeyRing::default(), &eu, std::slice::from_ref(&issuer)).unwrap();
        let ring = add_pool(ring, &key("us", Suite::X25519), &[issuer.clone(), issuer.clone()]).unwrap();
        assert_eq!((ring.version, ring.keys.len()), (2, 2));
        assert_eq!(ring.issuers.iter().map(|entry| entry.id).collect::<Vec<_>>(), [issuer.id()]);
        let recipient = certseal_seal::ring_recipient(&ring, eu.pool()).unwrap();
        assert_eq!(recipient, eu.recipient());
    }

    #[test]
    fn a_second_key_for_a_pool_is_refused_in_whatever_state_the_first_is() {
        for state in [KeyState::Pending, KeyState::Active, KeyState::Retiring, KeyState::Retired] {
            let mut ring = add_pool(KeyRing::default(), &key("eu", Suite::P256), &[]).unwrap();
            ring.keys[0].state = state;
            let error = add_pool(ring, &key("eu", Suite::P256), &[]).unwrap_err().to_string();
            assert!(error.contains("pool eu has an unseal key already"), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_pool_or_of_a_later_epoch_is_refused() {
        let eu = key("eu", Suite::P256);
        let mut ring = add_pool(KeyRing::default(), &eu, &[]).unwrap();
        ring.keys[0].pool = "us".parse().unwrap();
        let error = add_pool(ring, &eu, &[]).unwrap_err().to_string();
        assert!(error.contains("each pool needs a key of its own"), "{error}");

        let second = UnsealKey::generate("eu".parse().unwrap(), Epoch(2), Suite::P256).unwrap();
        let error = add_pool(KeyRing::default(), &second, &[]).unwrap_err().to_string();
        assert!(error.contains("of epoch 1, got epoch 2"), "{error}");
    }

    #[test]
    fn the_last_version_is_not_passed() {
        let ring = KeyRing { version: u64::MAX, ..KeyRing::default() };
        assert!(add_pool(ring, &key("eu", Suite::P256), &[]).is_err());
    }
}
