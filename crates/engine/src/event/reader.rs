//! The reader: one JSON text becomes a tape.
//!
//! A reader of our own because a lone surrogate or an integer of thirty digits must not lose an event, and because a tape
//! costs one allocation. It is strict about everything else (RFC 8259) and never recurses.

use super::tape::{KEY_ESCAPED, Kind, Node, TEXT_ESCAPED};

/// Deepest nesting of an event: far above any real one, and a bound for everything that walks it by recursion.
pub const MAX_EVENT_DEPTH: usize = 64;

/// Bytes of JSON a node takes on average in audit events; a guess that saves growing the tape.
const BYTES_PER_NODE: usize = 20;

/// Reads one JSON text. `raw` is at most `MAX_EVENT_BYTES` long, so every place in it fits 32 bits.
pub(super) fn read(raw: &str) -> Result<Vec<Node>, String> {
    let tape = Vec::with_capacity(raw.len() / BYTES_PER_NODE + 8);
    let mut reader = Reader { bytes: raw.as_bytes(), at: 0, tape };
    reader.document()?;
    Ok(reader.tape)
}

struct Reader<'r> {
    bytes: &'r [u8],
    at: usize,
    tape: Vec<Node>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), String> {
        let mut open = [0_u32; MAX_EVENT_DEPTH];
        let mut depth = 0_usize;
        let mut key = (0, 0, 0);
        loop {
            self.skip_space();
            let entered = self.value(key)?;
            if entered {
                let slot = open.get_mut(depth).ok_or_else(|| self.problem("nested too deeply"))?;
                *slot = self.tape.len() as u32 - 1;
                depth += 1;
            }
            let mut first = entered;
            loop {
                self.skip_space();
                let container = depth.checked_sub(1).and_then(|top| open.get(top)).map(|index| *index as usize);
                let Some(container) = container else {
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(self.problem("text after the end")) };
                };
                let in_object = self.tape.get(container).is_some_and(Node::is_object);
                let closing = if in_object { b'}' } else { b']' };
                let byte = self.peek();
                if byte == closing {
                    self.at += 1;
                    self.close(container);
                    depth -= 1;
                    first = false;
                    continue;
                }
                if !first {
                    if byte != b',' {
                        return Err(self.problem("expected a comma or the end of a container"));
                    }
                    self.at += 1;
                }
                key = if in_object { self.key()? } else { (0, 0, 0) };
                break;
            }
        }
    }

    fn close(&mut self, container: usize) {
        let (end, next) = (self.at as u32, self.tape.len() as u32);
        if let Some(node) = self.tape.get_mut(container) {
            node.end = end;
            node.next = next;
        }
    }

    /// Reads a scalar, or the opening of a container: then it returns true.
    fn value(&mut self, (key_start, key_end, flags): (u32, u32, u8)) -> Result<bool, String> {
        let mut node = Node {
            key_start,
            key_end,
            start: self.at as u32,
            end: 0,
            next: self.tape.len() as u32 + 1,
            kind: Kind::Null,
            flags,
        };
        match self.peek() {
            b'"' => {
                node.kind = Kind::Text;
                node.start += 1;
                let escaped = self.string()?;
                node.end = self.at as u32 - 1;
                node.flags |= if escaped { TEXT_ESCAPED } else { 0 };
            }
            open @ (b'{' | b'[') => {
                self.at += 1;
                node.kind = if open == b'{' { Kind::Object } else { Kind::Array };
                self.tape.push(node);
                return Ok(true);
            }
            b'-' | b'0'..=b'9' => {
                node.kind = Kind::Number;
                self.number()?;
                node.end = self.at as u32;
            }
            _ => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let words = [(&b"null"[..], Kind::Null), (b"true", Kind::True), (b"false", Kind::False)];
                let word = words.into_iter().find(|(word, _)| rest.starts_with(word));
                let (word, kind) = word.ok_or_else(|| self.problem("expected a value"))?;
                self.at += word.len();
                node.kind = kind;
                node.end = self.at as u32;
            }
        }
        self.tape.push(node);
        Ok(false)
    }

    fn key(&mut self) -> Result<(u32, u32, u8), String> {
        self.skip_space();
        if self.peek() != b'"' {
            return Err(self.problem("expected a key"));
        }
        let start = self.at as u32 + 1;
        let escaped = self.string()?;
        let end = self.at as u32 - 1;
        self.skip_space();
        if self.peek() != b':' {
            return Err(self.problem("expected a colon"));
        }
        self.at += 1;
        Ok((start, end, if escaped { KEY_ESCAPED } else { 0 }))
    }

    /// Reads a string from its opening quote to behind its closing one; says whether it holds escapes.
    fn string(&mut self) -> Result<bool, String> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.problem("a string does not end, or holds a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.problem("expected four hexadecimal digits"));
                }
                self.at += 5;
            }
            _ => return Err(self.problem("unknown escape")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), String> {
        if !self.peek().is_ascii_digit() {
            return Err(self.problem("expected a digit"));
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The byte here, or 0 at the end: no JSON holds a bare 0.
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn problem(&self, what: &str) -> String {
        format!("{what} at byte {}", self.at)
    }
}

/// How many bytes come before the next quote, backslash or control character; eight at a time.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (chunks, tail) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found =
            zero_bytes(word ^ (ONES * u64::from(b'"'))) | zero_bytes(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes.len() - tail.len() + tail.iter().position(special).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::super::tape::View;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_place_of_a_string_is_scanned() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
                let mut bytes = vec![b'a'; length];
                bytes.extend([0x80, 0xff, 0x20, 0x21, special]);
                bytes.extend(b"zzz\"zz");
                assert_eq!(plain_bytes(&bytes), length + 4);
            }
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let bad = [
            "{\"a\":1,}",
            "{,}",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{} {}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":nul}",
            "{\"a\":truer}",
            "{a:1}",
            "{\"a\":1]",
            "{\"a\" 1}",
            "\u{feff}{}",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":+1}",
            "{\"a\":.5}",
            "{\"a\":NaN}",
            "{\"a\" : [}",
        ];
        for text in bad {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_EVENT_DEPTH)).is_ok());
        assert!(read(&nested(MAX_EVENT_DEPTH + 1)).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((".{0,4}", inner), 0..6)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn json_reads_back(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let tape = read(&text).unwrap();
            prop_assert_eq!(View::root(&text, &tape).to_json(), value);
        }

        #[test]
        fn it_accepts_what_serde_json_accepts(text in r#"[\[\]{}",:0-9a\\eE+.\- ntrufls]{0,24}"#) {
            let ours = read(&text).is_ok();
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }

        #[test]
        fn any_text_is_an_answer(text in any::<String>()) {
            if let Ok(tape) = read(&text) {
                prop_assert_eq!(View::root(&text, &tape).json(), text.trim_matches([' ', '\n', '\r', '\t']));
            }
        }
    }
}
