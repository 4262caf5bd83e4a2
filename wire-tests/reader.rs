//! Reads frames and items from the tokens of a statement.

use regex::bytes::Regex;

use crate::pattern::{Content, Frame, Item, Number};
use crate::tokens::{Token, literal};

/// Stat's fields in wire order: name in scripts, bytes.
const STAT_FIELDS: [(&str, usize); 11] = [
    ("czxid", 8),
    ("mzxid", 8),
    ("ctime", 8),
    ("mtime", 8),
    ("version", 4),
    ("cversion", 4),
    ("aversion", 4),
    ("owner", 8),
    ("length", 4),
    ("children", 4),
    ("pzxid", 8),
];

/// Reads the tokens of one statement from left to right.
pub(crate) struct Reader<'a> {
    tokens: &'a [Token],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(tokens: &'a [Token]) -> Self {
        Reader { tokens }
    }

    /// Frames, separated by `;`, to the end.
    pub(crate) fn frames(&mut self) -> Result<Vec<Frame>, String> {
        let mut frames = vec![self.frame()?];
        while self.takes_mark(';') {
            frames.push(self.frame()?);
        }
        match self.tokens.first() {
            None => Ok(frames),
            Some(token) => Err(format!("{token:?} cannot stand here")),
        }
    }

    /// `frame ITEMS`, `raw ITEMS`, `req XID OP ITEMS`, `rep XID ZXID ERR ITEMS`, `event ZXID TYPE ITEMS`.
    fn frame(&mut self) -> Result<Frame, String> {
        let kind = self.word()?;
        let mut items = Vec::new();
        match kind {
            "frame" | "raw" => {}
            "req" => items.extend([self.number(4)?, self.number(4)?]),
            "rep" => items.extend([self.number(4)?, self.number(8)?, self.number(4)?]),
            "event" => {
                items.extend([fixed(4, -1), self.number(8)?, fixed(4, 0), self.number(4)?, fixed(4, 3)]);
            }
            other => return Err(format!("'{other}' is no kind of frame (frame, raw, req, rep, event)")),
        }
        self.items(&mut items)?;
        Ok(Frame {
            framed: kind != "raw",
            items,
        })
    }

    /// Items up to the end or a `;`, `,` or `]`.
    pub(crate) fn items(&mut self, items: &mut Vec<Item>) -> Result<(), String> {
        loop {
            match self.tokens.split_first() {
                None | Some((Token::Mark(';' | ',' | ']'), _)) => return Ok(()),
                Some((Token::Text(text), rest)) => {
                    self.tokens = rest;
                    items.push(Item::Bytes(Content::Text(text.clone())));
                }
                Some((Token::Word(word), rest)) => {
                    self.tokens = rest;
                    self.item(word, items)?;
                }
                Some((Token::Mark(mark), _)) => return Err(format!("'{mark}' cannot stand here")),
            }
        }
    }

    fn item(&mut self, word: &str, items: &mut Vec<Item>) -> Result<(), String> {
        match word {
            "int" => items.push(self.number(4)?),
            "long" => items.push(self.number(8)?),
            "byte" | "bool" => items.push(self.number(1)?),
            "false" => items.push(fixed(1, 0)),
            "true" => items.push(fixed(1, 1)),
            "str" | "buf" => items.push(Item::Sized(self.content()?)),
            "hex" => items.push(Item::Bytes(Content::Text(hexadecimal(self.word()?)?))),
            "fill" | "random" => {
                let content = self.generated(word)?;
                items.push(Item::Bytes(content));
            }
            "vec" | "set" => {
                let vector = self.vector(word == "vec")?;
                items.push(vector);
            }
            "rest" => items.push(Item::Rest),
            "stat" => items.extend(self.stat()?),
            "acl" => items.push(self.acl()?),
            // The access list that nearly every script uses: all rights to everyone.
            "open" => items.push(Item::Vector {
                elements: vec![vec![fixed(4, 31), text("world"), text("anyone")]],
                ordered: true,
            }),
            // Between the operations of a multi, and at its end.
            "op" => items.extend([self.number(4)?, fixed(1, 0), self.number(4)?]),
            "done" => items.extend([fixed(4, -1), fixed(1, 1), fixed(4, -1)]),
            other => return Err(format!("'{other}' is no item")),
        }
        Ok(())
    }

    fn vector(&mut self, ordered: bool) -> Result<Item, String> {
        if self.takes_word("null") {
            return Ok(fixed(4, -1));
        }
        let elements = self.elements(|reader| {
            let mut items = Vec::new();
            reader.items(&mut items)?;
            Ok(items)
        })?;
        Ok(Item::Vector { elements, ordered })
    }

    /// `acl [ cdrwa world anyone, r digest "user:hash" ]`: permissions, scheme, id.
    fn acl(&mut self) -> Result<Item, String> {
        let elements = self.elements(|reader| {
            let permissions = reader.number(4)?;
            Ok(vec![
                permissions,
                Item::Sized(reader.content_or_word()?),
                Item::Sized(reader.content_or_word()?),
            ])
        })?;
        Ok(Item::Vector {
            elements,
            ordered: true,
        })
    }

    fn elements(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<Vec<Item>, String>,
    ) -> Result<Vec<Vec<Item>>, String> {
        let mut elements = Vec::new();
        if !self.takes_mark('[') {
            return Err("'[' is missing".to_owned());
        }
        if self.takes_mark(']') {
            return Ok(elements);
        }
        loop {
            elements.push(element(self)?);
            if self.takes_mark(']') {
                return Ok(elements);
            }
            if !self.takes_mark(',') {
                return Err("',' or ']' is missing".to_owned());
            }
        }
    }

    /// `stat czxid=$c version=0 …`: fields in any order, those not named match anything.
    fn stat(&mut self) -> Result<Vec<Item>, String> {
        let mut items: Vec<Item> = STAT_FIELDS
            .iter()
            .map(|&(_, width)| Item::Number {
                width,
                pattern: Number::any(),
            })
            .collect();
        while let Some((Token::Word(word), rest)) = self.tokens.split_first() {
            let Some((field, value)) = word.split_once('=') else {
                break;
            };
            let index = STAT_FIELDS.iter().position(|(name, _)| *name == field);
            let index = index.ok_or_else(|| format!("Stat has no field '{field}'"))?;
            let (_, width) = STAT_FIELDS[index];
            items[index] = Item::Number {
                width,
                pattern: Number::parse(value)?,
            };
            self.tokens = rest;
        }
        Ok(items)
    }

    fn number(&mut self, width: usize) -> Result<Item, String> {
        Ok(Item::Number {
            width,
            pattern: Number::parse(self.word()?)?,
        })
    }

    /// As `content`, but a bare word stands for itself (scheme and id of an ACL).
    fn content_or_word(&mut self) -> Result<Content, String> {
        match self.tokens.first() {
            Some(Token::Word(word)) if word != "null" && !word.starts_with(['$', '@', '*', '~']) => {
                Ok(Content::Text(self.word()?.as_bytes().to_vec()))
            }
            _ => self.content(),
        }
    }

    fn content(&mut self) -> Result<Content, String> {
        let Some((first, rest)) = self.tokens.split_first() else {
            return Err("the text or bytes are missing".to_owned());
        };
        self.tokens = rest;
        match first {
            Token::Text(text) => Ok(Content::Text(text.clone())),
            Token::Mark(mark) => Err(format!("'{mark}' where text or bytes should be")),
            Token::Word(word) => match word.as_str() {
                "null" => Ok(Content::Null),
                "*" => Ok(Content::Any),
                "fill" | "random" => self.generated(word),
                "hex" => Ok(Content::Text(hexadecimal(self.word()?)?)),
                "~" => match self.tokens.split_first() {
                    Some((Token::Text(text), rest)) => {
                        self.tokens = rest;
                        let expression = format!("^(?:{})$", String::from_utf8_lossy(text));
                        Regex::new(&expression)
                            .map(Content::Matches)
                            .map_err(|error| error.to_string())
                    }
                    _ => Err("a quoted regular expression must follow '~'".to_owned()),
                },
                other => match (other.strip_prefix('$'), other.strip_prefix('@')) {
                    (Some(name), _) => Ok(Content::Captured(name.to_owned())),
                    (_, Some(name)) => Ok(Content::Capture(name.to_owned())),
                    _ => Err(format!("'{other}' where text or bytes should be")),
                },
            },
        }
    }

    fn generated(&mut self, kind: &str) -> Result<Content, String> {
        let first = self.size()?;
        if kind == "fill" {
            return Ok(Content::Fill(first));
        }
        Ok(Content::Random(first as u64, self.size()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        usize::try_from(literal(self.word()?)?).map_err(|error| error.to_string())
    }

    pub(crate) fn word(&mut self) -> Result<&'a str, String> {
        match self.tokens.split_first() {
            Some((Token::Word(word), rest)) => {
                self.tokens = rest;
                Ok(word)
            }
            other => Err(format!("a word is missing before {:?}", other.map(|(token, _)| token))),
        }
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let takes = matches!(self.tokens.first(), Some(Token::Word(word)) if word == wanted);
        if takes {
            self.tokens = &self.tokens[1..];
        }
        takes
    }

    fn takes_mark(&mut self, wanted: char) -> bool {
        let takes = self.tokens.first() == Some(&Token::Mark(wanted));
        if takes {
            self.tokens = &self.tokens[1..];
        }
        takes
    }
}

fn fixed(width: usize, number: i64) -> Item {
    Item::Number {
        width,
        pattern: Number::exactly(number),
    }
}

fn text(text: &str) -> Item {
    Item::Sized(Content::Text(text.as_bytes().to_vec()))
}

fn hexadecimal(word: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = word.bytes().filter(|&byte| byte != b'_').collect();
    let bytes = digits.chunks(2).map(|pair| {
        let pair = String::from_utf8_lossy(pair);
        if pair.len() == 2 {
            u8::from_str_radix(&pair, 16).ok()
        } else {
            None
        }
    });
    bytes
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| format!("'{word}' is not hexadecimal bytes"))
}
