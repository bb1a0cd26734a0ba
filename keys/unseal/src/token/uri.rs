//! PKCS#11 URIs (RFC 7512): which key in which token, and how to reach it.

use std::{
    fmt::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use certseal_wire::{Epoch, PoolName};

/// A token, a key in it, and how to reach them:
/// `pkcs11:token=LABEL;object=certseal%2FPOOL%2FEPOCH?module-path=/PATH&pin-source=file:/PATH`.
///
/// Of the attributes of RFC 7512 these four are known, and each other one is refused: an attribute that would be
/// ignored could be meant to choose another key. The slashes of a key's label are written as `%2F`, as the RFC has it
/// for the part before the question mark, or as they are. A PIN in the URI itself is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUri {
    token: String,
    key: Option<KeyLabel>,
    module: PathBuf,
    pin: PathBuf,
}

/// The label of an unseal key in a token: `certseal/POOL/EPOCH`. It is what says which pool and epoch the key is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLabel {
    /// The pool.
    pub pool: PoolName,
    /// The epoch.
    pub epoch: Epoch,
}

/// Why a text is not the URI of a token. It never shows a value in which a PIN may stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Something else.
    #[error("expected a PKCS#11 URI like {EXAMPLE}, got something that does not begin with {SCHEME}")]
    NotPkcs11,
    /// Longer than any that is meant.
    #[error("expected a PKCS#11 URI of at most {MAX_LEN} octets, got {0}")]
    TooLong(usize),
    /// Part of it is no attribute.
    #[error(
        "attribute {0} of the PKCS#11 URI is not NAME=VALUE with other characters as %XX: expected one like {EXAMPLE}"
    )]
    Malformed(usize),
    /// An attribute that nothing is done with.
    #[error(
        "the PKCS#11 URI has an attribute {0:?} where it is not known: expected token and object before the question \
        mark, module-path and pin-source after it"
    )]
    Unknown(String),
    /// An attribute twice.
    #[error("the PKCS#11 URI has the attribute {0} twice")]
    Twice(&'static str),
    /// An attribute that is needed.
    #[error("the PKCS#11 URI has no attribute {0}: expected one like {EXAMPLE}")]
    Missing(&'static str),
    /// The PIN itself.
    #[error(
        "the PKCS#11 URI has a pin-value, which would lay the PIN open: write the PIN into a file that only its owner \
        can read, and name the file with pin-source=file:/PATH"
    )]
    PinValue,
    /// A value that is not what the attribute needs.
    #[error("expected {expected} as {name} of the PKCS#11 URI, got {found:?}")]
    Value {
        /// The attribute.
        name: &'static str,
        /// The form that it must have.
        expected: &'static str,
        /// The value that came.
        found: String,
    },
}

impl TokenUri {
    /// Whether a text is meant as a PKCS#11 URI, rather than as the path of a file.
    pub fn is_meant_by(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// The same token, with the key of `label`.
    pub fn with_key(self, label: KeyLabel) -> Self {
        Self { key: Some(label), ..self }
    }

    /// The token's label.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The key's label, when the URI names a key.
    pub fn key(&self) -> Option<&KeyLabel> {
        self.key.as_ref()
    }

    /// The shared library of the token's vendor.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The file that holds the user's PIN.
    pub fn pin(&self) -> &Path {
        &self.pin
    }
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if !Self::is_meant_by(text) {
            return Err(UriError::NotPkcs11);
        }
        if text.len() > MAX_LEN {
            return Err(UriError::TooLong(text.len()));
        }
        let rest = &text[SCHEME.len()..];
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut token, mut object, mut module, mut pin) = (None, None, None, None);
        // A separator at the end is common, and leaves nothing open.
        let before = path.strip_suffix(';').unwrap_or(path).split(';').map(|attribute| (attribute, false));
        let after = query.split('&').map(|attribute| (attribute, true));
        let after = after.filter(|_| !query.is_empty());
        for (at, (attribute, in_query)) in before.chain(after).enumerate() {
            let (name, value) = attribute.split_once('=').ok_or(UriError::Malformed(at + 1))?;
            let (slot, name) = match (name, in_query) {
                ("token", false) => (&mut token, "token"),
                ("object", false) => (&mut object, "object"),
                ("module-path", true) => (&mut module, "module-path"),
                ("pin-source", true) => (&mut pin, "pin-source"),
                ("pin-value", _) => return Err(UriError::PinValue),
                (other, _) => return Err(UriError::Unknown(other.chars().take(LONGEST_NAME_SHOWN).collect())),
            };
            let value = decoded(value).ok_or(UriError::Malformed(at + 1))?;
            if slot.replace(value).is_some() {
                return Err(UriError::Twice(name));
            }
        }
        let token = token.ok_or(UriError::Missing("token"))?;
        if token.is_empty() || token.len() > MAX_TOKEN_LABEL || token.ends_with(' ') {
            let expected = "a token's label of 1 to 32 octets that does not end in a space";
            return Err(UriError::Value { name: "token", expected, found: token });
        }
        let key = object.map(|label| {
            label.parse().map_err(|()| UriError::Value {
                name: "object",
                expected: "the label of an unseal key, certseal/POOL/EPOCH such as certseal%2Feu%2F1,",
                found: label,
            })
        });
        let module = absolute("module-path", module.ok_or(UriError::Missing("module-path"))?)?;
        let pin = pin.ok_or(UriError::Missing("pin-source"))?;
        let pin = match pin.strip_prefix("file:") {
            Some(path) => path.strip_prefix("//").unwrap_or(path).to_owned(),
            None => pin,
        };
        Ok(Self { token, key: key.transpose()?, module, pin: absolute("pin-source", pin)? })
    }
}

impl TryFrom<String> for TokenUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        text.parse()
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}token={}", Encoded(&self.token, ""))?;
        if let Some(key) = &self.key {
            write!(f, ";object={}", Encoded(&key.to_string(), ""))?;
        }
        let [module, pin] = [&self.module, &self.pin].map(|path| path.to_string_lossy());
        write!(f, "?module-path={}&pin-source=file:{}", Encoded(&module, "/"), Encoded(&pin, "/"))
    }
}

impl FromStr for KeyLabel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pool, epoch) = text.strip_prefix(LABEL).and_then(|rest| rest.split_once('/')).ok_or(())?;
        let label = Self { pool: pool.parse().map_err(drop)?, epoch: Epoch(epoch.parse().map_err(drop)?) };
        // One text for each label: no sign, no leading zero.
        if label.epoch.0 > 0 && label.to_string() == text { Ok(label) } else { Err(()) }
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LABEL}{}/{}", self.pool, self.epoch)
    }
}

fn absolute(name: &'static str, path: String) -> Result<PathBuf, UriError> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    // The text where a PIN file belongs may be the PIN.
    let found = if name == "pin-source" { "something else".to_owned() } else { path };
    Err(UriError::Value { name, expected: "an absolute path of a file", found })
}

/// A value without its percent-encoding. None when it is not well-formed, or holds a control character.
fn decoded(value: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'%' => {
                let (pair, after) = rest.split_at_checked(2)?;
                if !pair.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                octets.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
                rest = after;
            }
            0x21..=0x7e => octets.push(octet),
            _ => return None,
        }
    }
    let text = String::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// A value with all but the unreserved characters (RFC 3986, 2.3) and `also` percent-encoded.
struct Encoded<'a>(&'a str, &'static str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|octet| {
            let plain = octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) || self.1.as_bytes().contains(&octet);
            if plain { f.write_char(octet.into()) } else { write!(f, "%{octet:02X}") }
        })
    }
}

const SCHEME: &str = "pkcs11:";
const LABEL: &str = "certseal/";
const EXAMPLE: &str = "pkcs11:token=certseal;object=certseal%2Feu%2F1?module-path=/usr/lib/softhsm/libsofthsm2.so&\
                       pin-source=file:/etc/certseal/pin";
const MAX_LEN: usize = 4096;
const LONGEST_NAME_SHOWN: usize = 40;

/// CK_TOKEN_INFO has room for no more, and is filled up with spaces.
const MAX_TOKEN_LABEL: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: &str = "?module-path=/m.so&pin-source=file:/pin";

    #[test]
    fn a_uri_is_read_and_written() {
        let uri: TokenUri = EXAMPLE.parse().unwrap();
        assert_eq!((uri.token(), uri.key().unwrap().to_string().as_str()), ("certseal", "certseal/eu/1"));
        assert_eq!(uri.module(), Path::new("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(uri.pin(), Path::new("/etc/certseal/pin"));
        assert_eq!(uri.to_string(), EXAMPLE);
        for same in [
            EXAMPLE.replace("%2F", "/"),
            EXAMPLE.replace("%2F", "%2f"),
            EXAMPLE.replace("pkcs11:", "PKCS11:"),
            EXAMPLE.replace('?', ";?"),
            EXAMPLE.replace("file:/etc", "file:///etc"),
            EXAMPLE.replace("file:/etc", "/etc"),
            EXAMPLE.replace("token=certseal", "token=%63ertseal"),
        ] {
            assert_eq!(same.parse::<TokenUri>().as_ref(), Ok(&uri), "{same}");
        }
        let keyless: TokenUri = format!("pkcs11:token=a%20b{QUERY}").parse().unwrap();
        assert_eq!((keyless.token(), keyless.key()), ("a b", None));
        assert_eq!(keyless.with_key("certseal/us/7".parse().unwrap()).key().unwrap().epoch, Epoch(7));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        for (text, reason) in [
            ("/etc/certseal/eu-1.pem".to_owned(), "does not begin with pkcs11:"),
            (format!("pkcs11:token={}{QUERY}", "a".repeat(5000)), "at most 4096 octets"),
            (format!("pkcs11:{QUERY}"), "attribute 1"),
            (format!("pkcs11:token=a;;object=certseal/eu/1{QUERY}"), "attribute 2"),
            (format!("pkcs11:token=a;token=b{QUERY}"), "token twice"),
            (format!("pkcs11:object=certseal/eu/1{QUERY}"), "no attribute token"),
            ("pkcs11:token=a".to_owned(), "no attribute module-path"),
            ("pkcs11:token=a?module-path=/m.so".to_owned(), "no attribute pin-source"),
            (format!("pkcs11:token=a;id=%01{QUERY}"), "\"id\""),
            (format!("pkcs11:token=a;pin-source=/x{QUERY}"), "\"pin-source\""),
            (format!("pkcs11:token=a{QUERY}&x-vendor=1"), "\"x-vendor\""),
            (format!("pkcs11:token=%4{QUERY}"), "attribute 1"),
            (format!("pkcs11:token=%+4{QUERY}"), "attribute 1"),
            (format!("pkcs11:token=%00{QUERY}"), "attribute 1"),
            (format!("pkcs11:token=%ff{QUERY}"), "attribute 1"),
            (format!("pkcs11:token=a b{QUERY}"), "attribute 1"),
            (format!("pkcs11:token={QUERY}"), "1 to 32 octets"),
            (format!("pkcs11:token={}{QUERY}", "a".repeat(33)), "1 to 32 octets"),
            ("pkcs11:token=a?module-path=m.so&pin-source=/pin".to_owned(), "an absolute path"),
        ] {
            let error = text.parse::<TokenUri>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for label in
            ["certseal-eu-2", "certseal/eu", "certseal/EU/1", "certseal/eu/01", "certseal/eu/+1", "certseal/eu/0"]
        {
            let error = format!("pkcs11:token=a;object={label}{QUERY}").parse::<TokenUri>().unwrap_err().to_string();
            assert!(error.contains("certseal/POOL/EPOCH") && error.contains(label), "{error}");
        }
    }

    #[test]
    fn no_error_shows_a_pin() {
        for text in [
            "pkcs11:token=a?module-path=/m.so&pin-value=271828",
            "pkcs11:token=a;pin-value=271828",
            "pkcs11:token=a?module-path=/m.so&pin-source=271828",
            "pkcs11:token=a?module-path=/m.so&pin-source=%7Cecho 271828",
            "pkcs11:token=a?module-path=/m.so&pin-source=%",
        ] {
            let error = text.parse::<TokenUri>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("271828"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_uri_reads_back(token in "[ -~\u{e4}]{0,15}[!-~]", module in "/[ -~\u{e4}]{0,20}", epoch in 1u32..) {
            let uri: TokenUri = EXAMPLE.parse().unwrap();
            let key = KeyLabel { pool: "eu".parse().unwrap(), epoch: Epoch(epoch) };
            let uri = TokenUri { token, module: module.into(), ..uri }.with_key(key);
            prop_assert_eq!(uri.to_string().parse::<TokenUri>(), Ok(uri));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(pkcs11:)?.{0,80}") {
            if let Ok(uri) = text.parse::<TokenUri>() {
                prop_assert_eq!(uri.to_string().parse::<TokenUri>(), Ok(uri));
            }
        }
    }
}
