//! Java's `.properties` syntax, with the line numbers kept.
//!
//! A file is cut into natural lines (`\n`, `\r` or `\r\n`); blank lines and lines whose first visible character is `#`
//! or `!` are dropped; a line that ends in an odd number of backslashes goes on in the next one, whose leading blanks
//! do not count. The key ends at the first unescaped `=`, `:` or blank. Escapes are `\t \n \r \f \uXXXX`; a backslash
//! before anything else stands for that character.
//!
//! Three differences from Java, on purpose: what is UTF-8 is read as that, where Java reads Latin-1 always (what an editor
//! writes today is what the server sees; what is no UTF-8 is Latin-1 here too); a byte order mark at the start is skipped instead of becoming part of the first key; and a
//! backslash at the very end of a file makes no entry without key and value.

/// What the bytes of a file stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// What editors write today.
    Utf8,
    /// Each byte is a character, as Java reads these files.
    Latin1,
}

/// The text of a file, and how it is written there.
pub fn decode(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => {
            let characters = error.as_bytes().iter().map(|byte| char::from(*byte));
            (characters.collect(), Encoding::Latin1)
        }
    }
}

impl Encoding {
    /// The bytes of a text: of one that was decoded, those that it had. What Latin-1 lacks becomes a question mark.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Encoding::Utf8 => text.as_bytes().to_vec(),
            Encoding::Latin1 => text
                .chars()
                .map(|character| u8::try_from(character).unwrap_or(b'?'))
                .collect(),
        }
    }
}

/// One `key = value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The key, unescaped and trimmed as ZooKeeper trims it.
    pub key: String,
    /// The value, unescaped and trimmed as ZooKeeper trims it.
    pub value: String,
    /// The natural line on which the entry begins, counted from 1.
    pub line: usize,
    /// The natural line on which it ends: a later one, if backslashes continue it.
    pub last_line: usize,
}

/// An escape that Java refuses too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// The natural line on which the entry begins, counted from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

/// Reads a whole file. Entries come in the order of the file, duplicates included: which one wins, and who is told,
/// is the caller's decision.
///
/// # Errors
/// Every entry whose `\u` escape is malformed or stands for half a character; the other entries are lost with it,
/// because a file that Java would refuse has no meaning to fall back to.
pub fn parse(text: &str) -> Result<Vec<Property>, Vec<SyntaxError>> {
    let mut properties = Vec::new();
    let mut errors = Vec::new();
    for Logical {
        line,
        last_line,
        logical,
    } in logical_lines(text)
    {
        let (key, value) = split_at_separator(&logical);
        match (unescape(key), unescape(value)) {
            (Ok(key), Ok(value)) => properties.push(Property {
                key: trimmed(&key),
                value: trimmed(&value),
                line,
                last_line,
            }),
            (Err(what), _) | (_, Err(what)) => errors.push(SyntaxError { line, what }),
        }
    }
    if errors.is_empty() { Ok(properties) } else { Err(errors) }
}

/// The blanks of the properties syntax. A no-break space is text.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Java's `String.trim`: everything up to and including the space is cut from both ends.
fn trimmed(text: &str) -> String {
    text.trim_matches(|character: char| character <= ' ').to_owned()
}

/// A line without its continuations: the numbers of its first and last natural line.
struct Logical {
    line: usize,
    last_line: usize,
    logical: String,
}

/// Joins continued lines and drops comments.
fn logical_lines(text: &str) -> Vec<Logical> {
    let mut lines = Vec::new();
    let mut open: Option<Logical> = None;
    for (index, natural) in natural_lines(text).enumerate() {
        let content = natural.trim_start_matches(is_blank);
        // A backslash alone on its line has begun nothing yet: what follows it may be a comment.
        let begun = open.as_ref().is_some_and(|open| !open.logical.is_empty());
        if !begun && (content.is_empty() || content.starts_with(['#', '!'])) {
            continue;
        }
        let number = index + 1;
        let current = open.get_or_insert_with(|| Logical {
            line: number,
            last_line: number,
            logical: String::new(),
        });
        if !begun {
            current.line = number;
        }
        current.last_line = number;
        if ends_in_continuation(content) {
            current.logical.push_str(&content[..content.len() - 1]);
        } else {
            current.logical.push_str(content);
            lines.extend(open.take());
        }
    }
    // A backslash at the very end of the file continues nothing; Java drops it.
    lines.extend(open);
    lines.retain(|line| !line.logical.is_empty());
    lines
}

/// Cuts at `\n`, `\r` and `\r\n`, which `str::lines` does not (it leaves a lone `\r` inside a line).
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    natural_lines_and_ends(text.strip_prefix('\u{feff}').unwrap_or(text)).map(|(line, _)| line)
}

/// The same with what ends each line; that of the last one is empty.
pub(super) fn natural_lines_and_ends(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let Some(end) = current.find(['\n', '\r']) else {
            rest = None;
            return Some((current, ""));
        };
        let width = if current[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&current[end + width..]);
        Some((&current[..end], &current[end..end + width]))
    })
}

fn ends_in_continuation(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// Cuts a logical line into its (still escaped) key and value.
fn split_at_separator(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let key_end = line
        .find(|character: char| {
            let ends = !escaped && (is_blank(character) || matches!(character, '=' | ':'));
            escaped = !escaped && character == '\\';
            ends
        })
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(key_end);
    let rest = rest.trim_start_matches(is_blank);
    let value = rest
        .strip_prefix(['=', ':'])
        .map_or(rest, |value| value.trim_start_matches(is_blank));
    (key, value)
}

fn unescape(text: &str) -> Result<String, String> {
    // Java strings are UTF-16: a character beyond the basic plane is written as two \u escapes, which have to meet again.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    let mut buffer = [0; 2];
    while let Some(character) = characters.next() {
        let plain = if character == '\\' {
            match characters.next() {
                Some('u') => {
                    units.push(unicode_escape(characters.as_str())?);
                    // `unicode_escape` has seen four hexadecimal digits.
                    characters.nth(3);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => break,
            }
        } else {
            character
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    String::from_utf16(&units).map_err(|_| "a \\u escape names half of a surrogate pair; write both halves".to_owned())
}

fn unicode_escape(rest: &str) -> Result<u16, String> {
    let digits: String = rest.chars().take(4).collect();
    let complete = digits.len() == 4 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    let unit = if complete {
        u16::from_str_radix(&digits, 16).ok()
    } else {
        None
    };
    unit.ok_or_else(|| {
        format!(
            "\\u{digits} is not a character; \\u takes four hexadecimal digits (a path's backslashes are written \\\\)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text).unwrap();
        parsed
            .into_iter()
            .map(|property| (property.key, property.value))
            .collect()
    }

    #[test]
    fn every_form_that_java_reads_is_read_as_java_reads_it() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("\n \t\n\r\n", &[]),
            ("# a=b\n ! c=d\n", &[]),
            ("a=b", &[("a", "b")]),
            ("a:b", &[("a", "b")]),
            ("a b", &[("a", "b")]),
            ("a\tb c", &[("a", "b c")]),
            (" \u{c}a = b ", &[("a", "b")]),
            ("a : b", &[("a", "b")]),
            ("a = = b", &[("a", "= b")]),
            ("a:=b", &[("a", "=b")]),
            ("a  : b=c:d", &[("a", "b=c:d")]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("a=b#c", &[("a", "b#c")]),
            ("a\\ b=c", &[("a b", "c")]),
            ("a\\=b=c", &[("a=b", "c")]),
            ("a\\:b:c", &[("a:b", "c")]),
            ("a=C\\:\\\\data", &[("a", "C:\\data")]),
            ("a=b\\\n   c", &[("a", "bc")]),
            ("a=b\\\r\n\tc\nd=e", &[("a", "bc"), ("d", "e")]),
            ("a=b\\\rc", &[("a", "bc")]),
            ("a=b\\\\\nc=d", &[("a", "b\\"), ("c", "d")]),
            ("a=b\\\n# not a comment", &[("a", "b# not a comment")]),
            ("a=b\\\n\nc=d", &[("a", "b"), ("c", "d")]),
            ("# not continued \\\na=b", &[("a", "b")]),
            ("a=b\\", &[("a", "b")]),
            ("\\\n", &[]),
            ("\\\n# a=b", &[]),
            ("\\\n\na=b", &[("a", "b")]),
            ("a=x\\ty\\nz\\fq\\qr", &[("a", "x\ty\nz\u{c}qqr")]),
            ("a=\\u00e4\\u0041", &[("a", "\u{e4}A")]),
            ("\\u0061=b", &[("a", "b")]),
            ("a=\\ud83d\\ude00", &[("a", "\u{1f600}")]),
            ("\u{feff}a=b", &[("a", "b")]),
            ("a=b\rc=d", &[("a", "b"), ("c", "d")]),
            ("a=1\na=2", &[("a", "1"), ("a", "2")]),
        ];
        for (text, expected) in cases {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_latin_1_as_for_java() {
        for (bytes, expected, encoding) in [
            (&b"a=b"[..], "b", Encoding::Utf8),
            ("a=\u{e4}".as_bytes(), "\u{e4}", Encoding::Utf8),
            (&b"# \xe4\xf6\xfc\na=b"[..], "b", Encoding::Latin1),
            (&b"a=\xe4 \xc3\xa4"[..], "\u{e4} \u{c3}\u{a4}", Encoding::Latin1),
            (&b"a=\xff\x80"[..], "\u{ff}\u{80}", Encoding::Latin1),
        ] {
            let (text, found) = decode(bytes.to_vec());
            assert_eq!(
                (pairs(&text), found),
                (vec![("a".to_owned(), expected.to_owned())], encoding)
            );
            assert_eq!(found.encode(&text), bytes);
        }
    }

    #[test]
    fn an_entry_remembers_the_line_on_which_it_begins() {
        let parsed = parse("# one\n\na=b\\\n  c\r\nd=e\rf=g").unwrap();
        let lines: Vec<usize> = parsed.iter().map(|property| property.line).collect();
        assert_eq!(lines, [3, 5, 6]);
        let ends: Vec<usize> = parsed.iter().map(|property| property.last_line).collect();
        assert_eq!(ends, [4, 5, 6]);
        // A backslash alone begins nothing.
        let parsed = parse("\\\n# comment\na=b").unwrap();
        assert_eq!((parsed[0].line, parsed[0].last_line), (3, 3));
    }

    #[test]
    fn malformed_unicode_escapes_are_errors_with_their_line() {
        for text in [
            "ok=1\na=\\u12",
            "ok=1\na=\\u12g4",
            "ok=1\na=C:\\users",
            "ok=1\na=\\ud83d",
            "ok=1\n\\u+041=1",
        ] {
            let errors = parse(text).unwrap_err();
            assert_eq!(errors.len(), 1, "{text:?}");
            assert_eq!(errors[0].line, 2, "{text:?}");
        }
    }

    /// What `java.util.Properties.store` does to a string.
    fn escape(text: &str) -> String {
        let mut escaped = String::new();
        for unit in text.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
                _ => escaped.push_str(&format!("\\u{unit:04x}")),
            }
        }
        escaped
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn text_made_of_the_syntax_itself_does_not_panic(text in "[ab=: \t\\\\#!\r\nu0-9]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_java_stores_is_read_back(key in "[!-~\u{e4}\u{1f600}]{1,20}", value in "[!-~\u{e4}\u{1f600}]{0,40}") {
            let text = format!("{}={}\n", escape(&key), escape(&value));
            prop_assert_eq!(pairs(&text), vec![(key, value)]);
        }
    }
}
