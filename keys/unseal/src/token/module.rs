//! PKCS#11 modules: shared libraries of token vendors, one of each in a process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError},
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use super::{TokenError, error::said};

/// A loaded and initialized module. It stays loaded until the process ends.
pub(super) struct Module {
    path: PathBuf,
    context: Pkcs11,
    /// Read while the module is called, written while it is restarted: nothing may be called then.
    lives: RwLock<Lives>,
}

/// A module's life, from C_Initialize to C_Finalize. Handles of another life mean something else in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life(u64);

struct Lives {
    current: Life,
    began: Instant,
}

/// The right to call the module, in its present life.
pub(super) struct Calls<'a> {
    pub(super) context: &'a Pkcs11,
    lives: RwLockReadGuard<'a, Lives>,
}

impl Calls<'_> {
    pub(super) fn life(&self) -> Life {
        self.lives.current
    }
}

impl Module {
    /// The module at `path`; loaded and initialized unless this process has it already.
    pub(super) fn at(path: &Path) -> Result<Arc<Self>, TokenError> {
        static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

        let unusable = |reason: String| TokenError::Module { path: path.to_owned(), reason };
        // One library under two names would be initialized twice.
        let path = fs::canonicalize(path).map_err(|error| unusable(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&path) {
            return Ok(module.clone());
        }
        let context = Pkcs11::new(&path).map_err(|error| unusable(said(&error)))?;
        initialize(&context).map_err(|error| unusable(said(&error)))?;
        let lives = RwLock::new(Lives { current: Life(0), began: Instant::now() });
        let module = Arc::new(Self { path: path.clone(), context, lives });
        loaded.insert(path, module.clone());
        Ok(module)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The right to call the module; waits for a restart to end.
    pub(super) fn calls(&self) -> Calls<'_> {
        Calls { context: &self.context, lives: self.lives.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Finalizes the module and initializes it again, which is what makes some of them see a token that came back. Not
    /// while calls are under way that do not end, and not soon after the last time, unless somebody else finalized it: each
    /// restart takes all sessions away, those with other tokens of the module too. Whether the life `failed` is over.
    pub(super) fn restart(&self, failed: Life) -> bool {
        let asked = Instant::now();
        let mut lives = loop {
            match self.lives.try_write() {
                Ok(lives) => break lives,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if asked.elapsed() > PATIENCE => return false,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if lives.current != failed {
            return true;
        }
        let is_initialized =
            !matches!(self.context.get_library_info(), Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)));
        if is_initialized && lives.began.elapsed() < LEAST_LIFE {
            return false;
        }
        // Before anything can fail: no handle of the old life counts.
        *lives = Lives { current: Life(lives.current.0 + 1), began: Instant::now() };
        // The answer changes nothing: the module is initialized next, or was not before.
        let _ = self.context.clone().finalize();
        initialize(&self.context).is_ok()
    }
}

/// Tells the module that it is called by several threads at once.
fn initialize(context: &Pkcs11) -> Result<(), Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // By another part of this process.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        outcome => outcome,
    }
}

/// How long a restart waits for calls to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a module is left as it is after it was initialized.
const LEAST_LIFE: Duration = Duration::from_secs(3);
