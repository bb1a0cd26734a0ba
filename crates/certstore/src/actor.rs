//! A caller, and the address that it calls from.

use std::{fmt, net::IpAddr, ops::Deref};

use certseal_wire::{Caller, Role};

/// A caller, and where it calls from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) caller: Caller,
    /// None for this daemon.
    pub(crate) from: Option<IpAddr>,
}

impl Actor {
    /// certstore itself.
    pub(crate) fn itself() -> Self {
        Self { caller: Caller { role: Role::Service, name: "certstore".into() }, from: None }
    }
}

impl Deref for Actor {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.caller.fmt(f)
    }
}
