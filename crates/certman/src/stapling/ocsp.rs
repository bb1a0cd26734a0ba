//! The question about a certificate, and what an answer has to be before it is sent to visitors (RFC 6960; RFC 5019).
//!
//! The way to a responder is in the clear, and certstore is not trusted either: an answer counts by its signature alone.

use aws_lc_rs::digest;
use http::Uri;
use jiff::{SignedDuration, Timestamp};
use x509_cert::{
    der::{
        Decode, Encode, Header, Reader, SliceReader,
        asn1::{Null, ObjectIdentifier, OctetString},
    },
    serial_number::SerialNumber,
    spki::AlgorithmIdentifierOwned,
};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, OcspResponseStatus, Request,
    ResponderId, SingleResponse, TbsRequest,
};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::signatures::{Unsigned, verify};

/// A verified answer: the certificate is good, says its CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OcspAnswer {
    /// An OCSPResponse, as DER.
    pub(crate) response: Vec<u8>,
    /// From when on it holds.
    pub(crate) this_update: Timestamp,
    /// When it has run out.
    pub(crate) next_update: Timestamp,
}

/// Why there is no question, or an answer does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OcspError {
    /// A certificate of the chain.
    #[error("expected a chain whose second certificate is the issuer of the first, {0}")]
    Chain(String),
    /// No DER of the right form.
    #[error("expected an OCSP answer, got octets that are none: {0}")]
    Malformed(String),
    /// An answer without a word on the certificate (RFC 6960, 4.2.1).
    #[error("expected an answer on the certificate, the responder says {0}")]
    NoAnswer(&'static str),
    /// An answer of another type.
    #[error("expected a basic answer (RFC 6960, 4.2.1), got one of type {0}")]
    Type(String),
    /// An answer by somebody who shows no certificate.
    #[error(
        "expected an answer by the certificate's issuer, or with the certificate of whom it delegates to, got neither"
    )]
    Responder,
    /// A responder whom the issuer did not appoint (RFC 6960, 4.2.2.2).
    #[error("expected a responder that the certificate's issuer appointed: {0}")]
    NotAppointed(&'static str),
    /// A signature by an algorithm that is not verified here.
    #[error("expected a signature by ECDSA over P-256 or P-384, or by RSA, with SHA-2, got algorithm {0}")]
    Algorithm(String),
    /// A signature of somebody else, or over something else.
    #[error("the answer is not what its responder signed")]
    Signature,
    /// An answer about other certificates.
    #[error("expected an answer on serial number {expected}, got one on {found}")]
    OtherCertificate {
        /// The certificate's.
        expected: String,
        /// The first one in the answer.
        found: String,
    },
    /// An answer without an end, or one that ends before it begins.
    #[error("expected an answer that holds until an instant (RFC 5019, 2.2.4), got one without")]
    NoEnd,
    /// An answer from the future.
    #[error("expected an answer that holds at {now}, got one from {this_update}: a clock is wrong")]
    Future {
        /// From when on it holds.
        this_update: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// An answer from the past.
    #[error("expected an answer that holds at {now}, got one until {next_update}")]
    Expired {
        /// When it ran out.
        next_update: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// A certificate that nobody may trust any more.
    #[error("the certificate was revoked at {at}, says its CA, for reason {reason}: have it issued again")]
    Revoked {
        /// When.
        at: Timestamp,
        /// Why (RFC 5280, 5.3.1).
        reason: String,
    },
    /// A certificate that the responder does not know.
    #[error("the responder does not know the certificate")]
    Unknown,
}

impl From<Unsigned> for OcspError {
    fn from(unsigned: Unsigned) -> Self {
        match unsigned {
            Unsigned::Algorithm(oid) => Self::Algorithm(oid),
            Unsigned::Signature => Self::Signature,
        }
    }
}

/// A question for the responder of one certificate.
#[derive(Debug)]
pub(crate) struct Question {
    /// Whom it goes to.
    pub(crate) url: Uri,
    /// An OCSPRequest, as DER. It has no nonce, so that responders can answer from what they have ready (RFC 5019, 2.1.1).
    pub(crate) body: Vec<u8>,
    id: CertId,
    /// The issuer's certificate, as DER.
    issuer: Vec<u8>,
}

impl Question {
    /// The question about the first certificate of a chain; none if it names no responder that is asked here, or comes without
    /// its issuer.
    ///
    /// # Errors
    /// [`OcspError::Chain`].
    pub(crate) fn about(chain: &[Vec<u8>]) -> Result<Option<Self>, OcspError> {
        let [leaf, issuer, ..] = chain else { return Ok(None) };
        let unreadable = |_| OcspError::Chain("one of which cannot be read".to_owned());
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(unreadable)?;
        let Some(url) = responder(&leaf) else { return Ok(None) };
        let (_, parsed) = X509Certificate::from_der(issuer).map_err(unreadable)?;
        if leaf.issuer().as_raw() != parsed.subject().as_raw() {
            let (expected, found) = (leaf.issuer(), parsed.subject());
            return Err(OcspError::Chain(format!("got {found} in the place of {expected}")));
        }
        let id = cert_id(&leaf, &parsed)?;
        let request = Request { req_cert: id.clone(), single_request_extensions: None };
        let tbs_request = TbsRequest { request_list: vec![request], ..TbsRequest::default() };
        let body = OcspRequest { tbs_request, optional_signature: None }.to_der().map_err(malformed)?;
        Ok(Some(Self { url, body, id, issuer: issuer.clone() }))
    }

    /// The answer, if it counts at `now`.
    ///
    /// # Errors
    /// [`OcspError`]: nothing of the answer is used then.
    pub(crate) fn verified(&self, response: Vec<u8>, now: Timestamp) -> Result<OcspAnswer, OcspError> {
        let OcspResponse { response_status, response_bytes } = OcspResponse::from_der(&response).map_err(malformed)?;
        if let Some(said) = refusal(response_status) {
            return Err(OcspError::NoAnswer(said));
        }
        let bytes = response_bytes.ok_or_else(|| OcspError::Malformed("it is empty".to_owned()))?;
        if bytes.response_type != BASIC {
            return Err(OcspError::Type(bytes.response_type.to_string()));
        }
        let der = bytes.response.as_bytes();
        let basic = BasicOcspResponse::from_der(der).map_err(malformed)?;
        self.is_signed(&basic, signed_part(der)?, now)?;
        let single = self.own(&basic.tbs_response_data.responses)?;
        let this_update = instant(&single.this_update)?;
        let next_update = single.next_update.as_ref().map(instant).transpose()?;
        let next_update = next_update.filter(|next| *next > this_update).ok_or(OcspError::NoEnd)?;
        if this_update > now + TOLERANCE {
            return Err(OcspError::Future { this_update, now });
        }
        if next_update <= now {
            return Err(OcspError::Expired { next_update, now });
        }
        match &single.cert_status {
            CertStatus::Good(_) => Ok(OcspAnswer { response, this_update, next_update }),
            CertStatus::Revoked(info) => {
                let reason =
                    info.revocation_reason.map_or_else(|| "unknown".to_owned(), |reason| format!("{reason:?}"));
                Err(OcspError::Revoked { at: instant(&info.revocation_time)?, reason })
            }
            CertStatus::Unknown(_) => Err(OcspError::Unknown),
        }
    }

    /// What an answer says of the certificate in question, of all that it may speak of.
    fn own<'a>(&self, responses: &'a [SingleResponse]) -> Result<&'a SingleResponse, OcspError> {
        // The parameters of the hash may be absent, or NULL.
        let is_own = |single: &&SingleResponse| {
            let CertId { hash_algorithm, issuer_name_hash, issuer_key_hash, serial_number } = &single.cert_id;
            hash_algorithm.oid == SHA1
                && *issuer_name_hash == self.id.issuer_name_hash
                && *issuer_key_hash == self.id.issuer_key_hash
                && *serial_number == self.id.serial_number
        };
        responses.iter().find(is_own).ok_or_else(|| OcspError::OtherCertificate {
            expected: self.id.serial_number.to_string(),
            found: responses.first().map_or_else(|| "none".to_owned(), |other| other.cert_id.serial_number.to_string()),
        })
    }

    /// Whether the issuer signed the answer, or somebody whom it appointed (RFC 6960, 4.2.2.2). The answer says which of them to
    /// look at.
    fn is_signed(&self, basic: &BasicOcspResponse, signed: &[u8], now: Timestamp) -> Result<(), OcspError> {
        let (_, issuer) = X509Certificate::from_der(&self.issuer).map_err(malformed)?;
        let algorithm = basic.signature_algorithm.oid.to_string();
        let signature = basic.signature.raw_bytes();
        let id = &basic.tbs_response_data.responder_id;
        if is_responder(id, &issuer)? {
            return Ok(verify(issuer.public_key(), &algorithm, signed, signature)?);
        }
        for certificate in basic.certs.iter().flatten().take(MOST_CERTIFICATES) {
            let der = certificate.to_der().map_err(malformed)?;
            let (_, responder) = X509Certificate::from_der(&der).map_err(malformed)?;
            if is_responder(id, &responder)? {
                verify(responder.public_key(), &algorithm, signed, signature)?;
                return is_appointed(&responder, &issuer, now);
            }
        }
        Err(OcspError::Responder)
    }
}

/// The first responder that a certificate names and that is asked here: over HTTP in the clear, as the CA/Browser Forum's
/// Baseline Requirements (7.1.2.7.7) have it.
fn responder(leaf: &X509Certificate<'_>) -> Option<Uri> {
    let access = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    })?;
    access.iter().find_map(|described| match &described.access_location {
        GeneralName::URI(uri) if described.access_method.to_id_string() == OCSP && uri.len() <= MAX_URL => {
            uri.parse::<Uri>().ok().filter(is_plain)
        }
        _ => None,
    })
}

fn is_plain(url: &Uri) -> bool {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    url.scheme_str() == Some("http") && !authority.is_empty() && !authority.contains('@')
}

fn cert_id(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Result<CertId, OcspError> {
    // Of one octet's length: longer ones are refused below.
    let raw = leaf.raw_serial();
    let length = u8::try_from(raw.len()).ok().filter(|length| *length < 0x80);
    let length = length.ok_or_else(|| OcspError::Chain("one of which has an endless serial number".to_owned()))?;
    let serial = [[INTEGER, length].as_slice(), raw].concat();
    Ok(CertId {
        // The one hash that all responders know (RFC 5019, 2.1.1). It names a certificate, and protects nothing.
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: OctetString::new(sha1(leaf.issuer().as_raw())).map_err(malformed)?,
        issuer_key_hash: OctetString::new(sha1(&issuer.public_key().subject_public_key.data)).map_err(malformed)?,
        serial_number: SerialNumber::from_der(&serial).map_err(malformed)?,
    })
}

/// What a responder says that gives no answer.
fn refusal(status: OcspResponseStatus) -> Option<&'static str> {
    match status {
        OcspResponseStatus::Successful => None,
        OcspResponseStatus::MalformedRequest => Some("that it cannot read the question (malformedRequest)"),
        OcspResponseStatus::InternalError => Some("that something is wrong with it (internalError)"),
        OcspResponseStatus::TryLater => Some("to come back later (tryLater)"),
        OcspResponseStatus::SigRequired => Some("that it wants questions to be signed (sigRequired)"),
        OcspResponseStatus::Unauthorized => Some("that it may not say (unauthorized)"),
    }
}

/// The octets of a basic answer that its signature covers, as they came.
fn signed_part(basic: &[u8]) -> Result<&[u8], OcspError> {
    let mut reader = SliceReader::new(basic).map_err(malformed)?;
    Header::decode(&mut reader).map_err(malformed)?;
    reader.tlv_bytes().map_err(malformed)
}

/// Whether the answer says that it is by the holder of this certificate.
fn is_responder(id: &ResponderId, certificate: &X509Certificate<'_>) -> Result<bool, OcspError> {
    Ok(match id {
        ResponderId::ByName(name) => name.to_der().map_err(malformed)? == certificate.subject().as_raw(),
        ResponderId::ByKey(hash) => hash.as_bytes() == sha1(&certificate.public_key().subject_public_key.data),
    })
}

/// Whether the issuer lets this responder answer for it (RFC 6960, 4.2.2.2).
fn is_appointed(
    responder: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(), OcspError> {
    let algorithm = responder.signature_algorithm.algorithm.to_id_string();
    let signature = &responder.signature_value.data;
    let is_of_issuer = responder.issuer().as_raw() == issuer.subject().as_raw();
    let is_signed =
        is_of_issuer && verify(issuer.public_key(), &algorithm, responder.tbs_certificate.as_ref(), signature).is_ok();
    if !is_signed {
        return Err(OcspError::NotAppointed("another one signed its certificate"));
    }
    let validity = responder.validity();
    if !(validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now.as_second()) {
        return Err(OcspError::NotAppointed("its certificate is not valid now"));
    }
    match responder.extended_key_usage() {
        Ok(Some(usage)) if usage.value.ocsp_signing => Ok(()),
        _ => Err(OcspError::NotAppointed("its certificate is not for the purpose id-kp-OCSPSigning")),
    }
}

fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

fn instant(time: &OcspGeneralizedTime) -> Result<Timestamp, OcspError> {
    let seconds = i64::try_from(time.0.to_unix_duration().as_secs()).map_err(malformed)?;
    Timestamp::from_second(seconds).map_err(malformed)
}

fn malformed(error: impl ToString) -> OcspError {
    OcspError::Malformed(error.to_string())
}

/// Clocks differ.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates of an answer that are looked at.
const MOST_CERTIFICATES: usize = 4;
/// Octets of a responder's address.
const MAX_URL: usize = 1000;
/// The tag of an INTEGER.
const INTEGER: u8 = 2;

/// id-pkix-ocsp-basic (RFC 6960, 4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// id-ad-ocsp (RFC 5280, 4.2.2.1).
const OCSP: &str = "1.3.6.1.5.5.7.48.1";

#[cfg(test)]
mod tests;
