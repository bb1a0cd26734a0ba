//! Copies of all that certstore keeps, whatever engine it keeps it in, and back.
//!
//! ```text
//! {"certseal_backup":1,"at":..,"feed":"EPOCH:SEQ","audit":{"number":..,"hash":".."}}
//! {"table":"bundles","key":"..","revision":3,"value":".."}      every table in the order of its keys
//! ...
//! {"again":3}                                                   after so many records: the changes meanwhile
//! {"table":"routes","key":"..","revision":9,"value":".."}       this one counts, not one above with the same key
//! ...
//! {"audit_after":{"number":0,"hash":".."}}                      the mark before the entries of the audit log
//! {"number":1,"hash":"..","entry":".."}
//! ...
//! {"manifest":{"records":{"bundles":1,..},"again":1,"audit_entries":1,"lines":8,"sha256":".."}}
//! ```
//!
//! A backup is ciphertext and signed documents, like the store itself. `docs/backup.md` has the format in full.

mod changes;
pub(crate) mod copy_error;
mod create;
pub(crate) mod damage;
mod format;
mod restore;
mod verify;

pub use copy_error::CopyError;
pub use create::{Created, create};
pub use damage::Damage;
pub use format::Head;
pub use restore::{Restored, restore};
pub use verify::{Contents, verify};
