//! The signer's side of the socket.

use std::{
    fs,
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::getuid;

use crate::{Service, frame::FrameReader, peer::expect_user};

/// Listens at a Unix socket, for the processes of one user.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    allowed: u32,
}

impl Server {
    /// Listens at `path` for processes of user `allowed`. A socket file that nobody listens at any more is replaced.
    ///
    /// The directory is made when it is missing, for its owner only; one that others may write to is refused. The socket
    /// can be reached by its owner only, and also by its group when `allowed` is another user.
    ///
    /// # Errors
    /// `AddrInUse` when a signer listens there; else what the system said.
    pub fn bind(path: &Path, allowed: u32) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        keep_to_ourselves(directory)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(named(path, io::ErrorKind::AlreadyExists.into(), "there is a file that is no socket"));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(named(path, io::ErrorKind::AddrInUse.into(), "another signer listens there"));
            }
            _ => {}
        }
        let unfinished = unfinished(path);
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished).map_err(|error| named(path, error, "cannot listen"))?;
        let mode = if allowed == getuid().as_raw() { 0o600 } else { 0o660 };
        let placed = fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))
            // In one step: a client that connects finds a socket with these permissions, or none.
            .and_then(|()| fs::rename(&unfinished, path));
        placed.map_err(|error| named(path, error, "cannot listen"))?;
        Ok(Self { listener, allowed })
    }

    /// Answers, each connection on a thread of its own, until the process ends.
    pub fn run(self, service: Arc<Service>) {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: waiting lets others close.
                    tracing::warn!(%error, "cannot accept a connection");
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            if let Err(error) = expect_user(&stream, self.allowed) {
                tracing::error!(%error, "a connection was refused");
                continue;
            }
            let Some(place) = Place::among(&open) else {
                tracing::warn!(connections = MAX_CONNECTIONS, "a connection was refused: there are too many");
                continue;
            };
            let service = service.clone();
            let spawned = thread::Builder::new().name("signer".to_owned()).stack_size(STACK).spawn(move || {
                let _place = place;
                if let Err(error) = serve(stream, &service) {
                    tracing::debug!(%error, "a connection ended");
                }
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "cannot start a thread for a connection");
            }
        }
    }
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn among(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(open.clone());
        // Dropping it gives the place back.
        (open.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers until the other side closes, says something that is no frame, or is silent for too long.
fn serve(mut stream: UnixStream, service: &Service) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = FrameReader::default();
    let mut last = Instant::now();
    loop {
        match reader.read(&mut stream) {
            Ok(Some(body)) => {
                let frame = service.answer(body).to_frame().map_err(io::Error::other)?;
                stream.write_all(&frame)?;
                last = Instant::now();
            }
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let is_over = reader.age().map_or(last.elapsed() > IDLE, |age| age > PATIENCE);
                if is_over {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn keep_to_ourselves(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| named(directory, error, "cannot make the directory of the socket"))?;
    }
    let metadata = fs::metadata(directory).map_err(|error| named(directory, error, "cannot look at the directory"))?;
    let owner = metadata.uid();
    if metadata.mode() & 0o022 != 0 || (owner != getuid().as_raw() && owner != 0) {
        let hint = "others may write to the directory of the socket: run `chmod go-w` on it, or configure another";
        return Err(named(directory, io::ErrorKind::PermissionDenied.into(), hint));
    }
    Ok(())
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

fn named(path: &Path, error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {what}: {error}", path.display()))
}

/// Connections at one time: those of a few edges, one for each caller.
const MAX_CONNECTIONS: usize = 256;

/// A thread signs and opens; aws-lc wants little of the stack.
const STACK: usize = 512 * 1024;

/// For the rest of a frame, and for the other side to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Without a request. The client opens a new connection then.
const IDLE: Duration = Duration::from_secs(300);

/// How often silence is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> u32 {
        getuid().as_raw()
    }

    #[test]
    fn the_socket_is_its_owners_in_a_directory_of_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/signer.sock");
        let server = Server::bind(&path, own()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        // One that listens keeps its place, one that is gone does not.
        assert_eq!(Server::bind(&path, own()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(server);
        Server::bind(&path, own()).unwrap();
        drop(Server::bind(&path, own() + 1).unwrap());
        assert_eq!(mode(&path), 0o660);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "something was left behind");
    }

    #[test]
    fn a_file_that_is_no_socket_and_a_directory_of_everybody_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signer.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(Server::bind(&path, own()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Server::bind(&dir.path().join("other.sock"), own()).unwrap_err();
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }
}
