//! Private keys as text (RFC 7468), without copies that nobody wipes.
//!
//! PEM libraries gather the base64 of a block in strings of their own and free them as they are: each key that was read
//! or written stays on the heap, where the next core dump or read past an end finds it. The buffers that are used here
//! on the way are wiped.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, Zeroizing};

/// One block with `octets`, in lines of 64 characters that end with a line feed.
pub fn encode(tag: &str, octets: &[u8]) -> Zeroizing<String> {
    encode_lines(tag, octets, "\n")
}

/// The same with the lines ending in a carriage return and a line feed, as certseal's own key files have them.
pub fn encode_crlf(tag: &str, octets: &[u8]) -> Zeroizing<String> {
    encode_lines(tag, octets, "\r\n")
}

fn encode_lines(tag: &str, octets: &[u8], line_end: &str) -> Zeroizing<String> {
    let lines = octets.len().div_ceil(LINE);
    // The whole capacity at once: growing would leave copies behind.
    let capacity = 2 * (BEGIN.len() + tag.len() + DASHES.len() + line_end.len()) + lines * (LINE_TEXT + line_end.len());
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    let push = |text: &mut String, parts: [&str; 4]| parts.iter().for_each(|part| text.push_str(part));
    push(&mut text, [BEGIN, tag, DASHES, line_end]);
    for line in octets.chunks(LINE) {
        let mut characters = [0; LINE_TEXT];
        // 48 octets are 64 characters, and fewer are fewer.
        let len = STANDARD.encode_slice(line, &mut characters).unwrap_or(0);
        text.push_str(std::str::from_utf8(&characters[..len]).unwrap_or_default());
        text.push_str(line_end);
        characters.zeroize();
    }
    push(&mut text, [END, tag, DASHES, line_end]);
    text
}

/// The tag and the octets of the first block in `text`. None if there is none, or it has headers, as encrypted keys do.
pub fn decode(text: &[u8]) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let after = |text: &[u8], part: &str| text.windows(part.len()).position(|window| window == part.as_bytes());
    let text = &text[after(text, BEGIN)? + BEGIN.len()..];
    let (tag, text) = text.split_at(after(text, DASHES)?);
    let tag = std::str::from_utf8(tag).ok().filter(|tag| !tag.contains('\n'))?;
    let text = &text[DASHES.len()..];
    let (body, end) = text.split_at(after(text, END)?);
    if !end[END.len()..].strip_prefix(tag.as_bytes())?.starts_with(DASHES.as_bytes()) {
        return None;
    }
    let mut characters = Zeroizing::new(Vec::with_capacity(body.len()));
    characters.extend(body.iter().filter(|octet| !octet.is_ascii_whitespace()));
    let mut octets = Zeroizing::new(vec![0; base64::decoded_len_estimate(characters.len())]);
    let len = STANDARD.decode_slice(characters.as_slice(), &mut octets).ok()?;
    octets.truncate(len);
    Some((tag, octets))
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Octets of a line.
const LINE: usize = 48;

/// Characters of a line.
const LINE_TEXT: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_the_pem_crate_agrees(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = encode("PRIVATE KEY", &octets);
            let (tag, found) = decode(text.as_bytes()).unwrap();
            prop_assert_eq!((tag, found.as_slice()), ("PRIVATE KEY", octets.as_slice()));
            let lf = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
            let theirs = pem::Pem::new("PRIVATE KEY", octets.as_slice());
            if !octets.is_empty() {
                prop_assert_eq!(text.as_str(), pem::encode_config(&theirs, lf));
            }
            let crlf = pem::encode(&theirs);
            if !octets.is_empty() {
                let ours = encode_crlf("PRIVATE KEY", &octets);
                prop_assert_eq!(ours.as_str(), &crlf);
            }
            let (_, found) = decode(crlf.as_bytes()).unwrap();
            prop_assert_eq!(found.as_slice(), octets.as_slice());
        }

        #[test]
        fn nothing_makes_it_panic(text in "(-----BEGIN A-----|-----END A-----|[ -~\n]{0,20}){0,6}") {
            let _ = decode(text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let good = encode("A", b"octets");
        assert!(decode(format!("before\n{}after", good.as_str()).as_bytes()).is_some());
        for bad in [
            "",
            "-----BEGIN A-----",
            "-----BEGIN A-----\nAAAA\n-----END B-----\n",
            "-----BEGIN A-----\nAAA\n-----END A-----\n",
            "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END A-----\n",
        ] {
            assert!(decode(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
