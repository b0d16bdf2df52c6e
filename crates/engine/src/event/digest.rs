//! What a record says, as a number: two records of one id are the same when their digests are.
//!
//! It is made of meaning, not of bytes: another order of members, other spaces and other escapes change nothing. Numbers
//! count as they are written, because `1` and `1.0` need not mean the same to who wrote them.

use super::{Value, View};

/// 128 bits of BLAKE3: nobody finds two records that share one, not even who writes both.
pub type Digest = [u8; 16];

/// Of text that is no event: without the spaces around it.
#[must_use]
pub fn text_digest(text: &str) -> Digest {
    cut(&blake3::hash(text.trim().as_bytes()))
}

/// Most events need no more, so that their digest costs one allocation.
const USUAL_BYTES: usize = 2_048;

pub(super) fn of(view: View<'_>) -> Digest {
    let mut plain = Vec::with_capacity(USUAL_BYTES);
    write(view, &mut plain);
    cut(&blake3::hash(&plain))
}

fn cut(hash: &blake3::Hash) -> Digest {
    let mut digest = Digest::default();
    digest.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// Each value begins with its kind and has its length or its end, so that no two values are written alike.
fn write(view: View<'_>, plain: &mut Vec<u8>) {
    match view.value() {
        Value::Null => plain.push(b'n'),
        Value::Bool(truth) => plain.push(if truth { b't' } else { b'f' }),
        Value::Number(text) => sized(b'#', text, plain),
        Value::Text(text) => sized(b'"', &text, plain),
        Value::Array(view) => {
            plain.push(b'[');
            view.items().for_each(|item| write(item, plain));
            plain.push(b']');
        }
        Value::Object(view) => {
            let mut members: Vec<_> = view.members().collect();
            // Of two equal keys the last one counts, and the sort keeps their order.
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            plain.push(b'{');
            for pair in members.chunk_by(|(one, _), (other, _)| one == other) {
                if let Some((key, member)) = pair.last() {
                    sized(b':', key, plain);
                    write(*member, plain);
                }
            }
            plain.push(b'}');
        }
    }
}

fn sized(kind: u8, text: &str, plain: &mut Vec<u8>) {
    plain.push(kind);
    plain.extend((text.len() as u64).to_le_bytes());
    plain.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::event::Event;

    fn digest(raw: &str) -> Digest {
        Event::new("e", DateTime::UNIX_EPOCH, raw.into()).expect("an event").digest()
    }

    #[test]
    fn what_says_the_same_is_the_same() {
        let one = digest(r#"{"a":"x","b":{"c":[1,null,true],"d":2}}"#);
        for other in [
            r#" { "b" : { "d" : 2 , "c" : [ 1 , null , true ] } , "a" : "x" } "#,
            r#"{"\u0061":"\u0078","b":{"c":[1,null,true],"d":2}}"#,
            r#"{"a":"y","a":"x","b":{"c":[1,null,true],"d":2}}"#,
        ] {
            assert_eq!(digest(other), one, "{other}");
        }
    }

    #[test]
    fn what_says_something_else_is_something_else() {
        let texts = [
            r#"{}"#,
            r#"{"a":"x"}"#,
            r#"{"a":"X"}"#,
            r#"{"a":"x","b":null}"#,
            r#"{"a":["x"]}"#,
            r#"{"a":{"x":""}}"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.0}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[12]}"#,
            r#"{"a":true}"#,
            r#"{"a":"","b":"x"}"#,
            r#"{"a":[],"b":"x"}"#,
            r#"{"a":["b","x"]}"#,
        ];
        for (index, one) in texts.iter().enumerate() {
            for other in texts.iter().skip(index + 1) {
                assert_ne!(digest(one), digest(other), "{one} {other}");
            }
        }
        assert_eq!(text_digest(" no JSON\n"), text_digest("no JSON"));
        assert_ne!(text_digest("no JSON"), text_digest("no  JSON"));
    }
}
