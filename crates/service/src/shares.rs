//! How much of something bounded each holder has.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Counts what each holder has taken and not given back.
#[derive(Debug)]
pub struct Shares<K>(Arc<Mutex<HashMap<K, u64>>>);

/// Some of what a holder has; given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    of: Shares<K>,
    holder: K,
    amount: u64,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// So much for `holder`, if it has no more than `most` then.
    pub fn take(&self, holder: K, amount: u64, most: u64) -> Option<Share<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = taken.get(&holder).copied().unwrap_or(0);
        let after = before.checked_add(amount).filter(|after| *after <= most)?;
        taken.insert(holder.clone(), after);
        drop(taken);
        Some(Share { of: self.clone(), holder, amount })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(amount) = taken.get_mut(&self.holder) {
            *amount -= self.amount;
            if *amount == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

/// Whom an address counts for: itself, or with IPv6 its /64, which is what one subscriber gets (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_a_share_and_what_is_dropped_is_free_again() {
        let shares = Shares::default();
        let first = shares.take("a", 3, 4).unwrap();
        assert!(shares.take("a", 2, 4).is_none());
        let second = shares.take("a", 1, 4).unwrap();
        assert!(shares.take("b", 4, 4).is_some(), "another's share was taken");
        assert!(shares.take("a", u64::MAX, u64::MAX).is_none());
        drop(first);
        assert!(shares.take("a", 3, 4).is_some());
        drop(second);
        assert!(shares.0.lock().unwrap().is_empty(), "who has nothing is still known");
    }

    #[test]
    fn an_ipv6_subscriber_is_one_holder() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }
}
