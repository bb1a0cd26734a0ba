//! Budgets: how many orders, certificates and failures a CA allows, kept here as the CA keeps them, so that certman asks for
//! nothing that would be refused.
//!
//! A limit is a bucket with one instant in it ([`Limit`]). What an order costs follows the rules of Let's Encrypt, whose server
//! is Boulder ([`order_cost`]). [`take`] takes all of a cost or nothing, and [`settle`] gives back what an order did not use.

mod books;
mod bucket;
mod cost;
mod limit;
mod limits;
mod settlement;

pub use books::{Delay, Entries, Line, Taken, settle, take};
pub use bucket::Bucket;
pub use cost::{Cost, OrderKind, order_cost};
pub use limit::Limit;
pub use limits::{LimitName, Limits, ParseLimitsError};
pub use settlement::{Reserved, Settlement};

#[cfg(test)]
mod tests;
