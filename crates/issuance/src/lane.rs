//! Lanes: which work goes before which, and how much of what is scarce each is sure to get.

use serde::{Deserialize, Serialize};

/// The priorities of work, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// A compromised key, from the word that it is one to its certificate's revocation.
    Incident,
    /// A renewal that is so late that the certificate is near its end.
    Expiring,
    /// A change that somebody asked for, of a site that has a certificate, and the first certificate of a site that was made for a
    /// visitor.
    OnDemand,
    /// The first certificate of a site.
    NewSite,
    /// Renewals at their time.
    Renewal,
    /// Renewals that were put forward to move many sites: a migration.
    Backfill,
}

impl Lane {
    /// All lanes, in their order.
    pub const ALL: [Self; 6] =
        [Self::Incident, Self::Expiring, Self::OnDemand, Self::NewSite, Self::Renewal, Self::Backfill];

    /// The lane's part of what is scarce, in relation to those of the other lanes that wait for it too.
    pub fn weight(self) -> u32 {
        match self {
            Self::Incident => 32,
            Self::Expiring => 16,
            Self::OnDemand => 8,
            Self::NewSite => 8,
            Self::Renewal => 4,
            Self::Backfill => 2,
        }
    }

    /// The name as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incident => "incident",
            Self::Expiring => "expiring",
            Self::OnDemand => "on demand",
            Self::NewSite => "new site",
            Self::Renewal => "renewal",
            Self::Backfill => "backfill",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The weights of all lanes together.
pub(crate) const ALL_WEIGHTS: u32 = 70;

/// Whose turn it is, where lanes share something one piece at a time: stride scheduling (Waldspurger and Weihl, 1995). A lane
/// gets turns in proportion to its weight among the lanes that wait, and what it did not take earlier is not saved up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// How far each lane has come.
    passes: [u64; Lane::ALL.len()],
    /// How far the lane of the last turn had come.
    reached: u64,
}

impl Turns {
    /// The lane whose turn it is among those that wait; none when none waits.
    pub fn next(&mut self, waits: impl Fn(Lane) -> bool) -> Option<Lane> {
        let pass = |lane: &Lane| self.passes[lane.index()].max(self.reached);
        let lane = Lane::ALL.into_iter().filter(|lane| waits(*lane)).min_by_key(pass)?;
        self.reached = pass(&lane);
        self.passes[lane.index()] = self.reached + STRIDE / u64::from(lane.weight());
        Some(lane)
    }
}

/// What a lane of weight 1 goes forward in one turn.
const STRIDE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn turns_of(turns: &mut Turns, count: usize, waiting: &[Lane]) -> Vec<usize> {
        let taken: Vec<Lane> = (0..count).map_while(|_| turns.next(|lane| waiting.contains(&lane))).collect();
        waiting.iter().map(|lane| taken.iter().filter(|taken| *taken == lane).count()).collect()
    }

    #[test]
    fn weights_add_up() {
        assert_eq!(Lane::ALL.into_iter().map(Lane::weight).sum::<u32>(), ALL_WEIGHTS);
    }

    #[test]
    fn lanes_that_wait_share_by_weight_and_none_is_left_out() {
        let mut turns = Turns::default();
        assert_eq!(turns_of(&mut turns, 700, &Lane::ALL), [320, 160, 80, 80, 40, 20]);
        assert_eq!(turns_of(&mut turns, 60, &[Lane::Renewal, Lane::Backfill]), [40, 20]);
        assert_eq!(turns_of(&mut turns, 10, &[Lane::Backfill]), [10], "what nobody else wants");
        assert_eq!(turns.next(|_| false), None);
    }

    #[test]
    fn a_lane_saves_nothing_up() {
        let mut turns = Turns::default();
        turns_of(&mut turns, 10_000, &[Lane::Backfill]);
        let [incident, backfill] = turns_of(&mut turns, 340, &[Lane::Incident, Lane::Backfill])[..] else { panic!() };
        assert!((318..=322).contains(&incident), "{incident} and {backfill}: a quiet year gives no credit");
    }
}
