//! Bytes of keys and values. Integers are big-endian, so that keys sort by number.

use crate::{AuditLink, Position, Table};

/// `table` as a key prefix that no other table's keys share.
pub(super) fn table_prefix(table: Table) -> Vec<u8> {
    let name = table.name().as_bytes();
    let mut prefix = Vec::with_capacity(1 + name.len() + crate::MAX_KEY_BYTES);
    // A table name has at most 32 bytes.
    prefix.push(name.len() as u8);
    prefix.extend_from_slice(name);
    prefix
}

/// A record's key in `records` and `newest`.
pub(super) fn record_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut record_key = table_prefix(table);
    record_key.extend_from_slice(key);
    record_key
}

/// A record's key in `expiry`.
pub(super) fn expiry_key(table: Table, expires_at: u64, key: &[u8]) -> Vec<u8> {
    let mut expiry_key = table_prefix(table);
    expiry_key.extend_from_slice(&expires_at.to_be_bytes());
    expiry_key.extend_from_slice(key);
    expiry_key
}

/// The expiry and the record's own key, from what follows the table prefix in `expiry`.
pub(super) fn expiry_parts(suffix: &[u8]) -> Option<(u64, &[u8])> {
    let (expires_at, key) = suffix.split_first_chunk()?;
    Some((u64::from_be_bytes(*expires_at), key))
}

/// The key in `chunks` of one part of a long value.
///
/// The suffix has a fixed length and the generation never repeats for a key, so no two parts share a key.
pub(super) fn chunk_key(record_key: &[u8], generation: u64, index: u32) -> Vec<u8> {
    let mut chunk_key = Vec::with_capacity(record_key.len() + 12);
    chunk_key.extend_from_slice(record_key);
    chunk_key.extend_from_slice(&generation.to_be_bytes());
    chunk_key.extend_from_slice(&index.to_be_bytes());
    chunk_key
}

/// The header before the value in `records`, under its own checksum so that conditions need not read long values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u64,
    pub(super) expires_at: Option<u64>,
    /// Tells the chunks of this value from those of the key's other values.
    pub(super) generation: u64,
    pub(super) value_len: u32,
    value_crc: u32,
}

impl Header {
    pub(super) fn new(version: u64, expires_at: Option<u64>, generation: u64, value: &[u8]) -> Self {
        // A transaction's size limit keeps values far below 4 GiB.
        Self { version, expires_at, generation, value_len: value.len() as u32, value_crc: crc32fast::hash(value) }
    }

    /// The number of parts of a long value; 0 if it stands right after the header.
    pub(super) fn chunks(&self) -> u32 {
        if self.value_len as usize <= CHUNK_BYTES { 0 } else { self.value_len.div_ceil(CHUNK_BYTES as u32) }
    }

    pub(super) fn encode(&self, record_key: &[u8], inline: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + inline.len());
        bytes.push(FORMAT);
        bytes.push(u8::from(self.expires_at.is_some()));
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.value_len.to_be_bytes());
        bytes.extend_from_slice(&self.value_crc.to_be_bytes());
        let crc = checksum(&[record_key, &bytes]);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(inline);
        bytes
    }

    /// The header and the bytes after it; none if they are damaged or belong to another key.
    pub(super) fn decode<'a>(record_key: &[u8], bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, inline) = bytes.split_at_checked(HEADER_BYTES)?;
        let (fields, crc) = header.split_last_chunk()?;
        if checksum(&[record_key, fields]) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(fields);
        let [format, flags] = fields.take()?;
        if format != FORMAT {
            return None;
        }
        let version = u64::from_be_bytes(fields.take()?);
        let expires_at = u64::from_be_bytes(fields.take()?);
        let header = Self {
            version,
            expires_at: (flags == 1).then_some(expires_at),
            generation: u64::from_be_bytes(fields.take()?),
            value_len: u32::from_be_bytes(fields.take()?),
            value_crc: u32::from_be_bytes(fields.take()?),
        };
        Some((header, inline))
    }

    pub(super) fn vouches_for(&self, value: &[u8]) -> bool {
        value.len() == self.value_len as usize && crc32fast::hash(value) == self.value_crc
    }
}

/// An event in `feed`, bound to its sequence.
pub(super) fn encode_event(seq: u64, event: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + event.len());
    bytes.extend_from_slice(&checksum(&[&seq.to_be_bytes(), event]).to_be_bytes());
    bytes.extend_from_slice(event);
    bytes
}

/// The event; none if it is damaged.
pub(super) fn decode_event(seq: u64, bytes: &[u8]) -> Option<&[u8]> {
    let (crc, event) = bytes.split_first_chunk()?;
    (checksum(&[&seq.to_be_bytes(), event]) == u32::from_be_bytes(*crc)).then_some(event)
}

/// The sequence of a key's newest event, in `newest`, bound to the key.
pub(super) fn encode_newest(record_key: &[u8], seq: u64) -> Vec<u8> {
    let seq = seq.to_be_bytes();
    [&seq[..], &checksum(&[record_key, &seq]).to_be_bytes()].concat()
}

/// The sequence; none if it is damaged.
pub(super) fn decode_newest(record_key: &[u8], bytes: &[u8]) -> Option<u64> {
    let (seq, crc) = bytes.split_first_chunk::<8>()?;
    (checksum(&[record_key, seq]).to_be_bytes() == crc).then_some(u64::from_be_bytes(*seq))
}

/// A position with its checksum, in `meta` and in the high-water file.
pub(super) fn encode_position(position: Position) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    bytes[..4].copy_from_slice(POSITION_MAGIC);
    bytes[4..20].copy_from_slice(&position.epoch);
    bytes[20..28].copy_from_slice(&position.seq.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The position; none if it is damaged.
pub(super) fn decode_position(bytes: &[u8]) -> Option<Position> {
    let (fields, crc) = bytes.get(..POSITION_BYTES)?.split_last_chunk()?;
    if crc32fast::hash(fields) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut fields = Fields(fields);
    let magic: [u8; 4] = fields.take()?;
    let position = Position { epoch: fields.take()?, seq: u64::from_be_bytes(fields.take()?) };
    (magic == *POSITION_MAGIC).then_some(position)
}

/// An entry of the audit log, behind its link.
pub(super) fn encode_audit(link: &AuditLink, entry: &[u8]) -> Vec<u8> {
    [&link.hash[..], entry].concat()
}

/// The entry with its link; none if it is too short. Whether it is the right one, the chain tells.
pub(super) fn decode_audit(number: u64, bytes: &[u8]) -> Option<(AuditLink, &[u8])> {
    let (hash, entry) = bytes.split_first_chunk()?;
    Some((AuditLink { number, hash: *hash }, entry))
}

/// A link with its checksum, in `meta`.
pub(super) fn encode_link(link: &AuditLink) -> [u8; LINK_BYTES] {
    let mut bytes = [0; LINK_BYTES];
    bytes[..8].copy_from_slice(&link.number.to_be_bytes());
    bytes[8..40].copy_from_slice(&link.hash);
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The link; none if it is damaged.
pub(super) fn decode_link(bytes: &[u8]) -> Option<AuditLink> {
    let (fields, crc) = bytes.get(..LINK_BYTES)?.split_last_chunk()?;
    if crc32fast::hash(fields) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut fields = Fields(fields);
    Some(AuditLink { number: u64::from_be_bytes(fields.take()?), hash: fields.take()? })
}

/// The feed's floor with its checksum, in `meta`.
pub(super) fn encode_floor(seq: u64) -> Vec<u8> {
    encode_newest(FLOOR_KEY, seq)
}

/// The floor; none if it is damaged.
pub(super) fn decode_floor(bytes: &[u8]) -> Option<u64> {
    decode_newest(FLOOR_KEY, bytes)
}

/// Fixed-size fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Longer values are cut into parts of this size, in a tree of their own.
///
/// sled rewrites a leaf as one log message, and moves messages over a quarter of a segment (1 MiB) into files that it
/// never syncs. A leaf is split when it holds more than 16 keys, on the way to the next access, and reaches at most 19
/// in a merge; parts of this size with the longest keys then stay below 700 kB.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;

/// The key of the position in `meta`.
pub(super) const POSITION_KEY: &[u8] = b"position";

/// The key of the audit log's last link in `meta`.
pub(super) const AUDIT_HEAD_KEY: &[u8] = b"audit head";

/// The key in `meta` of the link before the first entry of the audit log that is kept.
pub(super) const AUDIT_START_KEY: &[u8] = b"audit start";

/// The key of the feed's floor in `meta`.
pub(super) const FLOOR_KEY: &[u8] = b"floor";

const LINK_BYTES: usize = 44;

/// The size of an encoded position.
pub(super) const POSITION_BYTES: usize = 32;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 38;
const POSITION_MAGIC: &[u8; 4] = b"CSP1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = record_key(Table::new("t"), b"k");
        let record = Header::new(7, Some(9), 3, b"value").encode(&key, b"value");
        let event = encode_event(5, b"event");
        let newest = encode_newest(&key, 5);
        let position = encode_position(Position { epoch: [4; 16], seq: 8 });

        let intact =
            |bytes: &[u8]| Header::decode(&key, bytes).is_some_and(|(header, value)| header.vouches_for(value));
        assert!(intact(&record));
        for (bytes, is_intact) in [
            (record.as_slice(), &intact as &dyn Fn(&[u8]) -> bool),
            (&event, &|bytes| decode_event(5, bytes).is_some()),
            (&newest, &|bytes| decode_newest(&key, bytes).is_some()),
            (&position, &|bytes| decode_position(bytes).is_some()),
        ] {
            assert!(is_intact(bytes));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_intact(&flipped), "bit {bit}");
            }
            assert!(!is_intact(&bytes[..bytes.len() - 1]));
        }
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        let key = record_key(Table::new("t"), b"k");
        let record = Header::new(7, None, 3, b"value").encode(&key, b"value");
        assert!(Header::decode(&record_key(Table::new("t"), b"other"), &record).is_none());
        assert!(decode_event(6, &encode_event(5, b"event")).is_none());
    }
}
