//! The chains that a CA offers for a certificate (RFC 8555, 7.4.2): one, and alternates to it.

use http::{HeaderMap, header::LINK};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::signatures::{Unsigned, verify};

/// A chain as DER, leaf first.
pub(super) type Chain = Vec<Vec<u8>>;

/// Reads a chain as a CA sends it.
///
/// # Errors
/// The reason why it is none, for people.
pub(super) fn parsed(text: &str) -> Result<Chain, String> {
    let chain: Result<Chain, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).map(|der| der.map(|der| der.to_vec())).collect();
    let chain = chain.map_err(|error| format!("expected PEM certificates: {error}"))?;
    if chain.is_empty() {
        let excerpt: String = text.chars().take(100).collect();
        return Err(format!("expected PEM certificates, came {excerpt:?}"));
    }
    Ok(chain)
}

/// Reads an alternate to `default`: a chain for the same certificate, and no longer than any that is taken.
///
/// # Errors
/// The reason why it is none, for people.
pub(super) fn alternate(text: &str, default: &[Vec<u8>]) -> Result<Chain, String> {
    let chain = parsed(text)?;
    if chain.first() != default.first() {
        return Err("its first certificate is not that of the order".to_owned());
    }
    let octets: usize = chain.iter().map(Vec::len).sum();
    if octets > MAX_CHAIN {
        return Err(format!("expected a chain of at most {MAX_CHAIN} octets, got {octets}"));
    }
    Ok(chain)
}

/// Looks whether clients can follow a chain now: its certificates have not run out, and each is signed by the next. A signature of
/// an algorithm that is not known here counts by the names.
///
/// # Errors
/// The reason why they cannot, for people.
pub(super) fn follow(chain: &[Vec<u8>], now: Timestamp) -> Result<(), String> {
    let certificates = certificates(chain)?;
    for (index, certificate) in certificates.iter().enumerate() {
        not_ended(index, certificate, now)?;
        let Some(issuer) = certificates.get(index + 1) else { break };
        if !is_issued_by(certificate, issuer) {
            return Err(format!("certificate {} of the chain is not issued by the one after it", index + 1));
        }
    }
    Ok(())
}

/// A chain as clients can follow it: from the leaf on, each certificate is followed by the one that issued it, wherever a CA put that
/// one, and further certificates are left out. None if nothing in the chain issued the leaf.
///
/// # Errors
/// The reason why nobody can use it, for people: a certificate cannot be read, or one that is needed has run out.
pub(super) fn ordered(chain: &[Vec<u8>], now: Timestamp) -> Result<Option<Chain>, String> {
    let certificates = certificates(chain)?;
    let mut rest: Vec<usize> = (1..certificates.len()).collect();
    let mut ordered = vec![0];
    while let Some(certificate) = ordered.last().and_then(|last| certificates.get(*last)) {
        let is_issuer = |index: &usize| is_issued_by(certificate, &certificates[*index]);
        let has_not_ended = |index: &usize| not_ended(*index, &certificates[*index], now).is_ok();
        // Of two for one key, the one that has not ended serves.
        let issuers = || rest.iter().copied().filter(is_issuer);
        let Some(next) = issuers().find(has_not_ended).or_else(|| issuers().next()) else { break };
        rest.retain(|index| *index != next);
        ordered.push(next);
    }
    let is_followed = ordered.len() > 1 || certificates.len() == 1;
    // Which ones are needed is unknown where nothing issued the leaf.
    let needed = if is_followed { ordered } else { (0..certificates.len()).collect() };
    needed.iter().try_for_each(|index| not_ended(*index, &certificates[*index], now))?;
    Ok(is_followed.then(|| needed.iter().map(|index| chain[*index].clone()).collect()))
}

fn certificates(chain: &[Vec<u8>]) -> Result<Vec<X509Certificate<'_>>, String> {
    let certificates = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate));
    certificates.collect::<Result<_, _>>().map_err(|error| format!("expected certificates in DER: {error}"))
}

/// Refuses a certificate that has run out, by its place in the chain.
fn not_ended(index: usize, certificate: &X509Certificate<'_>, now: Timestamp) -> Result<(), String> {
    let end = certificate.validity().not_after;
    if end.timestamp() <= now.as_second() {
        return Err(format!("certificate {} of the chain ended at {end}", index + 1));
    }
    Ok(())
}

/// Whether the names and the signature of a certificate are those of `issuer`.
fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    let (message, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && !matches!(verify(issuer.public_key(), &algorithm, message, signature), Err(Unsigned::Signature))
}

/// Whether an issuer of this common name issued the topmost certificate.
pub(super) fn leads_to(chain: &[Vec<u8>], issuer: &str) -> bool {
    let top = chain.last().and_then(|der| X509Certificate::from_der(der).ok());
    top.is_some_and(|(_, top)| {
        let mut names = top.issuer().iter_common_name();
        names.any(|name| name.as_str().is_ok_and(|name| name == issuer))
    })
}

/// The URLs of the alternates that an answer names in its links (RFC 8288); of very many the first ones.
pub(super) fn alternates(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(alternates_in).take(MAX_ALTERNATES).map(str::to_owned).collect()
}

/// The targets of the links in a field that have the relation `alternate`.
fn alternates_in(field: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), field);
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, after)| after.split_once('>')) {
        let (parameters, further) = after.split_at(end_of(after, ','));
        if is_alternate(parameters) {
            found.push(target);
        }
        rest = further;
    }
    found
}

/// The place of the first `separator` outside of quotes, or the end.
fn end_of(text: &str, separator: char) -> usize {
    let mut is_quoted = false;
    for (place, character) in text.char_indices() {
        if character == '"' {
            is_quoted = !is_quoted;
        } else if character == separator && !is_quoted {
            return place;
        }
    }
    text.len()
}

/// Whether the relation is among a link's parameters.
fn is_alternate(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, further) = parameters.split_at(end_of(parameters, ';'));
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("alternate"));
        }
        parameters = further.strip_prefix(';').unwrap_or_default();
    }
    false
}

/// The most octets of a chain: three certificates of the usual size have 4,000.
pub(crate) const MAX_CHAIN: usize = 64 * 1024;
/// Let's Encrypt has offered two at most.
const MAX_ALTERNATES: usize = 8;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    /// A chain of a leaf and of an intermediate that a root of this name issued.
    fn chain(root: &str) -> Chain {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let root = CertifiedIssuer::self_signed(authority(root), KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let middle = CertifiedIssuer::signed_by(authority("middle"), key, &root).unwrap();
        let leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &middle).unwrap();
        vec![leaf.der().to_vec(), middle.der().to_vec()]
    }

    fn text(chain: &[Vec<u8>]) -> String {
        let pem = |der: &Vec<u8>| certseal_seal::secret_pem::encode_crlf("CERTIFICATE", der).to_string();
        chain.iter().map(pem).collect()
    }

    #[test]
    fn a_chain_leads_to_the_issuer_of_its_topmost_certificate() {
        let chain = chain("Root X");
        assert!(leads_to(&chain, "Root X"));
        assert!(!leads_to(&chain, "middle"), "the leaf's issuer is another one");
        assert!(!leads_to(&chain, "root x") && !leads_to(&chain, "Root") && !leads_to(&chain, ""));
        assert!(!leads_to(&[], "Root X") && !leads_to(&[vec![1, 2, 3]], "Root X"));
    }

    #[test]
    fn an_alternate_is_for_the_same_certificate_and_no_longer_than_a_chain_may_be() {
        let default = chain("Root X");
        let mut other = chain("Root Y");
        assert!(alternate(&text(&other), &default).unwrap_err().contains("not that of the order"));
        other[0] = default[0].clone();
        assert_eq!(alternate(&text(&other), &default).unwrap(), other);
        assert!(leads_to(&other, "Root Y"));
        let mut long = default.clone();
        long.push(vec![0; MAX_CHAIN]);
        assert!(alternate(&text(&long), &default).unwrap_err().contains("at most"));
        assert!(alternate("<html>", &default).unwrap_err().contains("expected PEM certificates"));
    }

    #[test]
    fn a_chain_is_followed_from_each_certificate_to_the_one_that_signed_it_and_not_beyond_their_time() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let (one, other) = (chain("Root X"), chain("Root X"));
        assert_eq!(follow(&one, now), Ok(()));
        // The names are the same, and the key is another one.
        let mixed = [one[0].clone(), other[1].clone()];
        assert_eq!(follow(&mixed, now).unwrap_err(), "certificate 1 of the chain is not issued by the one after it");
        assert!(follow(&[one[1].clone(), one[0].clone()], now).unwrap_err().contains("not issued by"));
        assert!(follow(&[vec![1, 2, 3]], now).unwrap_err().contains("expected certificates in DER"));
        let later: Timestamp = "4096-01-02T00:00:00Z".parse().unwrap();
        assert!(follow(&one, later).unwrap_err().contains("certificate 1 of the chain ended at"));
    }

    #[test]
    fn a_chain_in_another_order_or_with_more_in_it_is_put_in_order_and_one_without_the_issuer_is_told_from_it() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let (one, other) = (chain("Root X"), chain("Root Y"));
        assert_eq!(ordered(&one, now), Ok(Some(one.clone())));
        assert_eq!(ordered(&one[..1], now), Ok(Some(vec![one[0].clone()])));
        // An intermediate of the same name, another leaf, and one that is there twice.
        let more = [&one[0], &other[1], &other[0], &one[1], &one[1]].map(Vec::clone);
        assert!(follow(&more, now).is_err());
        assert_eq!(ordered(&more, now), Ok(Some(one.clone())));
        assert_eq!(ordered(&[one[0].clone(), other[1].clone()], now), Ok(None), "nothing in it issued the leaf");
        assert!(ordered(&[one[0].clone(), vec![1, 2, 3]], now).unwrap_err().contains("expected certificates in DER"));
        let later: Timestamp = "4096-01-02T00:00:00Z".parse().unwrap();
        for chain in [&one[..], &[one[0].clone(), other[1].clone()]] {
            assert!(ordered(chain, later).unwrap_err().contains("certificate 1 of the chain ended at"));
        }
    }

    #[test]
    fn alternates_are_the_links_of_that_relation_in_their_order_and_few() {
        let found = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(LINK, field.parse().unwrap());
            }
            alternates(&headers)
        };
        // As Boulder and Pebble send them.
        let sent =
            ["<https://ca/dir>;rel=\"index\"", "<https://ca/1>;rel=\"alternate\"", "<https://ca/2>; rel=alternate"];
        assert_eq!(found(&sent), ["https://ca/1", "https://ca/2"]);
        let together =
            "<https://ca/1>; title=\"a, <b>; rel=alternate\"; rel=\"up\", <https://ca/2>;rel=\"next Alternate\"";
        assert_eq!(found(&[together]), ["https://ca/2"]);
        for nothing in
            ["", "https://ca/1; rel=alternate", "<https://ca/1", "<https://ca/1>", "<https://ca/1>; alternate"]
        {
            assert_eq!(found(&[nothing]), Vec::<String>::new(), "{nothing}");
        }
        let many = "<https://ca/1>;rel=alternate,".repeat(100);
        assert_eq!(found(&[&many]).len(), MAX_ALTERNATES);
    }
}
