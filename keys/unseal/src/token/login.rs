//! The way into a token: its slot, and the user's PIN.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, UserType},
    slot::Slot,
};
use zeroize::Zeroizing;

use super::{TokenError, TokenUri, error::said};

/// The slot of the one token with the label `token`.
pub(super) fn slot_of(context: &Pkcs11, module: &Path, token: &str) -> Result<Slot, TokenError> {
    let slots = context.get_slots_with_token().map_err(|error| TokenError::failed(token, &error))?;
    // A slot that does not answer has no token to speak of.
    let labelled = slots.into_iter().filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)));
    let labelled: Vec<_> = labelled.filter(|(_, info)| info.token_initialized()).collect();
    let mut named = labelled.iter().filter(|(_, info)| info.label().trim_end() == token);
    match (named.next(), named.count()) {
        (Some((slot, _)), 0) => Ok(*slot),
        (first, others) => Err(TokenError::Token {
            token: token.to_owned(),
            module: module.to_owned(),
            count: usize::from(first.is_some()) + others,
            found: labelled.iter().take(MOST_NAMED).map(|(_, info)| info.label().trim_end().to_owned()).collect(),
        }),
    }
}

/// Logs in as the token's user with the PIN in the file that `uri` names. A PIN that was refused is kept in `refused`, and
/// is not offered again: the token might lock itself.
pub(super) fn log_in(
    session: &Session,
    uri: &TokenUri,
    refused: &mut Option<Zeroizing<String>>,
) -> Result<(), TokenError> {
    let pin = read_pin(uri.pin())?;
    let refusal =
        |reason: String| TokenError::PinRefused { token: uri.token().to_owned(), path: uri.pin().to_owned(), reason };
    if refused.as_ref().is_some_and(|refused| **refused == *pin) {
        return Err(refusal("as before".to_owned()));
    }
    match session.login(UserType::User, Some(&pin.as_str().into())) {
        // One login counts for all sessions of a process with a token.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            *refused = None;
            Ok(())
        }
        Err(Error::Pkcs11(
            code @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized),
            function,
        )) => {
            *refused = Some(pin);
            Err(refusal(said(&Error::Pkcs11(code, function))))
        }
        Err(error) => Err(TokenError::failed(uri.token(), &error)),
    }
}

/// The PIN in a file that only its owner can read, without the end of its line.
fn read_pin(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let unusable = |reason: String| TokenError::PinFile { path: PathBuf::from(path), reason };
    let unreadable = |error: std::io::Error| unusable(error.to_string());
    // The file that is checked is the one that is read, whatever happens to the path meanwhile.
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(unusable(format!("others can read it (mode {mode:03o}): run `chmod 600 {}`", path.display())));
    }
    // The whole capacity at once: growing would leave copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(MAX_PIN + 3));
    file.take(MAX_PIN as u64 + 3).read_to_string(&mut text).map_err(unreadable)?;
    let len = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(len);
    if !(1..=MAX_PIN).contains(&len) || text.contains(['\r', '\n']) {
        return Err(unusable(format!("expected the PIN in one line of 1 to {MAX_PIN} octets")));
    }
    Ok(text)
}

/// The longest PIN.
const MAX_PIN: usize = 255;

/// Labels of other tokens in one error.
const MOST_NAMED: usize = 8;
