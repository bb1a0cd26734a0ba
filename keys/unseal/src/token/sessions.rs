//! Sessions with a token: bounded, shared by all threads, and opened anew when the token was away.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cryptoki::{
    error::{Error, RvError},
    session::Session,
    slot::Slot,
};
use zeroize::Zeroizing;

use super::{
    TokenError, TokenUri,
    key::Key,
    login::{log_in, slot_of},
    module::{Calls, Life, Module},
};

/// Sessions that are logged in, and the key in its token. There is one for each caller at a time, and never more than
/// [`MAX_SESSIONS`].
///
/// Any failure of a call loses the sessions: the call is repeated with a fresh one, for which the token is looked for, logged
/// in to, and the key found again. When that fails, callers fail at once for [`PAUSE`].
pub(super) struct Sessions {
    uri: TokenUri,
    module: Arc<Module>,
    state: Mutex<State>,
    /// Signalled when a session or an answer about the token has come.
    changed: Condvar,
}

struct State {
    link: Option<Link>,
    /// How many links there were.
    links: u64,
    idle: Vec<Session>,
    /// The sessions of this link, idle or in use.
    open: usize,
    limit: usize,
    /// Whether somebody is making a link.
    connecting: bool,
    failed: Option<(Instant, TokenError)>,
    /// The PIN that the token refused.
    refused: Option<Zeroizing<String>>,
}

/// The handles of a token while it is there.
#[derive(Clone)]
struct Link {
    number: u64,
    life: Life,
    slot: Slot,
    key: Key,
}

/// Why a call was not answered, and whether another attempt may be.
struct Failed {
    error: TokenError,
    may_repeat: bool,
}

/// One session that is in use.
struct Lease {
    link: Link,
    session: Session,
}

impl Sessions {
    /// Sessions with the token of `uri`, the first of them open, and the key that it names.
    pub(super) fn open(uri: TokenUri) -> Result<(Self, Key), TokenError> {
        let module = Module::at(uri.module())?;
        let state = State {
            link: None,
            links: 0,
            idle: Vec::new(),
            open: 0,
            limit: MAX_SESSIONS,
            connecting: false,
            failed: None,
            refused: None,
        };
        let sessions = Self { uri, module, state: Mutex::new(state), changed: Condvar::new() };
        let calls = sessions.module.calls();
        let lease = sessions.lease(&calls, None)?;
        let key = lease.link.key.clone();
        sessions.give_back(lease);
        drop(calls);
        Ok((sessions, key))
    }

    /// Calls the token with the key, which has to be the one with the public half `expected`.
    pub(super) fn with<T>(
        &self,
        expected: &[u8],
        call: impl Fn(&Session, &Key) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match self.attempt(expected, &call) {
                Ok(value) => return Ok(value),
                Err(Failed { may_repeat: true, .. }) if attempts > 0 => {}
                Err(failed) => return Err(failed.error),
            }
        }
    }

    fn attempt<T>(&self, expected: &[u8], call: impl Fn(&Session, &Key) -> Result<T, Error>) -> Result<T, Failed> {
        let calls = self.module.calls();
        let lease = match self.lease(&calls, Some(expected)) {
            Ok(lease) => lease,
            Err(error) => {
                let life = calls.life();
                drop(calls);
                return Err(self.out_of_reach(life, error));
            }
        };
        match call(&lease.session, &lease.link.key) {
            Ok(value) => {
                self.give_back(lease);
                Ok(value)
            }
            Err(error) => {
                self.lose(&calls, lease);
                Err(Failed { error: TokenError::failed(self.uri.token(), &error), may_repeat: true })
            }
        }
    }

    /// Restarts the module when that may help: some of them see a token that came back only when they begin anew.
    fn out_of_reach(&self, life: Life, error: TokenError) -> Failed {
        let may_help = matches!(error, TokenError::Token { .. } | TokenError::Key { .. } | TokenError::Failed { .. });
        let may_repeat = may_help && self.module.restart(life);
        if may_repeat {
            self.state().failed = None;
        }
        Failed { error, may_repeat }
    }

    /// A session for one caller, with the token there. While it is not, one caller looks for it.
    fn lease(&self, calls: &Calls<'_>, expected: Option<&[u8]>) -> Result<Lease, TokenError> {
        let asked = Instant::now();
        let mut state = self.state();
        loop {
            if state.link.as_ref().is_some_and(|link| link.life != calls.life()) {
                // Not closed: in this life its handles may be those of somebody else's sessions.
                state.forget();
            }
            if let Some(link) = state.link.clone() {
                if let Some(session) = state.idle.pop() {
                    return Ok(Lease { link, session });
                }
                if state.open < state.limit {
                    state.open += 1;
                    drop(state);
                    let opened = calls.context.open_ro_session_no_drop(link.slot);
                    state = self.state();
                    match opened {
                        Ok(session) => return Ok(Lease { link, session }),
                        Err(error) if !state.is_of(&link) => drop(error),
                        // The token has room for no more.
                        Err(Error::Pkcs11(RvError::SessionCount, _)) if state.open > 1 => {
                            state.open -= 1;
                            state.limit = state.open;
                        }
                        Err(_) => {
                            state.close(calls);
                            self.changed.notify_all();
                        }
                    }
                    continue;
                }
            } else if let Some((when, error)) = &state.failed
                && when.elapsed() < PAUSE
            {
                return Err(TokenError::Away(error.to_string()));
            } else if !state.connecting {
                state.connecting = true;
                let mut refused = state.refused.take();
                drop(state);
                let connected = self.connect(calls, expected, &mut refused);
                state = self.state();
                state.connecting = false;
                state.refused = refused;
                self.changed.notify_all();
                match connected {
                    Ok((slot, key, session)) => {
                        state.links += 1;
                        let link = Link { number: state.links, life: calls.life(), slot, key };
                        state.link = Some(link.clone());
                        (state.open, state.limit, state.failed) = (1, MAX_SESSIONS, None);
                        return Ok(Lease { link, session });
                    }
                    Err(error) => {
                        state.failed = Some((Instant::now(), error.clone()));
                        return Err(error);
                    }
                }
            }
            let Some(left) = PATIENCE.checked_sub(asked.elapsed()) else {
                return Err(TokenError::Busy { token: self.uri.token().to_owned(), seconds: PATIENCE.as_secs() });
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Finds the token, logs in, and finds the key. `refused` is the PIN that the token refused, before and after.
    fn connect(
        &self,
        calls: &Calls<'_>,
        expected: Option<&[u8]>,
        refused: &mut Option<Zeroizing<String>>,
    ) -> Result<(Slot, Key, Session), TokenError> {
        let slot = slot_of(calls.context, self.module.path(), self.uri.token())?;
        let opened = calls.context.open_ro_session_no_drop(slot);
        let session = opened.map_err(|error| TokenError::failed(self.uri.token(), &error))?;
        let found = log_in(&session, &self.uri, refused).and_then(|()| Key::find(&session, &self.uri));
        let found = found.and_then(|key| match expected {
            Some(expected) if expected != key.public() => Err(key.is_another(&self.uri)),
            _ => Ok(key),
        });
        match found {
            Ok(key) => Ok((slot, key, session)),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    fn give_back(&self, lease: Lease) {
        let mut state = self.state();
        if state.is_of(&lease.link) {
            state.idle.push(lease.session);
            self.changed.notify_one();
        } else {
            // Its link was lost meanwhile, in this life of the module, since a caller is still in it.
            let _ = lease.session.close();
        }
    }

    /// Gives up the link of a session that failed, unless there is a newer one.
    fn lose(&self, calls: &Calls<'_>, lease: Lease) {
        let mut state = self.state();
        if state.is_of(&lease.link) {
            state.close(calls);
            self.changed.notify_all();
        }
        let _ = lease.session.close();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_of(&self, link: &Link) -> bool {
        self.link.as_ref().is_some_and(|current| current.number == link.number)
    }

    fn forget(&mut self) {
        (self.link, self.open) = (None, 0);
        self.idle.clear();
    }

    /// Closes the sessions that are not in use; the user of one closes it.
    fn close(&mut self, calls: &Calls<'_>) {
        if self.link.as_ref().is_some_and(|link| link.life == calls.life()) {
            for session in self.idle.drain(..) {
                let _ = session.close();
            }
        }
        self.forget();
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let calls = self.module.calls();
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).close(&calls);
    }
}

/// One with a session that was lost unnoticed, one that finds no token in a module that has to begin anew, and one more.
const ATTEMPTS: usize = 3;

/// As many as an edge has use for at one time: a call holds a processor, or waits for the token.
const MAX_SESSIONS: usize = 16;

/// How long nobody looks for a token that could not be found.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a caller waits for a session.
const PATIENCE: Duration = Duration::from_secs(3);
