//! No two secrets share memory, whatever threads make and drop them in whatever order.

#![allow(clippy::unwrap_used)]

use std::{sync::mpsc, thread};

use certseal_guarded::Locked;
use proptest::{collection::vec, prelude::*};

/// Takes one secret, or drops the one at this place among those that are alive.
#[derive(Debug, Clone)]
enum Step {
    Take,
    Drop(prop::sample::Index),
    /// Hands it to the next thread, which keeps or drops it.
    Pass(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Take),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<prop::sample::Index>().prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_two_live_secrets_share_a_slot(plans in vec(vec(step(), 0..400), 2..9)) {
        let (outs, mut ins): (Vec<_>, Vec<_>) = plans.iter().map(|_| mpsc::channel()).unzip();
        ins.rotate_left(1);
        let alive: Vec<Held> = thread::scope(|scope| {
            let threads: Vec<_> = (0_u64..)
                .zip(plans.iter().zip(outs.into_iter().zip(ins)))
                .map(|(number, (plan, (out, passed)))| scope.spawn(move || run(number, plan, &out, passed)))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut places: Vec<_> = alive.iter().map(|held| held.secret.expose().as_ptr() as usize).collect();
        places.sort_unstable();
        prop_assert!(places.windows(2).all(|two| two[1] - two[0] >= 64));
        prop_assert!(alive.iter().all(Held::is_intact));
    }
}

/// A secret, and what was put into it.
struct Held {
    mark: u64,
    secret: Locked<64>,
}

impl Held {
    fn new(mark: u64) -> Self {
        // The octets from before must be gone.
        let fill = |octets: &mut [u8; 64]| {
            let clean = *octets == [0; 64];
            *octets = pattern(mark);
            if clean { Ok(()) } else { Err("a slot that was not wiped") }
        };
        Self { mark, secret: Locked::fill(fill).unwrap_or_else(|error| panic!("{error}")) }
    }

    fn is_intact(&self) -> bool {
        *self.secret.expose() == pattern(self.mark)
    }
}

fn pattern(mark: u64) -> [u8; 64] {
    let mut octets = [0xa5; 64];
    octets[..8].copy_from_slice(&mark.to_be_bytes());
    octets[56..].copy_from_slice(&mark.to_be_bytes());
    octets
}

fn run(number: u64, plan: &[Step], out: &mpsc::Sender<Held>, passed: mpsc::Receiver<Held>) -> Vec<Held> {
    let mut alive = Vec::new();
    for (count, step) in (0_u64..).zip(plan) {
        match step {
            Step::Take => alive.push(Held::new(number << 32 | count)),
            Step::Drop(_) | Step::Pass(_) if alive.is_empty() => {}
            Step::Drop(at) => {
                let held: Held = alive.swap_remove(at.index(alive.len()));
                assert!(held.is_intact());
            }
            // The receiver may have ended.
            Step::Pass(at) => drop(out.send(alive.swap_remove(at.index(alive.len())))),
        }
        alive.extend(passed.try_recv());
        assert!(alive.iter().all(Held::is_intact));
    }
    alive
}
