//! Reading header blocks just far enough to judge the `:authority`, and writing them anew without
//! use of the dynamic table (RFC 7541).
//!
//! Nothing is decoded that need not be. A string is copied as it is, Huffman-coded or not; only an
//! authority that was not seen before is decoded (by `loona-hpack`, whose decoder would
//! cost some 20 µs per Huffman-coded string, for it builds its tables each time: too much for every call).
//!
//! The sizes of entries are not needed either, although the dynamic table evicts by size: the table
//! is always made of the newest entries that were inserted, so that an index, which counts from the
//! newest, finds the right one among all of them. An index that points at an evicted entry is an error
//! that `h2` reports in a block that passes, and that in a rewritten block costs nobody anything.

use std::collections::VecDeque;

use http::uri::Authority;
use loona_hpack::huffman::HuffmanDecoder;

/// Entries of the static table.
const STATIC_ENTRIES: usize = 61;
/// `:authority` in the static table.
const STATIC_AUTHORITY: usize = 1;
/// The header table size that a server has which announces none (RFC 9113 section 6.5.2), as `h2` here.
const TABLE_SIZE: usize = 4096;
/// More entries than this are never in the table: each counts its length and 32.
const MAX_ENTRIES: usize = TABLE_SIZE / 32;
/// More encoded bytes than this are never in the table: Huffman codes have at most 30 bits per byte, to
/// which come a few bytes of prefix per entry.
const MAX_ENTRY_BYTES: usize = 32 << 10;
/// Length of a rewritten block at most: a few bytes of indices may stand for far more than was sent.
const MAX_REWRITTEN: usize = 512 << 10;
/// `:authority` as a plain and as a Huffman-coded string literal. Every encoder has the static table's
/// index for it, so these are for completeness.
const NAME_PLAIN: &[u8] = b"\x0a:authority";
const NAME_HUFFMAN: &[u8] = &[0x88, 0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// `:authority: localhost` as a literal that is not indexed, with the name from the static table.
const LOCALHOST: &[u8] = b"\x01\x09localhost";

/// The block can't be read, or would be too long when rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field that was inserted into the dynamic table.
struct Entry {
    /// The field as a literal that is not indexed, ready to be written.
    literal: Vec<u8>,
    /// Where in `literal` the value's string begins.
    value_at: usize,
    /// For an `:authority`: whether it is malformed.
    authority: Option<bool>,
}

/// The HPACK state of one direction of one connection.
#[derive(Default)]
pub(super) struct Transcoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    entry_bytes: usize,
    /// The last well-formed authority, as the string literal it came as: nearly always the next one too.
    accepted: Vec<u8>,
}

/// A field's name, as a literal needs it.
enum Name<'a> {
    Static(usize),
    /// Index into `entries`.
    Dynamic(usize),
    Literal(&'a [u8]),
}

impl Transcoder {
    /// Reads one header block and appends it to `out` rewritten, with `localhost` for each
    /// `:authority`. True when an authority was malformed; when it is false and nothing was rewritten
    /// so far, `out` is not needed.
    ///
    /// After an error the state is useless, as it is for any HPACK decoder.
    pub(super) fn block(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<bool, Unreadable> {
        let mut input = Input(block);
        let mut malformed = false;
        while let Some(first) = input.peek() {
            if out.len() > MAX_REWRITTEN {
                return Err(Unreadable);
            }
            malformed |= match first {
                0x80.. => self.indexed(input.integer(7)?, out)?,
                0x40.. => {
                    let (name, value) = self.literal(6, &mut input)?;
                    let bad = self.authority(&name, value)?;
                    let entry = self.entry(&name, value, bad)?;
                    write_field(&entry, out);
                    self.insert(entry);
                    bad == Some(true)
                }
                0x20.. => {
                    // A change of the table's size: see above why it needs no doing.
                    if input.integer(5)? > TABLE_SIZE {
                        return Err(Unreadable);
                    }
                    false
                }
                _ => {
                    let (name, value) = self.literal(4, &mut input)?;
                    let bad = self.authority(&name, value)?;
                    if bad.is_some() {
                        out.extend_from_slice(LOCALHOST);
                    } else {
                        // "Never indexed" (0x10) is a promise about secrets; it is kept.
                        let start = out.len();
                        self.write_name(&name, out)?;
                        if let Some(byte) = out.get_mut(start) {
                            *byte |= first & 0x10;
                        }
                        out.extend_from_slice(value);
                    }
                    bad == Some(true)
                }
            };
        }
        Ok(malformed)
    }

    fn indexed(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, Unreadable> {
        match index {
            0 => Err(Unreadable),
            // The static table's `:authority` has an empty value.
            STATIC_AUTHORITY => {
                out.extend_from_slice(LOCALHOST);
                Ok(true)
            }
            2..=STATIC_ENTRIES => {
                out.push(0x80 | index as u8);
                Ok(false)
            }
            _ => {
                let entry = self
                    .entries
                    .get(index - STATIC_ENTRIES - 1)
                    .ok_or(Unreadable)?;
                write_field(entry, out);
                Ok(entry.authority == Some(true))
            }
        }
    }

    fn literal<'a>(
        &self,
        prefix: u8,
        input: &mut Input<'a>,
    ) -> Result<(Name<'a>, &'a [u8]), Unreadable> {
        let name = match input.integer(prefix)? {
            0 => Name::Literal(input.string()?),
            index @ ..=STATIC_ENTRIES => Name::Static(index),
            index => {
                let index = index - STATIC_ENTRIES - 1;
                if index >= self.entries.len() {
                    return Err(Unreadable);
                }
                Name::Dynamic(index)
            }
        };
        Ok((name, input.string()?))
    }

    /// For an `:authority`, whether its value is malformed; `None` for every other field.
    fn authority(&mut self, name: &Name<'_>, value: &[u8]) -> Result<Option<bool>, Unreadable> {
        let is_authority = match *name {
            Name::Static(index) => index == STATIC_AUTHORITY,
            Name::Dynamic(index) => self
                .entries
                .get(index)
                .is_some_and(|entry| entry.authority.is_some()),
            Name::Literal(name) => name == NAME_PLAIN || name == NAME_HUFFMAN,
        };
        if !is_authority {
            return Ok(None);
        }
        if value == self.accepted {
            return Ok(Some(false));
        }
        let acceptable = is_acceptable(value)?;
        if acceptable {
            self.accepted.clear();
            self.accepted.extend_from_slice(value);
        }
        Ok(Some(!acceptable))
    }

    fn entry(
        &self,
        name: &Name<'_>,
        value: &[u8],
        authority: Option<bool>,
    ) -> Result<Entry, Unreadable> {
        let mut literal = Vec::with_capacity(value.len() + 32);
        self.write_name(name, &mut literal)?;
        let value_at = literal.len();
        literal.extend_from_slice(value);
        Ok(Entry {
            literal,
            value_at,
            authority,
        })
    }

    fn insert(&mut self, entry: Entry) {
        self.entry_bytes += entry.literal.len();
        self.entries.push_front(entry);
        while self.entries.len() > MAX_ENTRIES || self.entry_bytes > MAX_ENTRY_BYTES {
            let Some(evicted) = self.entries.pop_back() else {
                return;
            };
            self.entry_bytes -= evicted.literal.len();
        }
    }

    /// The beginning of a literal that is not indexed, up to its value.
    fn write_name(&self, name: &Name<'_>, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        match *name {
            Name::Static(index) if index < 15 => out.push(index as u8),
            // Below 15 + 128, so one more byte holds the rest.
            Name::Static(index) => out.extend_from_slice(&[15, (index - 15) as u8]),
            Name::Dynamic(index) => {
                let entry = self.entries.get(index).ok_or(Unreadable)?;
                out.extend_from_slice(entry.literal.get(..entry.value_at).ok_or(Unreadable)?);
            }
            Name::Literal(name) => {
                out.push(0);
                out.extend_from_slice(name);
            }
        }
        Ok(())
    }
}

fn write_field(entry: &Entry, out: &mut Vec<u8>) {
    if entry.authority.is_some() {
        out.extend_from_slice(LOCALHOST);
    } else {
        out.extend_from_slice(&entry.literal);
    }
}

/// Whether `h2` takes this authority: it parses it with this very type and resets the stream if
/// that fails.
fn is_acceptable(literal: &[u8]) -> Result<bool, Unreadable> {
    let mut input = Input(literal);
    let coded = input.peek().ok_or(Unreadable)? & 0x80 != 0;
    let length = input.integer(7)?;
    let value = input.take(length)?;
    if coded {
        let value = HuffmanDecoder::new()
            .decode(value)
            .map_err(|_| Unreadable)?;
        Ok(Authority::try_from(&value[..]).is_ok())
    } else {
        Ok(Authority::try_from(value).is_ok())
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    /// An integer with a prefix of so many bits (RFC 7541 section 5.1), below 2^29.
    fn integer(&mut self, prefix: u8) -> Result<usize, Unreadable> {
        let mask = 0xff >> (8 - prefix);
        let first = self.take(1)?.first().ok_or(Unreadable)? & mask;
        let mut value = usize::from(first);
        if first < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = *self.take(1)?.first().ok_or(Unreadable)?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    /// A string literal (RFC 7541 section 5.2), its length included.
    fn string(&mut self) -> Result<&'a [u8], Unreadable> {
        let all = self.0;
        let length = self.integer(7)?;
        self.take(length)?;
        all.get(..all.len() - self.0.len()).ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests;
