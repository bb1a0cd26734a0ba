//! Things that are counted, in all and of each caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use certseal_wire::Caller;

/// So many of something, and a share for each caller.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Pot>);

#[derive(Debug)]
struct Pot {
    in_all: usize,
    of_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    callers: HashMap<String, usize>,
}

/// Some of a caller's share; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    pot: Arc<Pot>,
    caller: String,
    count: usize,
}

/// The share that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The caller has its share already.
    OfCaller,
    /// All callers together have what there is.
    InAll,
}

impl Shares {
    /// `in_all` of something, and of it at most `of_each` for one caller.
    pub fn new(in_all: usize, of_each: usize) -> Self {
        Self(Arc::new(Pot { in_all, of_each, taken: Mutex::default() }))
    }

    /// So many for `caller`.
    ///
    /// # Errors
    /// Says whose limit is reached.
    pub fn take(&self, caller: &Caller, count: usize) -> Result<Share, Lack> {
        let mut share = Share { pot: self.0.clone(), caller: caller.to_string(), count: 0 };
        share.grow(count)?;
        Ok(share)
    }

    /// How many are taken, by all callers.
    pub fn taken(&self) -> usize {
        self.0.lock().in_all
    }
}

impl Share {
    /// So many more.
    ///
    /// # Errors
    /// Says whose limit is reached; the share is as it was then.
    pub fn grow(&mut self, more: usize) -> Result<(), Lack> {
        let mut taken = self.pot.lock();
        let own = taken.callers.get(&self.caller).copied().unwrap_or(0);
        if more > self.pot.of_each.saturating_sub(own) {
            return Err(Lack::OfCaller);
        }
        if more > self.pot.in_all.saturating_sub(taken.in_all) {
            return Err(Lack::InAll);
        }
        taken.in_all += more;
        taken.callers.insert(self.caller.clone(), own + more);
        self.count += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.pot.lock();
        taken.in_all -= self.count;
        if let Some(own) = taken.callers.get_mut(&self.caller) {
            *own -= self.count;
            if *own == 0 {
                taken.callers.remove(&self.caller);
            }
        }
    }
}

impl Pot {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller { role: "edge/eu".parse().unwrap(), name: name.into() }
    }

    #[test]
    fn one_caller_leaves_room_for_others_and_all_together_have_a_limit() {
        let shares = Shares::new(25, 10);
        let mut first = shares.take(&caller("a"), 6).unwrap();
        assert_eq!(shares.take(&caller("a"), 5).unwrap_err(), Lack::OfCaller);
        first.grow(4).unwrap();
        assert_eq!(first.grow(1).unwrap_err(), Lack::OfCaller);
        let second = shares.take(&caller("b"), 10).unwrap();
        assert_eq!(shares.take(&caller("c"), 6).unwrap_err(), Lack::InAll);
        assert_eq!(shares.take(&caller("c"), usize::MAX).unwrap_err(), Lack::OfCaller);
        assert_eq!(shares.taken(), 20);
        drop((first, second));
        assert_eq!(shares.taken(), 0);
        assert!(shares.0.lock().callers.is_empty(), "callers that have nothing are forgotten");
    }
}
