//! From keys as a platform sealed them to keys of our own, while both are served.
//!
//! ```text
//! by renewal   certman orders new certificates, with new keys, earlier than it would: spread over days
//! by rewrap    the same keys sealed anew, where they can be opened; certificates stay
//! ```
//!
//! A plan is made and looked at before anything happens. Nobody keeps a list of what is done: a site is left as long as
//! certstore has its key in an old format, so that everything can be run again.

mod appoint;
mod pace;
mod plan;
mod remaining;
mod reseal;
mod status;

pub use appoint::{Appointed, appoint};
pub use pace::{Appointment, Candidate, TooFast, spread};
pub use plan::Plan;
pub use remaining::{Remaining, remaining};
pub use reseal::{Resealed, reseal};
pub use status::{Status, legacy_count};
