//! Base 36, hexadecimal, hashes and random words.

use std::hash::{BuildHasher, Hasher, RandomState};

use sha2::{Digest, Sha256};

pub(super) const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Length of [`random_word`], and of the serial in a name.
pub(super) const WORD_LEN: usize = 6;

/// SHA-256 of the parts; their order and boundaries count.
pub fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Tests are built without optimization, and a compiled migrator has many checksums: no iterator adapters.
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The 32 bytes that [`hex`] wrote.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Eight random bytes. (The operating system seeds `RandomState`.)
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A random word of six characters, for run keys, test ids and temporary files.
pub fn random_word() -> String {
    base36_number(random(), WORD_LEN)
}

pub(super) fn is_word(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| ALPHABET.contains(&b))
}

pub(super) fn base36_number(mut number: u64, len: usize) -> String {
    let mut digits = vec![b'0'; len];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number % 36) as usize];
        number /= 36;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

pub(super) fn base36(hash: &[u8; 32], len: usize) -> String {
    let (high, low) = hash.split_at(8);
    let take = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
    let mut text = base36_number(take(high), len.min(12));
    if len > 12 {
        text.push_str(&base36_number(take(low), len - 12));
    }
    text
}
