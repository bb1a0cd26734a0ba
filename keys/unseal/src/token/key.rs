//! A P-256 key pair in a token: finding, checking and making it, and ECDH with it.

use aws_lc_rs::agreement::{self, ECDH_P256, ParsedPublicKey, PrivateKey, UnparsedPublicKey};
use certseal_seal::{Secret, Suite};
use cryptoki::{
    error::Error,
    mechanism::{
        Mechanism,
        elliptic_curve::{EcKdf, Ecdh1DeriveParams},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use zeroize::Zeroizing;

use super::{TokenError, TokenUri, uri::KeyLabel};

/// A private key in a token, and its public half.
#[derive(Clone)]
pub(super) struct Key {
    private: ObjectHandle,
    public: Vec<u8>,
    point: PointForm,
}

/// How a token takes the other side's point. PKCS#11 3.0 (6.3.17) has every token take it raw; tokens of before may take
/// it as a DER OCTET STRING only, like CKA_EC_POINT.
#[derive(Clone, Copy)]
enum PointForm {
    Raw,
    Der,
}

impl Key {
    /// The one key that `uri` names. It has been seen to agree as its public half says: a later failure is the token's,
    /// not the key's.
    pub(super) fn find(session: &Session, uri: &TokenUri) -> Result<Self, TokenError> {
        let token = uri.token();
        let label = uri.key().ok_or_else(|| TokenError::Unnamed { token: token.to_owned() })?;
        let failed = |error: Error| TokenError::failed(token, &error);
        let unsuited = |reason: String| TokenError::unsuited(token, label, reason);

        let private = one(session, ObjectClass::PRIVATE_KEY, token, label)?.map_err(|count| TokenError::Key {
            what: "private key",
            label: label.to_string(),
            token: token.to_owned(),
            count,
            advice: "`certctl keys generate --token` makes the first; of several, one has to go",
        })?;
        let attributes = session
            .get_attributes(private, &[AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint])
            .map_err(failed)?;
        let mut point = None;
        for attribute in attributes {
            match attribute {
                Attribute::KeyType(KeyType::EC) => {}
                Attribute::KeyType(other) => {
                    return Err(unsuited(format!("expected a key of type CKK_EC, got one of type {other}")));
                }
                Attribute::EcParams(curve) if curve != P256_OID => {
                    return Err(unsuited(format!(
                        "expected the curve P-256 (CKA_EC_PARAMS {P256_OID:02x?}), got {curve:02x?}"
                    )));
                }
                Attribute::EcPoint(octets) => point = Some(octets),
                _ => {}
            }
        }
        // Few tokens show the public half with the private one.
        if point.as_ref().is_none_or(Vec::is_empty) {
            let public = one(session, ObjectClass::PUBLIC_KEY, token, label)?.map_err(|count| TokenError::Key {
                what: "public key",
                label: label.to_string(),
                token: token.to_owned(),
                count,
                advice: "the public half has to lie beside the private one, under the same label",
            })?;
            let found = session.get_attributes(public, &[AttributeType::EcPoint]).map_err(failed)?;
            point = found.into_iter().find_map(|attribute| match attribute {
                Attribute::EcPoint(octets) => Some(octets),
                _ => None,
            });
        }
        let point = point.unwrap_or_default();
        // PKCS#11 2.30 and later has the point in a DER OCTET STRING.
        let public = point.strip_prefix(&DER_PREFIX).unwrap_or(&point).to_vec();
        if !is_point(&public) {
            return Err(unsuited(format!(
                "expected an uncompressed point on P-256 as CKA_EC_POINT, got {} octets that are none",
                point.len()
            )));
        }
        let mut key = Self { private, public, point: PointForm::Raw };
        key.settle(session).map_err(unsuited)?;
        Ok(key)
    }

    /// Makes a key pair under the label that `uri` names, whose private half the token does not give out.
    pub(super) fn generate(session: &Session, uri: &TokenUri) -> Result<(), TokenError> {
        let token = uri.token();
        let label = uri.key().ok_or_else(|| TokenError::Unnamed { token: token.to_owned() })?;
        let failed = |error: Error| TokenError::failed(token, &error);
        let text = || label.to_string().into_bytes();
        if !session.find_objects(&[Attribute::Label(text())]).map_err(failed)?.is_empty() {
            return Err(TokenError::Exists { label: label.to_string(), token: token.to_owned() });
        }
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Derive(true),
            Attribute::Label(text()),
            Attribute::EcParams(P256_OID.to_vec()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Derive(true),
            Attribute::Label(text()),
        ];
        let pair = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).map_err(failed)?;
        let identified = Self::find(session, uri).and_then(|key| {
            let id = [Attribute::Id(Suite::P256.key_id(&key.public).0.to_vec())];
            [pair.0, pair.1].into_iter().try_for_each(|half| session.update_attributes(half, &id)).map_err(failed)
        });
        // A key that is not as it should be must not stay: its label would be taken.
        identified.inspect_err(|_| {
            for half in [pair.0, pair.1] {
                let _ = session.destroy_object(half);
            }
        })
    }

    /// The public half as HPKE serializes it.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The error for a key that is not the one that was there before under its label.
    pub(super) fn is_another(&self, uri: &TokenUri) -> TokenError {
        let id = Suite::P256.key_id(&self.public);
        let reason = format!("another key lies under its label now, {id}: restart to use it");
        match uri.key() {
            Some(label) => TokenError::unsuited(uri.token(), label, reason),
            None => TokenError::Unnamed { token: uri.token().to_owned() },
        }
    }

    /// The x-coordinate of the ECDH output with `peer`, which must be a point on the curve: CKM_ECDH1_DERIVE with CKD_NULL.
    ///
    /// The token makes of it a session object, which is read and destroyed at once. The one copy of it that is not wiped
    /// is the buffer that `cryptoki` frees after it copied the value out.
    pub(super) fn derive(&self, session: &Session, peer: &[u8]) -> Result<Secret<32>, Error> {
        let peer = match self.point {
            PointForm::Raw => peer.to_vec(),
            PointForm::Der => [&DER_PREFIX, peer].concat(),
        };
        let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Private(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        let derived = session.derive_key(&mechanism, self.private, &template)?;
        let value = session.get_attributes(derived, &[AttributeType::Value]);
        // Before the value is looked at, so that nothing keeps it in the token.
        let destroyed = session.destroy_object(derived);
        let mut secret = None;
        for attribute in value? {
            if let Attribute::Value(octets) = attribute {
                let octets = Zeroizing::new(octets);
                secret = octets.as_slice().try_into().ok().map(Secret::copy_of);
            }
        }
        destroyed?;
        secret.ok_or(Error::InvalidValue)
    }

    /// Agrees with a key of our own, once for each form of the point, until both sides have the same.
    fn settle(&mut self, session: &Session) -> Result<(), String> {
        const FAILED: &str = "aws-lc could not make a key to try it with";
        let ours = PrivateKey::generate(&ECDH_P256).map_err(|_| FAILED)?;
        let peer = ours.compute_public_key().map_err(|_| FAILED)?;
        let expected: Secret<32> =
            agreement::agree(&ours, UnparsedPublicKey::new(&ECDH_P256, &self.public), FAILED, |dh| {
                dh.try_into().map(Secret::copy_of).map_err(|_| FAILED)
            })?;
        let mut reasons = Vec::new();
        for form in [PointForm::Raw, PointForm::Der] {
            self.point = form;
            match self.derive(session, peer.as_ref()) {
                // Of a key that exists for this one comparison: its time tells nothing.
                Ok(dh) if dh.expose() == expected.expose() => return Ok(()),
                Ok(_) => reasons.push("a secret that its public half does not lead to".to_owned()),
                Err(error) => reasons.push(super::error::said(&error)),
            }
        }
        reasons.dedup();
        Err(format!(
            "expected ECDH by CKM_ECDH1_DERIVE with CKD_NULL, to a secret that can be read (CKA_DERIVE of the key must be \
             true), got: {}",
            reasons.join("; ")
        ))
    }
}

/// Whether the octets are an uncompressed point on P-256 (SEC 1, 2.3.4), and not the one at infinity.
pub(super) fn is_point(octets: &[u8]) -> bool {
    octets.len() == 65
        && octets.first() == Some(&4)
        && ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, octets)).is_ok()
}

/// The one object of a class with the key's label, or how many there are.
fn one(
    session: &Session,
    class: ObjectClass,
    token: &str,
    label: &KeyLabel,
) -> Result<Result<ObjectHandle, usize>, TokenError> {
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.to_string().into_bytes())];
    let found = session.find_objects(&template).map_err(|error| TokenError::failed(token, &error))?;
    Ok(match found.as_slice() {
        [object] => Ok(*object),
        several => Err(several.len()),
    })
}

/// secp256r1 as a DER object identifier (RFC 5480, 2.1.1.1).
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The prefix of an uncompressed point on P-256 in a DER OCTET STRING.
const DER_PREFIX: [u8; 2] = [0x04, 65];
