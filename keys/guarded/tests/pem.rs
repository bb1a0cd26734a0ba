//! The remains in memory of a private key that was written as text and read again.

#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use certseal_guarded::pem::{decode, encode};
use zeroize::{Zeroize, Zeroizing};

/// One test, so that nothing else of this process touches the heap.
#[test]
fn no_base64_of_a_key_stays_in_memory() {
    let mut key = Zeroizing::new(vec![0; 240]);
    File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();

    let text = encode("PRIVATE KEY", &key);
    // A part of the third line: allocators write on the first octets of what is freed. Masked, or it would be found here.
    let at = text.match_indices('\n').nth(2).unwrap().0 + 8;
    let mask: Vec<u8> = text.as_bytes()[at..at + 40].iter().map(|octet| octet ^ MASK).collect();
    assert!(is_in_memory(&mask), "the search does not find what is there");
    let (_, octets) = decode(text.as_bytes()).unwrap();
    assert_eq!(*octets, *key);
    drop((octets, text));
    assert!(!is_in_memory(&mask), "base64 of the key is in memory");

    // The control: the same with a library, whose outcome is wiped as far as a caller can.
    let block = pem::Pem::new("PRIVATE KEY", key.as_slice());
    let mut text = pem::encode(&block);
    let octets = Zeroizing::new(pem::parse(&text).unwrap().into_contents());
    assert_eq!(*octets, *key);
    text.zeroize();
    drop((Zeroizing::new(block.into_contents()), octets, text));
    assert!(is_in_memory(&mask), "the control failed: this allocator, or the library, wipes what is freed");
}

/// Whether the masked octets are in any memory of this process that can be written.
fn is_in_memory(mask: &[u8]) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    // Wiped after each part: the part is in memory too.
    let mut part = Zeroizing::new(vec![0; 1 << 20]);
    let own = part.as_ptr() as u64..part.as_ptr() as u64 + part.len() as u64;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with("rw"))) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [mut start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        while start < end {
            let len = (end - start).min(part.len() as u64) as usize;
            memory.seek(SeekFrom::Start(start)).unwrap();
            if memory.read_exact(&mut part[..len]).is_ok() {
                let found = part[..len].windows(mask.len()).enumerate().any(|(at, window)| {
                    !own.contains(&(start + at as u64))
                        && window.iter().zip(mask).all(|(octet, mask)| octet ^ MASK == *mask)
                });
                part.zeroize();
                part.resize(1 << 20, 0);
                if found {
                    return true;
                }
            }
            // A copy across two parts is seen in the second.
            let step = if start + len as u64 == end { len } else { len - mask.len() };
            start += step as u64;
        }
    }
    false
}

const MASK: u8 = 0x5a;
