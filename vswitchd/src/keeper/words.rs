//! What a client and the keeper's process say to each other, and how a name is written there and to systemd.
//!
//! One line a message, the client's first, then the keeper's, and so on: never two at once. A descriptor travels
//! with the first byte of its line (SCM_RIGHTS). Nothing here speaks: these are only the words.

use crate::sys::rights;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The longest line, with its end, in bytes. A name has at most 255 bytes, each of which may take three.
pub(super) const LINE: usize = 1024;

/// From the client: keep the descriptor that comes with this under the name behind the blank.
pub(super) const KEEP: &str = "keep";
/// From the client: close what you have under that name.
pub(super) const FORGET: &str = "forget";
/// From the client: give back the first that you have behind that name, which may be empty, in the order of bytes.
pub(super) const AFTER: &str = "after";
/// From the keeper: done.
pub(super) const DONE: &str = "done";
/// From the keeper: the descriptor that comes with this is kept under the name behind the blank.
pub(super) const HERE: &str = "here";
/// From the keeper: there is none behind that name.
pub(super) const END: &str = "end";
/// From the keeper: it did not understand, or could not; the reason is behind the blank.
pub(super) const REFUSED: &str = "refused";

/// `name` as one word of printable ASCII without ':' (which systemd forbids) and blanks: whatever is neither letter,
/// digit nor one of ".-_" becomes a per cent sign and its number, as in a URL (RFC 3986 §2.1).
pub(super) fn escaped(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_".contains(&byte) {
            word.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(word, "%{byte:02X}");
        }
    }
    word
}

/// The name that [`escaped`] wrote so; `None` when it wrote no such word.
pub(super) fn unescaped(word: &str) -> Option<String> {
    let mut name = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        name.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(name).ok().filter(|name| escaped(name) == word)
}

/// What came by a connection and was not taken yet: part of a line, and descriptors.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads once; what is there then is at most one line. `false`: the other side has ended. `InvalidData` when it
    /// says more than one line at once, one that is too long or no text, or sends more than one descriptor.
    pub(super) fn read(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut bytes = [0; LINE];
        let (len, descriptors) = rights::receive(socket, &mut bytes)?;
        self.bytes.extend(bytes.iter().take(len));
        self.descriptors.extend(descriptors);
        let ends = self.bytes.iter().position(|byte| *byte == b'\n');
        let more = ends.is_some_and(|at| at + 1 != self.bytes.len());
        if more || self.bytes.len() > LINE || self.descriptors.len() > 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one line at once"));
        }
        Ok(len > 0)
    }

    /// The line, without its end, and the descriptor that came with it, once all of it is there.
    pub(super) fn line(&mut self) -> io::Result<Option<(String, Option<OwnedFd>)>> {
        if self.bytes.pop_if(|byte| *byte == b'\n').is_none() {
            return Ok(None);
        }
        let line = String::from_utf8(std::mem::take(&mut self.bytes))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line that is no text"))?;
        Ok(Some((line, self.descriptors.pop_front())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_word_and_comes_back_as_it_was() {
        for (name, word) in [("tap-a", "tap-a"), ("a:b", "a%3Ab"), ("ä %", "%C3%A4%20%25"), ("", "")] {
            assert_eq!(escaped(name), word);
            assert_eq!(unescaped(word).as_deref(), Some(name));
        }
        for word in ["%", "%4", "%zz", "%3a", "%41", "%C3", "a b", "a:b"] {
            assert_eq!(unescaped(word), None, "{word}");
        }
    }
}
