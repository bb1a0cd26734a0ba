//! What the DNS says of a name, before a CA is asked for a certificate for it; and changes in a zone of the platform.
//!
//! [`Survey`] puts the questions that a CA would put (RFC 8555, 8; RFC 8659, 3) to resolvers of the platform, and to the zone's own
//! servers. It judges nothing: [`certseal_issuance::preflight`] does.
//!
//! ```text
//!            A, AAAA, CAA of the name and of all above it
//!   Survey ----------------------------------------------> two resolvers or more, which validate DNSSEC
//!      |     where one fails: the same unchecked, aliases step by step, and whether it answers at all
//!      |
//!      +--- A, AAAA without recursion; SOA where it fails ---> the servers that the zone above names
//! ```
//!
//! Whoever owns a name chooses its servers, so that their addresses are as hostile as any input: [`Survey`] asks only those that
//! its caller allows, few of them, and none for long.

mod allowed;
mod ask;
mod records;
mod resolver;
mod servers;
mod survey;
mod update;

pub use allowed::AllowedServers;
pub use survey::Survey;
pub use update::{UpdateError, ZoneWriter};
