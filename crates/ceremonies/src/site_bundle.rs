//! Bundles that certstore answers with, checked before anything in them is used.

use certseal_seal::{Bundle, BundleError, RingError, SealError, VerifyingKeys, spki_digest};
use certseal_unseal::OpenError;
use certseal_wire::{BundleInfo, Digest, DnsName};

/// Why nothing can be done with the bundle of a site.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteBundleError {
    /// It is damaged, or no issuer of the key ring signed it.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It is another site's.
    #[error("certstore has the bundle of {0} there: it swapped them")]
    Swapped(DnsName),
    /// Its certificate is none.
    #[error("the bundle's certificate does not parse")]
    NoCertificate,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its key is another one than that of its certificate.
    #[error("the sealed key is not the certificate's")]
    OtherKey,
    /// As before, found while the key was to be sealed anew.
    #[error("the key is not the certificate's: have it issued again")]
    OtherKeyToSeal,
    /// No pool may serve it.
    #[error("the bundle is for no pool")]
    NoPool,
    /// The key ring has no key to seal to.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// It cannot be sealed anew.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The bundle of `site` and what its issuer states about it, if one of `issuers` put it together for this site.
pub(crate) fn genuine_bundle(
    site: &DnsName,
    bytes: &[u8],
    issuers: &VerifyingKeys,
) -> Result<(Bundle, BundleInfo), SiteBundleError> {
    let bundle = Bundle::parse(bytes)?;
    let info = bundle.verify(issuers)?;
    if info.site != *site {
        return Err(SiteBundleError::Swapped(info.site));
    }
    Ok((bundle, info))
}

/// The digest of the SubjectPublicKeyInfo in a bundle's certificate.
pub(crate) fn leaf_spki_digest(bundle: &Bundle) -> Result<Digest, SiteBundleError> {
    bundle.leaf_spki().map(spki_digest).ok_or(SiteBundleError::NoCertificate)
}
