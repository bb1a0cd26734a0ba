//! Simulates the issuance of a fleet: months of a million sites in a minute.
//!
//! What to do is decided by `certseal-issuance`, the code that certman runs: sites, retries, lanes, budgets, renewals. The CA is a
//! [`Twin`] of Boulder, which keeps its limits by itself, so that a rule that is wrong on one side shows.
//!
//! ```text
//!  Scenario --> Simulation: agenda of instants -> lanes, by turns -> Site::next -> books -> Twin
//!                    |                                                    ^                   |
//!                    |                                                    +---- Site::after <-+
//!                    v
//!                 Report: tables, pictures, the hash of all that happened
//! ```
//!
//! One seed gives one trace. Not simulated one by one: the steps between an order and its certificate, which take a few
//! seconds together, and questions for advice whose answer would be the one from before.

mod agenda;
mod chance;
mod clock;
mod picture;
mod report;
mod scenario;
mod simulation;
mod slots;
mod steps;
mod twin;

pub use picture::{Picture, pictures};
pub use report::{Day, LaneCounts, Onboarding, OnboardingStep, Report, Revoked};
pub use scenario::{Outage, Override, Revocation, Scenario, ScenarioError};
pub use simulation::{Event, Happened, observe, simulate};
pub use twin::{Answer, Placed, Replaced, Twin, TwinLimits};
