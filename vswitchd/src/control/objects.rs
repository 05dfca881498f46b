//! Where one message ends: JSON objects, one after another, with nothing between them, as database servers
//! (RFC 7047 §4) and ovs-appctl send them.
//!
//! An end is found by braces alone, and each byte is looked at once, however it comes. Not here: sockets, and what an
//! object says.

/// What cannot be the beginning of an object that is taken: the stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoObject {
    /// Something else than an object.
    Else,
    /// An object of more bytes than are taken.
    TooLong,
    /// One that is deeper than is taken.
    TooDeep,
}

/// Bytes that have come, cut into objects.
#[derive(Debug)]
pub(super) struct Objects {
    longest: usize,
    deepest: usize,
    bytes: Vec<u8>,
    /// How many of them were looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Objects {
    /// None yet; none of more than `longest` bytes, or more than `deepest` deep, will be taken.
    pub(super) const fn new(longest: usize, deepest: usize) -> Self {
        Self { longest, deepest, bytes: Vec::new(), seen: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Whether there is not even the beginning of one.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole object, if it is there.
    ///
    /// # Errors
    /// There is none, and will be none.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, NoObject> {
        if self.depth == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            self.seen = 0;
        }
        while let Some(&byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' if self.depth == self.deepest => return Err(NoObject::TooDeep),
                b'{' | b'[' if self.depth > 0 || byte == b'{' => self.depth += 1,
                _ if self.depth == 0 => return Err(NoObject::Else),
                b'"' => self.in_string = true,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let rest = self.bytes.split_off(self.seen);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
        }
        if self.bytes.len() > self.longest { Err(NoObject::TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<String>, Result<(), NoObject>) {
        let mut stream = Objects::new(1 << 20, 16);
        let mut objects = Vec::new();
        for chunk in chunks {
            stream.push(chunk);
            loop {
                match stream.next() {
                    Ok(Some(object)) => objects.push(String::from_utf8(object).unwrap()),
                    Ok(None) => break,
                    Err(error) => return (objects, Err(error)),
                }
            }
        }
        (objects, Ok(()))
    }

    #[test]
    fn objects_are_found_wherever_they_are_cut() {
        let stream = br#" {"a":"}\"{\\"}{"b":[{"c":"\\"}]}
            {}"#;
        let whole = [r#"{"a":"}\"{\\"}"#, r#"{"b":[{"c":"\\"}]}"#, "{}"].map(str::to_owned).to_vec();
        for size in 1..=stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(cut(&pieces), (whole.clone(), Ok(())), "pieces of {size}");
        }
        for at in 0..stream.len() {
            let (one, other) = stream.split_at(at);
            assert_eq!(cut(&[one, other]), (whole.clone(), Ok(())), "cut at {at}");
        }
    }

    #[test]
    fn what_begins_no_object_is_refused() {
        for bad in [&b"x"[..], b"[1]", b"]", b"}", b"1", b"\"\"", b"\"a\"", b"\xff"] {
            assert_eq!(cut(&[bad]).1, Err(NoObject::Else), "{bad:?}");
        }
        assert_eq!(cut(&[b"{}x"]), (vec!["{}".to_owned()], Err(NoObject::Else)));
    }

    #[test]
    fn an_object_may_be_so_deep_and_no_deeper() {
        let deep = b"{\"a\":".repeat(16);
        assert_eq!(cut(&[&deep]).1, Ok(()));
        assert_eq!(cut(&[&deep, b"["]).1, Err(NoObject::TooDeep));
    }

    #[test]
    fn an_object_that_never_ends_is_refused_once_it_is_too_long() {
        let mut endless = b"{\"method\":\"".to_vec();
        endless.resize(1 << 20, b'a');
        assert_eq!(cut(&[&endless]).1, Ok(()));
        assert_eq!(cut(&[&endless, b"aa"]).1, Err(NoObject::TooLong));
    }
}
