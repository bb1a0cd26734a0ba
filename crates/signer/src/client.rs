//! The network-facing process's side of the socket.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use certseal_resolver::{KeyHolder, LeafKey, Unopened};
use certseal_seal::Sealed;
use certseal_wire::KeyId;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    sign::{Signer, SigningKey},
};
use rustls_pki_types::SubjectPublicKeyInfoDer;

use crate::{
    frame::FrameReader,
    peer::expect_user,
    protocol::{Request, Response, SealedFor},
};

/// Keys that a signer holds.
///
/// While it cannot be reached, everything is [`Unopened::Unavailable`], and nothing is remembered of that.
pub struct RemoteKeys(Arc<Signatures>);

/// Runs what may take long: it is called in place of just waiting, with the waiting as argument.
///
/// On an asynchronous runtime it has the thread's other tasks move elsewhere first.
pub type GiveWay = fn(&mut dyn FnMut());

struct Signatures {
    socket: PathBuf,
    /// Whose process the signer has to be.
    user: u32,
    give_way: GiveWay,
    connections: Mutex<Connections>,
    /// A connection has come back, or was closed.
    returned: Condvar,
    known: RwLock<Known>,
}

/// The known state of the signer.
#[derive(Default)]
struct Known {
    /// Whether it answered the last time it was asked.
    is_reached: bool,
    /// The keys that it named last.
    loaded: Option<Vec<KeyId>>,
}

#[derive(Default)]
struct Connections {
    idle: Vec<UnixStream>,
    /// The idle ones and those in use.
    open: usize,
    /// The signer did not answer in time: it is left alone until then.
    suspended: Option<Instant>,
}

impl RemoteKeys {
    /// The keys of the signer at `socket`, which has to be a process of `user`. Nothing is connected yet.
    pub fn new(socket: &Path, user: u32, give_way: GiveWay) -> Arc<Self> {
        Arc::new(Self(Arc::new(Signatures {
            socket: socket.to_owned(),
            user,
            give_way,
            connections: Mutex::default(),
            returned: Condvar::new(),
            known: RwLock::default(),
        })))
    }

    /// Asks which keys are loaded, and answers whether they are others than the last time the signer answered. Call it
    /// every few seconds, and [`certseal_resolver::SealedResolver::keys_changed`] after a change.
    ///
    /// # Errors
    /// [`Unopened::Unavailable`].
    pub fn refresh(&self) -> Result<bool, Unopened> {
        let asked = self.0.ask(&Request::Loaded, true);
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        known.is_reached = matches!(asked, Ok(Response::Loaded(_)));
        match asked {
            Ok(Response::Loaded(ids)) => {
                let are_others = known.loaded.as_ref() != Some(&ids);
                known.loaded = Some(ids);
                Ok(are_others)
            }
            other => Err(other.map_or_else(|error| error, unexpected)),
        }
    }

    /// Whether the signer answered the last [`RemoteKeys::refresh`].
    pub fn is_reached(&self) -> bool {
        self.0.known().is_reached
    }
}

impl KeyHolder for RemoteKeys {
    fn signing_key(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<Arc<dyn SigningKey>, Unopened> {
        let key = RemoteKey { signatures: self.0.clone(), sealed: sealed.to_bytes(), leaf: leaf.clone() };
        key.signatures.expect_done(&Request::Open(key.sealed_for()))?;
        Ok(Arc::new(RemoteSigningKey(Arc::new(key))))
    }

    fn check(&self, sealed: &Sealed, leaf: &LeafKey) -> Result<(), Unopened> {
        let sealed = sealed.to_bytes();
        self.0.expect_done(&Request::Check(SealedFor { sealed: &sealed, spki: leaf.spki() }))
    }

    /// None while the signer cannot be reached: keys that nothing can be signed with count as not loaded.
    fn loaded(&self) -> Vec<KeyId> {
        let known = self.0.known();
        known.loaded.clone().filter(|_| known.is_reached).unwrap_or_default()
    }
}

impl std::fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteKeys").field("socket", &self.0.socket).finish_non_exhaustive()
    }
}

/// A key that is open in the signer. Should it have forgotten it, it opens it once more.
struct RemoteKey {
    signatures: Arc<Signatures>,
    sealed: Vec<u8>,
    leaf: LeafKey,
}

impl RemoteKey {
    fn sealed_for(&self) -> SealedFor<'_> {
        SealedFor { sealed: &self.sealed, spki: self.leaf.spki() }
    }
}

#[derive(Debug)]
struct RemoteSigningKey(Arc<RemoteKey>);

impl SigningKey for RemoteSigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.0.leaf.schemes().iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSigner { key: self.0.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.leaf.spki().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.leaf.algorithm()
    }
}

#[derive(Debug)]
struct RemoteSigner {
    key: Arc<RemoteKey>,
    scheme: SignatureScheme,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let request = Request::Sign { key: self.key.sealed_for(), scheme: self.scheme, message };
        let answer = self.key.signatures.ask(&request, false).and_then(|response| match response {
            Response::Signature(signature) => Ok(signature),
            other => Err(unexpected(other)),
        });
        answer.map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl std::fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteKey").finish_non_exhaustive()
    }
}

impl Signatures {
    fn expect_done(&self, request: &Request<'_>) -> Result<(), Unopened> {
        match self.ask(request, false)? {
            Response::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// One request and its response. A probe is tried while the signer is left alone, too.
    fn ask(&self, request: &Request<'_>, is_probe: bool) -> Result<Response, Unopened> {
        let frame = request.to_frame().map_err(|error| Unopened::Unusable(error.to_string()))?;
        let deadline = Instant::now() + PATIENCE;
        let outcome = self.exchange(&frame, deadline, is_probe);
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.connections().suspended = Some(Instant::now() + SUSPENSION);
        } else if is_probe && outcome.is_ok() {
            self.connections().suspended = None;
        }
        outcome.map_err(|error| Unopened::Unavailable(format!("the signer cannot be reached: {error}")))
    }

    fn exchange(&self, frame: &[u8], deadline: Instant, is_probe: bool) -> io::Result<Response> {
        loop {
            let Lease { stream, was_idle } = self.lease(deadline, is_probe)?;
            let outcome = self.exchange_on(&stream, frame, deadline);
            self.give_back(outcome.is_ok().then_some(stream));
            match outcome {
                // The signer that it led to may have gone, and another one come. Signing twice does no harm.
                Err(error) if was_idle && error.kind() != io::ErrorKind::TimedOut => self.close_idle(),
                outcome => return outcome,
            }
        }
    }

    fn exchange_on(&self, mut stream: &UnixStream, frame: &[u8], deadline: Instant) -> io::Result<Response> {
        stream.write_all(frame).map_err(in_time)?;
        let mut reader = FrameReader::default();
        // Most answers come at once, and giving way costs more than they take.
        let mut read = |stream: &mut &UnixStream| match reader.read(stream)? {
            Some(body) => Response::parse(body).map_err(io::Error::other),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let first = read(&mut stream);
        if !first.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return first;
        }
        let mut outcome = first;
        (self.give_way)(&mut || {
            while outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                outcome = if Instant::now() < deadline { read(&mut stream) } else { Err(too_late()) };
            }
        });
        outcome
    }

    /// A connection to use alone, from those that are idle, or a new one; waits for one while there are too many.
    fn lease(&self, deadline: Instant, is_probe: bool) -> io::Result<Lease> {
        let has_place = {
            let mut connections = self.connections();
            if connections.suspended.is_some_and(|until| !is_probe && Instant::now() < until) {
                return Err(io::Error::other("it did not answer in time, and is left alone for a moment"));
            }
            if let Some(stream) = connections.idle.pop() {
                return Ok(Lease { stream, was_idle: true });
            }
            let has_place = connections.open < MAX_CONNECTIONS || is_probe;
            connections.open += usize::from(has_place);
            has_place
        };
        if !has_place {
            let mut taken = Err(too_late());
            (self.give_way)(&mut || taken = self.wait_for_place(deadline));
            if let Some(stream) = taken? {
                return Ok(Lease { stream, was_idle: true });
            }
        }
        // The place is taken: it goes back when connecting fails.
        match self.connect() {
            Ok(stream) => Ok(Lease { stream, was_idle: false }),
            Err(error) => {
                self.give_back(None);
                Err(error)
            }
        }
    }

    /// An idle connection, or none and the place for a new one.
    fn wait_for_place(&self, deadline: Instant) -> io::Result<Option<UnixStream>> {
        let mut connections = self.connections();
        loop {
            if let Some(stream) = connections.idle.pop() {
                return Ok(Some(stream));
            }
            if connections.open < MAX_CONNECTIONS {
                connections.open += 1;
                return Ok(None);
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or_else(too_late)?;
            let waited = self.returned.wait_timeout(connections, left);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Connecting waits too, while the signer accepts nothing.
        set_socket_timeout(&socket, Timeout::Send, Some(SEND))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(AT_ONCE))?;
        connect(&socket, &SocketAddrUnix::new(self.socket.as_path())?).map_err(|error| in_time(error.into()))?;
        expect_user(&socket, self.user)?;
        Ok(socket.into())
    }

    /// Ends the use of a connection: it is idle now, or there is none any more.
    fn give_back(&self, stream: Option<UnixStream>) {
        let mut connections = self.connections();
        match stream {
            Some(stream) => connections.idle.push(stream),
            None => connections.open -= 1,
        }
        drop(connections);
        self.returned.notify_one();
    }

    fn close_idle(&self) {
        let mut connections = self.connections();
        connections.open -= connections.idle.len();
        connections.idle.clear();
        self.returned.notify_all();
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // The code under the lock does not panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for one caller.
struct Lease {
    stream: UnixStream,
    was_idle: bool,
}

fn unexpected(response: Response) -> Unopened {
    match response {
        Response::Unusable(reason) | Response::Refused(reason) => Unopened::Unusable(reason),
        Response::Unavailable(reason) => Unopened::Unavailable(reason),
        _ => Unopened::Unavailable("the signer answers something else than it was asked".to_owned()),
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time")
}

/// A socket's time-out for sending shows as `WouldBlock`.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { too_late() } else { error }
}

/// Connections at one time. Further callers wait for one.
const MAX_CONNECTIONS: usize = 64;

/// For an answer. Opening by a token over a network takes tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// For connecting, and for a request to be taken.
const SEND: Duration = Duration::from_millis(500);

/// An answer that takes longer is waited for after giving way.
const AT_ONCE: Duration = Duration::from_millis(2);

/// After an answer that did not come in time, nothing is asked for so long, except by [`RemoteKeys::refresh`].
const SUSPENSION: Duration = Duration::from_secs(2);
