//! The companion of a site that has a certificate of each key type: a site of its own, with the same names, for the RSA one.
//!
//! It has its own orders, renewals and versions, so that either certificate is renewed without the other. It follows what is
//! wanted of the site, and claims no name: the site has them.

use certseal_wire::{KeyType, SiteRequest};

use super::Site;

impl Site {
    /// The site's companion as it is to be after `before`; none where that is as it is already.
    ///
    /// A site gets one once it has a certificate itself: names that cannot be validated cost the CA's budget once then.
    pub fn companion(&self, before: Option<&Self>) -> Option<Self> {
        let is_wanted = !self.departed && self.key_type == KeyType::Both && self.site.companion_of().is_none();
        let ours = |companion: Self| Self { companion_of: Some(self.site.clone()), ..companion };
        match before {
            None if is_wanted && self.certificate.is_some() => {
                Some(ours(Self::new(self.site.companion()?, self.companion_request())))
            }
            Some(before)
                if is_wanted
                    && (before.departed
                        || before.companion_of.is_none()
                        || before.request() != self.companion_request()) =>
            {
                Some(ours(before.clone().changed(self.companion_request())))
            }
            Some(before) if !is_wanted && !before.departed => Some(before.clone().departed()),
            _ => None,
        }
    }

    fn companion_request(&self) -> SiteRequest {
        SiteRequest { key_type: KeyType::Rsa2048, ..self.request() }
    }

    /// The request that would make the site as it is wanted now.
    fn request(&self) -> SiteRequest {
        SiteRequest {
            names: self.names.clone(),
            upstream: self.upstream.clone(),
            pools: self.pools.clone(),
            owner: self.owner.clone(),
            profile: self.profile.clone(),
            key_type: self.key_type,
            challenges: self.challenges.clone(),
        }
    }
}
