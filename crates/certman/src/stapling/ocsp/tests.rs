use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SigningKey,
};
use x509_cert::{
    Certificate,
    der::asn1::{BitString, GeneralizedTime},
    name::Name,
};
use x509_ocsp::{ResponseData, RevokedInfo};

use super::*;
use crate::signatures::ECDSA_SHA256;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A chain whose leaf names these responders.
fn chain(issuer: &Issuer, responders: &[&str]) -> Vec<Vec<u8>> {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    if !responders.is_empty() {
        params.custom_extensions.push(access(responders));
    }
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
    vec![leaf.der().to_vec(), issuer.der().to_vec()]
}

/// The extension authorityInfoAccess (RFC 5280, 4.2.2.1).
fn access(responders: &[&str]) -> CustomExtension {
    let tlv = |tag: u8, content: &[u8]| [[tag, u8::try_from(content.len()).unwrap()].as_slice(), content].concat();
    let ocsp = tlv(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let described = |url: &&str| tlv(0x30, &[ocsp.clone(), tlv(0x86, url.as_bytes())].concat());
    let content = tlv(0x30, &responders.iter().flat_map(described).collect::<Vec<u8>>());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

fn question(issuer: &Issuer) -> Question {
    Question::about(&chain(issuer, &["http://ocsp.example/"])).unwrap().unwrap()
}

/// An instant so many hours from `now()`.
fn hours(hours: i64) -> OcspGeneralizedTime {
    let seconds = u64::try_from((now() + SignedDuration::from_hours(hours)).as_second()).unwrap();
    OcspGeneralizedTime(GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap())
}

/// That the certificate in question is good, from an hour ago and for seven days.
fn good(question: &Question) -> SingleResponse {
    SingleResponse {
        cert_id: question.id.clone(),
        cert_status: CertStatus::good(),
        this_update: hours(-1),
        next_update: Some(hours(7 * 24)),
        single_extensions: None,
    }
}

fn by_name(issuer: &Issuer) -> ResponderId {
    named(issuer.der())
}

fn named(certificate: &[u8]) -> ResponderId {
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    ResponderId::ByName(Name::from_der(certificate.subject().as_raw()).unwrap())
}

fn signed_by(
    key: &KeyPair,
    responder_id: ResponderId,
    responses: Vec<SingleResponse>,
    certs: Option<Vec<Certificate>>,
) -> BasicOcspResponse {
    let tbs_response_data = ResponseData {
        version: Default::default(),
        responder_id,
        produced_at: hours(-1),
        responses,
        response_extensions: None,
    };
    let signature = key.sign(&tbs_response_data.to_der().unwrap()).unwrap();
    let oid = ObjectIdentifier::new_unwrap(ECDSA_SHA256);
    BasicOcspResponse {
        tbs_response_data,
        signature_algorithm: AlgorithmIdentifierOwned { oid, parameters: None },
        signature: BitString::from_bytes(&signature).unwrap(),
        certs,
    }
}

fn response(basic: BasicOcspResponse) -> Vec<u8> {
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

/// The issuer's own answer.
fn own(issuer: &Issuer, single: SingleResponse) -> Vec<u8> {
    response(signed_by(issuer.key(), by_name(issuer), vec![single], None))
}

#[test]
fn a_good_answer_of_the_issuer_counts_whichever_way_it_names_itself() {
    let ca = issuer("CA");
    let question = question(&ca);
    assert_eq!(question.url, "http://ocsp.example/");
    let asked = OcspRequest::from_der(&question.body).unwrap();
    assert_eq!(asked.tbs_request.request_list[0].req_cert, question.id);

    let der = own(&ca, good(&question));
    let answer = question.verified(der.clone(), now()).unwrap();
    let expected = (now() - SignedDuration::from_hours(1), now() + SignedDuration::from_hours(7 * 24));
    assert_eq!((answer.response, (answer.this_update, answer.next_update)), (der, expected));

    let (_, parsed) = X509Certificate::from_der(ca.der()).unwrap();
    let by_key = ResponderId::ByKey(OctetString::new(sha1(&parsed.public_key().subject_public_key.data)).unwrap());
    let der = response(signed_by(ca.key(), by_key, vec![good(&question)], None));
    assert!(question.verified(der, now()).is_ok());
    // Among others, and with a hash whose parameters are absent.
    let other = good(&self::question(&ca));
    let mut absent = good(&question);
    absent.cert_id.hash_algorithm.parameters = None;
    let der = response(signed_by(ca.key(), by_name(&ca), vec![other, absent], None));
    assert!(question.verified(der, now()).is_ok());
}

#[test]
fn an_answer_about_another_certificate_does_not_count() {
    let ca = issuer("CA");
    let question = question(&ca);
    let other = self::question(&ca);
    let refused = question.verified(own(&ca, good(&other)), now()).unwrap_err();
    let (expected, found) = (question.id.serial_number.to_string(), other.id.serial_number.to_string());
    assert_eq!(refused, OcspError::OtherCertificate { expected, found });
    // Nor one about the same serial number of another CA.
    let mut elsewhere = good(&question);
    elsewhere.cert_id.issuer_key_hash = OctetString::new(vec![0; 20]).unwrap();
    let refused = question.verified(own(&ca, elsewhere), now());
    assert!(matches!(refused, Err(OcspError::OtherCertificate { .. })), "{refused:?}");
}

#[test]
fn only_the_issuer_answers_and_whom_it_appointed() {
    let (ca, stranger) = (issuer("CA"), issuer("Stranger"));
    let question = question(&ca);
    let verified = |basic: BasicOcspResponse| question.verified(response(basic), now()).map(drop);
    // Under the issuer's name with another key, and under another name.
    let forged = signed_by(stranger.key(), by_name(&ca), vec![good(&question)], None);
    assert_eq!(verified(forged), Err(OcspError::Signature));
    let foreign = signed_by(stranger.key(), by_name(&stranger), vec![good(&question)], None);
    assert_eq!(verified(foreign), Err(OcspError::Responder));

    let delegated = |issuer: &Issuer, purpose: Option<ExtendedKeyUsagePurpose>, year: i32| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Responder");
        params.extended_key_usages = purpose.into_iter().collect();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, issuer).unwrap().der().to_vec();
        let certs = Some(vec![Certificate::from_der(&der).unwrap()]);
        verified(signed_by(&key, named(&der), vec![good(&question)], certs))
    };
    let purpose = Some(ExtendedKeyUsagePurpose::OcspSigning);
    assert_eq!(delegated(&ca, purpose.clone(), 2030), Ok(()));
    let other = Some(ExtendedKeyUsagePurpose::ServerAuth);
    for refused in [
        delegated(&ca, None, 2030),
        delegated(&ca, other, 2030),
        delegated(&ca, purpose.clone(), 2020),
        delegated(&stranger, purpose.clone(), 2030),
        // One whom somebody else of the same name appointed.
        delegated(&issuer("CA"), purpose, 2030),
    ] {
        assert!(matches!(refused, Err(OcspError::NotAppointed(_))), "{refused:?}");
    }
}

#[test]
fn an_altered_answer_does_not_count() {
    let ca = issuer("CA");
    let question = question(&ca);
    let signed = signed_by(ca.key(), by_name(&ca), vec![good(&question)], None);
    let mut longer = signed.clone();
    longer.tbs_response_data.responses[0].next_update = Some(hours(8 * 24));
    assert_eq!(question.verified(response(longer), now()), Err(OcspError::Signature));
    let mut weak = signed.clone();
    // sha1WithRSAEncryption
    weak.signature_algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");
    let refused = question.verified(response(weak), now());
    assert_eq!(refused, Err(OcspError::Algorithm("1.2.840.113549.1.1.5".to_owned())));

    let der = response(signed);
    for cut in 0..der.len() {
        let refused = question.verified(der[..cut].to_vec(), now());
        assert!(matches!(refused, Err(OcspError::Malformed(_))), "{cut}: {refused:?}");
    }
    assert!(question.verified([der.clone(), vec![0]].concat(), now()).is_err());
    assert!(question.verified(der, now()).is_ok(), "the control");
}

#[test]
fn an_answer_holds_now_and_says_until_when() {
    let ca = issuer("CA");
    let question = question(&ca);
    let of = |this_update: OcspGeneralizedTime, next_update: Option<OcspGeneralizedTime>| {
        let single = SingleResponse { this_update, next_update, ..good(&question) };
        question.verified(own(&ca, single), now()).map(drop)
    };
    let expired = of(hours(-2), Some(hours(0)));
    assert!(matches!(expired, Err(OcspError::Expired { .. })), "{expired:?}");
    let future = of(hours(1), Some(hours(2)));
    assert!(matches!(future, Err(OcspError::Future { .. })), "{future:?}");
    assert_eq!(of(hours(-1), None), Err(OcspError::NoEnd));
    assert_eq!(of(hours(-1), Some(hours(-1))), Err(OcspError::NoEnd));
    // A clock that is a little behind.
    let der = own(&ca, SingleResponse { this_update: hours(0), ..good(&question) });
    let behind = now() - SignedDuration::from_mins(5);
    assert!(question.verified(der.clone(), behind).is_ok());
    assert!(question.verified(der, behind - SignedDuration::from_secs(1)).is_err());
}

#[test]
fn a_certificate_that_is_not_good_and_a_responder_that_does_not_say_are_told_apart() {
    let ca = issuer("CA");
    let question = question(&ca);
    let of = |cert_status: CertStatus| {
        question.verified(own(&ca, SingleResponse { cert_status, ..good(&question) }), now()).map(drop)
    };
    let info = RevokedInfo { revocation_time: hours(-24), revocation_reason: None };
    let at = now() - SignedDuration::from_hours(24);
    assert_eq!(of(CertStatus::revoked(info)), Err(OcspError::Revoked { at, reason: "unknown".to_owned() }));
    assert_eq!(of(CertStatus::unknown()), Err(OcspError::Unknown));
    for said in [OcspResponse::try_later(), OcspResponse::unauthorized(), OcspResponse::internal_error()] {
        let refused = question.verified(said.to_der().unwrap(), now());
        assert!(matches!(refused, Err(OcspError::NoAnswer(_))), "{refused:?}");
    }
    let mut empty = OcspResponse::try_later();
    empty.response_status = OcspResponseStatus::Successful;
    assert!(matches!(question.verified(empty.to_der().unwrap(), now()), Err(OcspError::Malformed(_))));
}

#[test]
fn a_responder_is_asked_over_http_and_by_a_chain_that_has_the_issuer() {
    let ca = issuer("CA");
    let asked = |responders: &[&str]| {
        let question = Question::about(&chain(&ca, responders)).unwrap();
        question.map(|question| question.url.to_string())
    };
    assert_eq!(asked(&[]), None);
    assert_eq!(asked(&["ldap://a.example/", "http://b.example/ocsp"]), Some("http://b.example/ocsp".to_owned()));
    for other in ["https://a.example/", "http://user@a.example/", "http:///", "nonsense", ""] {
        assert_eq!(asked(&[other]), None, "{other}");
    }
    let good = chain(&ca, &["http://a.example/"]);
    assert!(Question::about(&good[..1]).unwrap().is_none());
    assert!(Question::about(&[]).unwrap().is_none());
    let other = vec![good[0].clone(), issuer("Other").der().to_vec()];
    let refused = Question::about(&other).unwrap_err().to_string();
    assert!(refused.contains("CN=Other") && refused.contains("CN=CA"), "{refused}");
    assert!(Question::about(&[vec![1], vec![2]]).is_err());
}
