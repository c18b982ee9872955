//! The line that is typed at a prompt. Pure: bytes go in, one after the other.
//!
//! A key that edits does so; a tab is a character; any other control character is refused, for the user may have meant it
//! (a paste) or not (an arrow key). Pastes that the terminal marks are told from keys: in them, nothing edits.

use zeroize::Zeroizing;

/// What a terminal sends before a paste, and behind it, where it marks pastes.
const PASTE: (&[u8], &[u8]) = (b"\x1b[200~", b"\x1b[201~");
const ESCAPE: u8 = 0x1b;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// Why a line is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// A key or a paste gave a control character.
    Control,
    /// There are more lines.
    Lines,
    /// It has more bytes than are asked for.
    TooLong,
    /// Something was typed before the prompt was shown.
    TypedAhead,
}

/// The keys of a terminal that edit a line; 0 for a key that is switched off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EditingKeys {
    /// Takes away the last character, as Backspace and Delete always do.
    pub(super) erase: u8,
    /// Takes away the last word.
    pub(super) erase_word: u8,
    /// Takes away everything.
    pub(super) erase_line: u8,
    /// Ends the line, as Enter does.
    pub(super) end: u8,
}

/// What was typed so far.
pub(super) struct Line {
    /// Never grows beyond its first allocation: no copy of it is left in memory.
    bytes: Zeroizing<Vec<u8>>,
    max: usize,
    keys: EditingKeys,
    /// How much of a mark has arrived that begins or ends a paste.
    matched: usize,
    in_paste: bool,
    has_ended: bool,
    /// The line break may be CR LF.
    after_carriage_return: bool,
    refused: Option<Refused>,
}

impl Line {
    pub(super) fn new(max: usize, keys: EditingKeys) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(max)),
            max,
            keys,
            matched: 0,
            in_paste: false,
            has_ended: false,
            after_carriage_return: false,
            refused: None,
        }
    }

    /// Whether the line has ended. What arrives behind its end makes it one of several.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended && !self.in_paste
    }

    /// The line, or why it is not taken.
    pub(super) fn take(self) -> Result<Zeroizing<Vec<u8>>, Refused> {
        self.refused.map_or(Ok(self.bytes), Err)
    }

    /// Takes the next byte. Whether it begins a character that is not part of a marked paste.
    pub(super) fn feed(&mut self, byte: u8) -> bool {
        let mark = if self.in_paste { PASTE.1 } else { PASTE.0 };
        if byte == mark[self.matched] {
            self.matched += 1;
            if self.matched == mark.len() {
                self.matched = 0;
                self.in_paste = !self.in_paste;
            }
            return false;
        }
        if self.matched > 0 {
            // Another key: an arrow, or Escape alone.
            self.matched = 0;
            self.refuse(Refused::Control);
            if byte == ESCAPE {
                self.matched = 1;
                return false;
            }
        }
        self.character(byte);
        let continues = byte & 0b1100_0000 == 0b1000_0000;
        !self.in_paste && !continues
    }

    fn character(&mut self, byte: u8) {
        let after_carriage_return = std::mem::take(&mut self.after_carriage_return);
        if self.has_ended {
            if !(byte == b'\n' && after_carriage_return) {
                self.refuse(Refused::Lines);
            }
            return;
        }
        match byte {
            b'\n' | b'\r' => {
                self.has_ended = true;
                self.after_carriage_return = byte == b'\r';
            }
            _ if !self.in_paste && byte.is_ascii_control() && self.edit(byte) => {}
            b'\t' => self.push(byte),
            _ if byte.is_ascii_control() => self.refuse(Refused::Control),
            _ => self.push(byte),
        }
    }

    /// Whether the byte is a key that edits, and has done so.
    fn edit(&mut self, byte: u8) -> bool {
        let is = |key| key != 0 && byte == key;
        if byte == BACKSPACE || byte == DELETE || is(self.keys.erase) {
            self.erase();
        } else if is(self.keys.erase_word) {
            while self.bytes.last().is_some_and(u8::is_ascii_whitespace) {
                self.erase();
            }
            while self.bytes.last().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                self.erase();
            }
        } else if is(self.keys.erase_line) {
            self.truncate(0);
        } else if is(self.keys.end) {
            self.has_ended = true;
        } else {
            return false;
        }
        true
    }

    /// Takes away the last character; where the end is not UTF-8, the last byte.
    fn erase(&mut self) {
        let length = self.bytes.len();
        let is_character =
            |start: &usize| std::str::from_utf8(&self.bytes[*start..]).is_ok_and(|text| text.chars().count() == 1);
        let start = (length.saturating_sub(4)..length).find(is_character);
        self.truncate(start.unwrap_or(length.saturating_sub(1)));
    }

    fn truncate(&mut self, length: usize) {
        self.bytes[length..].fill(0);
        self.bytes.truncate(length);
    }

    fn push(&mut self, byte: u8) {
        if self.bytes.len() == self.max {
            self.refuse(Refused::TooLong);
        } else {
            self.bytes.push(byte);
        }
    }

    /// The first reason counts.
    fn refuse(&mut self, why: Refused) {
        self.refused.get_or_insert(why);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const KEYS: EditingKeys = EditingKeys { erase: 0x7f, erase_word: 0x17, erase_line: 0x15, end: 0x04 };

    fn typed(bytes: &[u8]) -> Line {
        let mut line = Line::new(8, KEYS);
        for byte in bytes {
            line.feed(*byte);
        }
        line
    }

    #[test]
    fn what_is_typed_is_taken_byte_for_byte_or_refused() {
        for (bytes, expected) in [
            (&b"a\tb\n"[..], Ok(&b"a\tb"[..])),
            (b"\t \n", Ok(b"\t ")),
            (b"\n", Ok(b"")),
            (b"a\r", Ok(b"a")),
            (b"a\r\n", Ok(b"a")),
            (b"gr\xfc\xdfe\n", Ok(b"gr\xfc\xdfe")),
            ("gr\u{fc}\u{df}e\n".as_bytes(), Ok("gr\u{fc}\u{df}e".as_bytes())),
            (b"12345678\n", Ok(b"12345678")),
            (b"123456789\n", Err(Refused::TooLong)),
            (b"a\x01b\n", Err(Refused::Control)),
            (b"a\0b\n", Err(Refused::Control)),
            (b"a\x1b[Ab\n", Err(Refused::Control)),
            (b"a\x1b\n", Err(Refused::Control)),
            (b"a\x1b\x1b[200~b\x1b[201~\n", Err(Refused::Control)),
            (b"a\nb\n", Err(Refused::Lines)),
            (b"a\n\n", Err(Refused::Lines)),
            (b"a\r\r\n", Err(Refused::Lines)),
            (b"a\nb", Err(Refused::Lines)),
            // The first reason, whatever follows.
            (b"a\x01\nb", Err(Refused::Control)),
        ] {
            let line = typed(bytes);
            assert!(line.is_over(), "{bytes:?}");
            assert_eq!(line.take().as_ref().map(|bytes| &***bytes).map_err(|why| *why), expected, "{bytes:?}");
        }
        assert!(!typed(b"a").is_over());
    }

    #[test]
    fn keys_edit_whole_characters() {
        for (bytes, expected) in [
            (&b"ab\x7f\n"[..], &b"a"[..]),
            (b"ab\x08\n", b"a"),
            ("a\u{fc}\x7f\n".as_bytes(), b"a"),
            ("\u{1d11e}\x7fb\n".as_bytes(), b"b"),
            // No UTF-8: each byte is a character of its own.
            (b"a\xbf\xbf\x7f\n", b"a\xbf"),
            (b"\xfc\x7f\x7f\x7fa\n", b"a"),
            (b"ab\x15c\n", b"c"),
            (b"a bc \x17d\n", b"a d"),
            (b"ab\x04", b"ab"),
        ] {
            let line = typed(bytes);
            assert!(line.is_over(), "{bytes:?}");
            assert_eq!(line.take().unwrap().as_slice(), expected, "{bytes:?}");
        }
        // A key that is switched off is no key.
        let mut line = Line::new(8, EditingKeys::default());
        for byte in b"a\0\n" {
            line.feed(*byte);
        }
        assert_eq!(line.take(), Err(Refused::Control));
    }

    #[test]
    fn a_paste_is_taken_whole_or_refused() {
        let pasted = |text: &[u8], rest: &[u8]| typed(&[PASTE.0, text, PASTE.1, rest].concat());
        let taken = |line: Line| line.take().map(|bytes| bytes.to_vec());
        assert_eq!(taken(pasted(b"a\tb", b"c\n")), Ok(b"a\tbc".to_vec()));
        // A line that is copied brings its line break.
        for text in [&b"ab\n"[..], b"ab\r", b"ab\r\n"] {
            let line = pasted(text, b"");
            assert!(line.is_over());
            assert_eq!(taken(line), Ok(b"ab".to_vec()));
        }
        for (text, why) in [
            (&b"a\nb"[..], Refused::Lines),
            (b"a\n\n", Refused::Lines),
            (b"a\x7fb\n", Refused::Control),
            (b"a\x15b\n", Refused::Control),
            (b"a\x04b\n", Refused::Control),
            (b"a\x1b[200~b\n", Refused::Control),
        ] {
            assert!(taken(pasted(text, b"\n")).is_err());
            assert_eq!(pasted(text, b"").take().err(), Some(why), "{text:?}");
        }
        // The line break of a paste does not end the line before the paste ends.
        assert!(!typed(&[PASTE.0, b"a\n"].concat()).is_over());
    }
}
