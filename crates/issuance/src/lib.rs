//! The decisions of certman, apart from its actions.
//!
//! A [`Site`] is everything that is known of one customer website: the state that is wanted, the state that is stored,
//! and the work that lies between the two. Its owner asks for the [`Site::next`] action, performs it, and tells the
//! site the [`Outcome`]:
//!
//! ```text
//!            next(now) -> Do(action)              an effect, one at a time
//!   Site  <------------------------->  certman  <----------------------------> CA, certstore, journal
//!            after(outcome, moment)               time, chance, answers
//! ```
//!
//! Nothing here waits, reads a clock, throws dice or talks to anybody: time and chance come with [`Moment`], and waiting is
//! [`Next::WakeAt`]. The same code therefore runs in certman and in a simulation of a million sites.
//!
//! An order goes through the steps of RFC 8555, 7.4, and takes one action for each:
//!
//! ```text
//! requested -> (the names are looked at) -> account ready -> vouched for -> authorizing -> challenges known -> published -> challenge pending
//!     ^                                             |                                              |
//!     |                                             +--- all names are authorized already ---------+
//!     |                                                                                            v
//!     +---- the CA rejected the order <---- issued <- downloading <- retrieving <- finalizing <- authorized
//!                                             |                                     ^    |
//!                                             v                              key sealed <+ it may have been finalized before
//!                                          (stored)
//! ```

mod action;
mod attempt;
pub mod budget;
mod issued;
mod lane;
mod looked;
mod moment;
mod news;
mod order;
mod policy;
pub mod preflight;
mod record;
mod renewal;
mod site;
mod staging;
mod stapling;
mod status;
mod version;

pub use action::{Action, Booked, Booking, Due, Failure, FailureKind, Next, Outcome, Work};
pub use attempt::{Attempt, Attempts, Wait};
pub use issued::{Compromised, Issued};
pub use lane::{Lane, Turns};
pub use looked::Looked;
pub use moment::Moment;
pub use news::news;
pub use order::{
    AccountRef, Answer, AuthorityId, Lineage, Look, OrderRef, OrderReport, OrderState, Revocation, SealedKey, Stage,
    Step,
};
pub use policy::{Policy, ways};
pub use record::{RecordError, read};
pub use renewal::{Advice, Window};
pub use site::{Format, Site};
pub use staging::{Progress, Staging, StepCounts, Verdict};
pub use stapling::Stapling;
pub use status::{order_status, site_status};
