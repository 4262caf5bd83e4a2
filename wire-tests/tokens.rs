//! Words of a script line: the lexer, and the numbers and byte strings that stand in items.

use std::collections::HashMap;

/// A lexical element of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// Anything between blanks that is not one of the others.
    Word(String),
    /// Text between double quotes, escapes resolved. `${name}` inside is replaced when the step runs.
    Text(Vec<u8>),
    /// One of `[ ] , ;`.
    Mark(char),
}

/// Splits one line; a `#` at the start of a word begins a comment.
pub(crate) fn lex(line: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(&next) = rest.peek() {
        match next {
            '#' => break,
            '[' | ']' | ',' | ';' => {
                rest.next();
                tokens.push(Token::Mark(next));
            }
            '"' => {
                rest.next();
                tokens.push(Token::Text(quoted(&mut rest)?));
            }
            _ if next.is_whitespace() => {
                rest.next();
            }
            _ => {
                let mut word = String::new();
                while let Some(&c) = rest.peek() {
                    if c.is_whitespace() || "[],;\"".contains(c) {
                        break;
                    }
                    word.push(c);
                    rest.next();
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

/// The bytes up to the closing quote. Escapes: `\n \r \t \0 \\ \"`, `\xNN` (a byte), `\u{N}` (UTF-8 of a code point).
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut utf8 = [0; 4];
    loop {
        match rest.next().ok_or("a text without its closing quote")? {
            '"' => return Ok(bytes),
            '\\' => match rest.next().ok_or("a text that ends in a backslash")? {
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                '0' => bytes.push(0),
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is not a byte"))?);
                }
                'u' => {
                    let digits: String = rest.by_ref().skip(1).take_while(|&c| c != '}').collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    let code = code.ok_or_else(|| format!("\\u{{{digits}}} is not a character"))?;
                    bytes.extend_from_slice(code.encode_utf8(&mut utf8).as_bytes());
                }
                other => bytes.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes()),
            },
            other => bytes.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes()),
        }
    }
}

/// What a script has captured: numbers (`int`, `long`, `bool`) and byte strings (`str`, `buf`; null is `None`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

/// Captured values by name.
pub(crate) type Values = HashMap<String, Value>;

/// A number to be sent or compared with: a literal or a captured value, plus a constant.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    base: Base,
    plus: i64,
}

#[derive(Clone, Debug)]
enum Base {
    Literal(i64),
    Captured(String),
}

impl Sum {
    pub(crate) fn literal(number: i64) -> Self {
        Sum {
            base: Base::Literal(number),
            plus: 0,
        }
    }

    /// `5`, `-0x1`, `NONODE`, `$z`, `$z+1`, `$z-2`.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        if let Some(variable) = word.strip_prefix('$') {
            let split = variable.find(['+', '-']).unwrap_or(variable.len());
            let (name, plus) = variable.split_at(split);
            let plus = if plus.is_empty() {
                0
            } else {
                literal(plus.trim_start_matches('+'))?
            };
            return Ok(Sum {
                base: Base::Captured(name.to_owned()),
                plus,
            });
        }
        Ok(Sum::literal(literal(word)?))
    }

    pub(crate) fn value(&self, values: &Values) -> Result<i64, String> {
        let base = match &self.base {
            Base::Literal(number) => *number,
            Base::Captured(name) => match values.get(name) {
                Some(Value::Number(number)) => *number,
                Some(Value::Bytes(_)) => return Err(format!("${name} is not a number")),
                None => return Err(format!("nothing has captured ${name} yet")),
            },
        };
        Ok(base.wrapping_add(self.plus))
    }
}

/// A decimal or hexadecimal number (64 bits, hexadecimal may be unsigned) or one of the names of `NAMES`.
pub(crate) fn literal(word: &str) -> Result<i64, String> {
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == word) {
        return Ok(*number);
    }
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16)
            .ok()
            .map(u64::cast_signed),
        None => digits.replace('_', "").parse::<i64>().ok(),
    };
    number
        .map(|number| number.wrapping_mul(sign))
        .ok_or_else(|| format!("'{word}' is no number and no known name"))
}

/// Replaces `${name}` by the captured value in decimal, `${name:x}` by lower-case hexadecimal.
pub(crate) fn interpolate(text: &[u8], values: &Values) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.windows(2).position(|pair| pair == b"${") {
        let (before, from_start) = rest.split_at(start);
        out.extend_from_slice(before);
        let end = from_start
            .iter()
            .position(|&byte| byte == b'}')
            .ok_or("'${' without '}'")?;
        let (reference, after) = from_start.split_at(end + 1);
        let inner = String::from_utf8_lossy(reference.get(2..end).unwrap_or_default());
        let (name, format) = inner.split_once(':').unwrap_or((&inner, ""));
        match (values.get(name), format) {
            (Some(Value::Number(number)), "") => out.extend_from_slice(number.to_string().as_bytes()),
            (Some(Value::Number(number)), "x") => out.extend_from_slice(format!("{number:x}").as_bytes()),
            (Some(Value::Bytes(Some(bytes))), "") => out.extend_from_slice(bytes),
            _ => {
                return Err(format!(
                    "'${{{inner}}}': nothing of that name and format has been captured"
                ));
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Numbers that have a name on the wire.
const NAMES: &[(&str, i64)] = &[
    // Operations.
    ("create", 1),
    ("delete", 2),
    ("exists", 3),
    ("getData", 4),
    ("setData", 5),
    ("getACL", 6),
    ("setACL", 7),
    ("getChildren", 8),
    ("sync", 9),
    ("ping", 11),
    ("getChildren2", 12),
    ("check", 13),
    ("multi", 14),
    ("create2", 15),
    ("reconfig", 16),
    ("checkWatches", 17),
    ("removeWatches", 18),
    ("createContainer", 19),
    ("deleteContainer", 20),
    ("createTTL", 21),
    ("multiRead", 22),
    ("auth", 100),
    ("setWatches", 101),
    ("sasl", 102),
    ("getEphemerals", 103),
    ("getAllChildrenNumber", 104),
    ("setWatches2", 105),
    ("addWatch", 106),
    ("whoAmI", 107),
    ("createSession", -10),
    ("closeSession", -11),
    // Errors.
    ("ok", 0),
    ("SYSTEMERROR", -1),
    ("RUNTIMEINCONSISTENCY", -2),
    ("MARSHALLINGERROR", -5),
    ("UNIMPLEMENTED", -6),
    ("BADARGUMENTS", -8),
    ("NEWCONFIGNOQUORUM", -13),
    ("RECONFIGINPROGRESS", -14),
    ("NONODE", -101),
    ("NOAUTH", -102),
    ("BADVERSION", -103),
    ("NOCHILDRENFOREPHEMERALS", -108),
    ("NODEEXISTS", -110),
    ("NOTEMPTY", -111),
    ("SESSIONEXPIRED", -112),
    ("INVALIDACL", -114),
    ("AUTHFAILED", -115),
    ("SESSIONMOVED", -118),
    ("NOTREADONLY", -119),
    ("EPHEMERALONLOCALSESSION", -120),
    ("NOWATCHER", -121),
    ("RECONFIGDISABLED", -123),
    ("SESSIONCLOSEDREQUIRESASLAUTH", -124),
    ("QUOTAEXCEEDED", -125),
    ("THROTTLEDOP", -127),
    // Modes of create.
    ("persistent", 0),
    ("ephemeral", 1),
    ("sequential", 2),
    ("ephemeral+sequential", 3),
    ("container", 4),
    ("ttl", 5),
    ("ttl+sequential", 6),
    // Event types.
    ("created", 1),
    ("deleted", 2),
    ("dataChanged", 3),
    ("childrenChanged", 4),
    // Types of checkWatches and removeWatches.
    ("watch:children", 1),
    ("watch:data", 2),
    ("watch:any", 3),
    ("watch:persistent", 4),
    ("watch:recursive", 5),
    // Modes of addWatch.
    ("mode:persistent", 0),
    ("mode:recursive", 1),
    // Permissions.
    ("r", 1),
    ("w", 2),
    ("c", 4),
    ("d", 8),
    ("a", 16),
    ("rw", 3),
    ("cdrwa", 31),
];
