//! Items of a frame: what a script sends, and the pattern that a received frame must match byte for byte.

use regex::bytes::Regex;

use crate::tokens::{Sum, Value, Values, interpolate};

/// One jute item.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// `int`, `long`, `bool`: so many bytes, big endian.
    Number { width: usize, pattern: Number },
    /// `str`, `buf`: an int length (-1 = null), then the bytes.
    Sized(Content),
    /// `hex`, a bare text, `fill`, `random`: bytes without a length.
    Bytes(Content),
    /// `vec [ …, … ]` and `set [ …, … ]` (any order): an int count, then the elements.
    Vector { elements: Vec<Vec<Item>>, ordered: bool },
    /// `rest`: whatever follows.
    Rest,
}

/// A number: to send it, it must be a `Sum`.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    capture: Option<String>,
    condition: Option<(Comparison, Sum)>,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    Differs,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Bytes of a string, a buffer or a raw part.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Null,
    Text(Vec<u8>),
    /// `$name`
    Captured(String),
    /// `@name`
    Capture(String),
    /// `*`
    Any,
    /// `~"regular expression"`
    Matches(Regex),
    /// `fill N`: that many zero bytes.
    Fill(usize),
    /// `random SEED N`: that many bytes of a fixed generator.
    Random(u64, usize),
}

/// One frame of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Whether a length goes before the items.
    pub(crate) framed: bool,
    pub(crate) items: Vec<Item>,
}

impl Number {
    pub(crate) fn exactly(number: i64) -> Self {
        Number {
            capture: None,
            condition: Some((Comparison::Equal, Sum::literal(number))),
        }
    }

    pub(crate) fn any() -> Self {
        Number {
            capture: None,
            condition: None,
        }
    }

    /// `*`, `@name`, `@name>$z`, `>$z`, `!=0`, or a `Sum`.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        if word == "*" {
            return Ok(Number::any());
        }
        let (capture, condition) = match word.strip_prefix('@') {
            Some(name) => {
                let split = name.find(['<', '>', '!', '=']).unwrap_or(name.len());
                let (name, condition) = name.split_at(split);
                (Some(name.to_owned()), condition)
            }
            None => (None, word),
        };
        if condition.is_empty() {
            return Ok(Number {
                capture,
                condition: None,
            });
        }
        let (comparison, sum) = [
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            ("!=", Comparison::Differs),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
            ("=", Comparison::Equal),
        ]
        .iter()
        .find_map(|(sign, comparison)| Some((*comparison, condition.strip_prefix(sign)?)))
        .unwrap_or((Comparison::Equal, condition));
        Ok(Number {
            capture,
            condition: Some((comparison, Sum::parse(sum)?)),
        })
    }

    fn to_send(&self, values: &Values) -> Result<i64, String> {
        match (&self.capture, &self.condition) {
            (None, Some((Comparison::Equal, sum))) => sum.value(values),
            _ => Err("a wildcard cannot be sent".to_owned()),
        }
    }

    fn accept(&self, received: i64, values: &mut Values) -> Result<(), String> {
        if let Some((comparison, sum)) = &self.condition {
            let wanted = sum.value(values)?;
            let (holds, sign) = match comparison {
                Comparison::Equal => (received == wanted, ""),
                Comparison::Differs => (received != wanted, "not "),
                Comparison::Greater => (received > wanted, "more than "),
                Comparison::GreaterOrEqual => (received >= wanted, "at least "),
                Comparison::Less => (received < wanted, "less than "),
                Comparison::LessOrEqual => (received <= wanted, "at most "),
            };
            if !holds {
                return Err(format!("wanted {sign}{}, got {}", named(wanted), named(received)));
            }
        }
        if let Some(name) = &self.capture {
            values.insert(name.clone(), Value::Number(received));
        }
        Ok(())
    }
}

fn named(number: i64) -> String {
    if (-0xffff..=0xffff).contains(&number) {
        number.to_string()
    } else {
        format!("{number} ({number:#x})")
    }
}

/// The bytes of a frame that is sent, its length included.
pub(crate) fn encode(frame: &Frame, values: &Values) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    encode_items(&frame.items, values, &mut payload)?;
    if !frame.framed {
        return Ok(payload);
    }
    let mut bytes = u32::try_from(payload.len())
        .map_err(|error| error.to_string())?
        .to_be_bytes()
        .to_vec();
    bytes.append(&mut payload);
    Ok(bytes)
}

pub(crate) fn encode_items(items: &[Item], values: &Values, out: &mut Vec<u8>) -> Result<(), String> {
    for item in items {
        match item {
            Item::Number { width, pattern } => {
                let bytes = pattern.to_send(values)?.to_be_bytes();
                out.extend_from_slice(&bytes[8 - width..]);
            }
            Item::Sized(content) => match content.to_send(values)? {
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(bytes) => {
                    out.extend_from_slice(&length(bytes.len())?);
                    out.extend_from_slice(&bytes);
                }
            },
            Item::Bytes(content) => out.extend_from_slice(&content.to_send(values)?.unwrap_or_default()),
            Item::Vector { elements, .. } => {
                out.extend_from_slice(&length(elements.len())?);
                for element in elements {
                    encode_items(element, values, out)?;
                }
            }
            Item::Rest => return Err("'rest' cannot be sent".to_owned()),
        }
    }
    Ok(())
}

fn length(length: usize) -> Result<[u8; 4], String> {
    i32::try_from(length)
        .map(i32::to_be_bytes)
        .map_err(|error| error.to_string())
}

impl Content {
    fn to_send(&self, values: &Values) -> Result<Option<Vec<u8>>, String> {
        match self {
            Content::Null => Ok(None),
            Content::Text(text) => interpolate(text, values).map(Some),
            Content::Captured(name) => match values.get(name) {
                Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
                Some(Value::Number(_)) => Err(format!("${name} is a number, not bytes")),
                None => Err(format!("nothing has captured ${name} yet")),
            },
            Content::Fill(size) => Ok(Some(vec![0; *size])),
            Content::Random(seed, size) => Ok(Some(random(*seed, *size))),
            Content::Any | Content::Capture(_) | Content::Matches(_) => Err("a wildcard cannot be sent".to_owned()),
        }
    }

    fn accept(&self, received: Option<&[u8]>, values: &mut Values) -> Result<(), String> {
        match self {
            Content::Any => return Ok(()),
            Content::Capture(name) => {
                values.insert(name.clone(), Value::Bytes(received.map(<[u8]>::to_vec)));
                return Ok(());
            }
            Content::Matches(expression) => {
                if received.is_some_and(|bytes| expression.is_match(bytes)) {
                    return Ok(());
                }
                return Err(format!("wanted a match of {expression}, got {}", shown(received)));
            }
            Content::Null | Content::Text(_) | Content::Captured(_) | Content::Fill(_) | Content::Random(..) => {}
        }
        let wanted = self.to_send(values)?;
        if wanted.as_deref() == received {
            Ok(())
        } else {
            Err(format!("wanted {}, got {}", shown(wanted.as_deref()), shown(received)))
        }
    }
}

fn shown(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
}

/// A linear congruential generator: the same bytes for the same seed, on every machine.
fn random(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Compares a received payload with its pattern; captures go to `values` even if a later item differs.
pub(crate) fn accept_frame(items: &[Item], payload: &[u8], values: &mut Values) -> Result<(), String> {
    let mut rest = payload;
    accept_items(items, &mut rest, values)?;
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes more than expected", rest.len()))
    }
}

fn accept_items(items: &[Item], rest: &mut &[u8], values: &mut Values) -> Result<(), String> {
    for (index, item) in items.iter().enumerate() {
        let offset = rest.len();
        accept_item(item, rest, values)
            .map_err(|error| format!("item {} ({offset} bytes before the end): {error}", index + 1))?;
    }
    Ok(())
}

fn accept_item(item: &Item, rest: &mut &[u8], values: &mut Values) -> Result<(), String> {
    match item {
        Item::Number { width, pattern } => pattern.accept(take_number(rest, *width)?, values),
        Item::Sized(content) => {
            let length = take_number(rest, 4)?;
            if length == -1 {
                return content.accept(None, values);
            }
            let length = usize::try_from(length).map_err(|_| format!("a length of {length}"))?;
            content.accept(Some(take(rest, length)?), values)
        }
        Item::Bytes(content) => {
            let wanted = content.to_send(values)?.unwrap_or_default();
            content.accept(Some(take(rest, wanted.len())?), values)
        }
        Item::Vector { elements, ordered } => {
            let count = take_number(rest, 4)?;
            if count != elements.len() as i64 {
                let shown = rest.escape_ascii();
                return Err(format!(
                    "wanted a vector of {}, got one of {count}: {shown}",
                    elements.len()
                ));
            }
            if *ordered {
                return elements
                    .iter()
                    .try_for_each(|element| accept_items(element, rest, values));
            }
            let mut open: Vec<&Vec<Item>> = elements.iter().collect();
            while !open.is_empty() {
                let (index, after) = open
                    .iter()
                    .enumerate()
                    .find_map(|(index, element)| {
                        let mut after = *rest;
                        accept_items(element, &mut after, values).ok().map(|()| (index, after))
                    })
                    .ok_or_else(|| format!("an element of the set is not expected: {}", rest.escape_ascii()))?;
                open.remove(index);
                *rest = after;
            }
            Ok(())
        }
        Item::Rest => {
            *rest = &[];
            Ok(())
        }
    }
}

fn take_number(rest: &mut &[u8], width: usize) -> Result<i64, String> {
    let bytes = take(rest, width)?;
    // Sign-extended from the first byte, as Java reads it.
    let start = if bytes.first().is_some_and(|&byte| byte >= 0x80) {
        -1
    } else {
        0
    };
    Ok(bytes
        .iter()
        .fold(start, |number: i64, &byte| (number << 8) | i64::from(byte)))
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest
        .split_at_checked(size)
        .ok_or_else(|| format!("{size} bytes wanted, {} are left", rest.len()))?;
    *rest = after;
    Ok(taken)
}
