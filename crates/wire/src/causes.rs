//! Errors as one text.

use std::error::Error;

/// An error with the causes behind it, each of them once: some errors say theirs themselves, others, hyper's among them,
/// keep them to themselves.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Above(&'static str, io::Error);

    impl fmt::Display for Above {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0.replace("{}", &self.1.to_string()))
        }
    }

    impl Error for Above {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn each_cause_is_said_once_whether_an_error_says_it_itself_or_not() {
        let missing = || io::Error::from_raw_os_error(2);
        let expected = "cannot read x: No such file or directory (os error 2)";
        assert_eq!(causes(&Above("cannot read x", missing())), expected);
        assert_eq!(causes(&Above("cannot read x: {}", missing())), expected);
        assert_eq!(causes(&Above("{}", missing())), missing().to_string());
        let deep = io::Error::other(Above("the middle", missing()));
        assert_eq!(causes(&Above("the top", deep)), "the top: the middle: No such file or directory (os error 2)");
    }
}
