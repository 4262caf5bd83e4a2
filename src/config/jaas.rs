//! Java's login (JAAS) files: sections of login modules with options.
//!
//! ```text
//!   Server {
//!     org.apache.zookeeper.server.auth.DigestLoginModule required
//!       user_super="adminsecret"
//!       user_bob="bobsecret";
//!   };
//! ```
//!
//! Comments are those of Java (`//`, `/* */`); values are words or stand in quotes, with Java's escapes.
//!
//! Left out on purpose: `${property}` in values, which stands for a property of a JVM that is not there. It is an error,
//! so that nobody's password becomes those letters.

use super::value::Secret;
use std::collections::BTreeMap;

/// One login module of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Its class.
    pub(super) class: String,
    /// Its options.
    pub(super) options: BTreeMap<String, Secret>,
}

impl Module {
    /// Whether it is one of the modules (each JVM has its own) that log in with Kerberos.
    pub(super) fn is_kerberos(&self) -> bool {
        self.class.ends_with(".Krb5LoginModule")
    }
}

/// The text is no login file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(super) struct BadLoginFile {
    /// Counted from 1.
    pub(super) line: usize,
    /// What is wrong and what would be right.
    pub(super) message: String,
}

/// Reads a login file: its sections by name.
///
/// # Errors
/// The first line that is wrong.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Vec<Module>>, BadLoginFile> {
    let mut tokens = Tokens { rest: text, line: 1 };
    let mut sections = BTreeMap::new();
    while let Some(token) = tokens.next()? {
        let Token::Word(name) = token else {
            return Err(tokens.wrong("expected the name of a section"));
        };
        tokens.expect('{')?;
        let modules = section(&mut tokens)?;
        tokens.expect(';')?;
        if sections.insert(name.clone(), modules).is_some() {
            return Err(tokens.wrong(format!("the section {name} stands there twice")));
        }
    }
    Ok(sections)
}

/// The modules up to the closing brace.
fn section(tokens: &mut Tokens<'_>) -> Result<Vec<Module>, BadLoginFile> {
    let mut modules = Vec::new();
    loop {
        match tokens.next()? {
            Some(Token::Sign('}')) => return Ok(modules),
            Some(Token::Word(class)) => modules.push(module(tokens, class)?),
            _ => return Err(tokens.wrong("expected the class of a login module, or }")),
        }
    }
}

/// A module's flag and options, up to the semicolon.
fn module(tokens: &mut Tokens<'_>, class: String) -> Result<Module, BadLoginFile> {
    const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];
    match tokens.next()? {
        Some(Token::Word(flag)) if FLAGS.iter().any(|known| flag.eq_ignore_ascii_case(known)) => {}
        _ => return Err(tokens.wrong("expected required, requisite, sufficient or optional")),
    }
    let mut options = BTreeMap::new();
    loop {
        let name = match tokens.next()? {
            Some(Token::Sign(';')) => return Ok(Module { class, options }),
            Some(Token::Word(name)) => name,
            _ => return Err(tokens.wrong("expected an option, or ; behind the last one")),
        };
        tokens.expect('=')?;
        let value = match tokens.next()? {
            Some(Token::Word(value) | Token::Quoted(value)) => value,
            _ => return Err(tokens.wrong(format!("expected the value of the option {name}"))),
        };
        if value.contains("${") {
            return Err(tokens.wrong(format!("the value of {name} holds ${{…}}, which is not replaced here")));
        }
        options.insert(name, Secret::new(&value));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(char),
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn wrong(&self, message: impl Into<String>) -> BadLoginFile {
        BadLoginFile {
            line: self.line,
            message: message.into(),
        }
    }

    fn expect(&mut self, sign: char) -> Result<(), BadLoginFile> {
        match self.next()? {
            Some(Token::Sign(found)) if found == sign => Ok(()),
            _ => Err(self.wrong(format!("expected {sign}"))),
        }
    }

    fn next(&mut self) -> Result<Option<Token>, BadLoginFile> {
        self.skip_blanks()?;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        if first == '"' || first == '\'' {
            return self.quoted(first).map(|text| Some(Token::Quoted(text)));
        }
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if end == 0 {
            self.take(first.len_utf8());
            return Ok(Some(Token::Sign(first)));
        }
        Ok(Some(Token::Word(self.take(end).to_owned())))
    }

    /// Takes so many bytes off the front, and counts the lines in them.
    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Blanks and comments.
    fn skip_blanks(&mut self) -> Result<(), BadLoginFile> {
        loop {
            let blanks = self.rest.len() - self.rest.trim_start().len();
            self.take(blanks);
            if self.rest.starts_with("//") {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.take(end);
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else {
                    return Err(self.wrong("a comment does not end"));
                };
                self.take(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    /// A text in quotes, with the escapes of Java's tokenizer. It ends on its line.
    fn quoted(&mut self, quote: char) -> Result<String, BadLoginFile> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((position, c)) = chars.next() {
            match c {
                '\n' => break,
                '\\' => match chars.next() {
                    None | Some((_, '\n')) => break,
                    Some((_, escaped)) => text.push(unescape(escaped, &mut chars)),
                },
                c if c == quote => {
                    self.take(position + 1);
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(self.wrong("a value in quotes does not end on its line"))
    }
}

/// The character that stands behind a backslash, octal ones included.
fn unescape(escaped: char, chars: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)>>) -> char {
    match escaped {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '0'..='7' => {
            // Three digits at most, and no more than fit into a byte.
            let mut code = escaped as u8 - b'0';
            let most = if code <= 3 { 2 } else { 1 };
            for _ in 0..most {
                match chars.next_if(|(_, digit)| ('0'..='7').contains(digit)) {
                    Some((_, digit)) => code = code * 8 + (digit as u8 - b'0'),
                    None => break,
                }
            }
            char::from(code)
        }
        other => other,
    }
}

/// What names, classes and values without quotes are made of.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '$' | '_' | '-' | '*' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(module: &Module) -> Vec<(&str, &str)> {
        module
            .options
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect()
    }

    #[test]
    fn sections_modules_and_options_are_read() {
        let text = r#"
            // The server.
            Server {
                org.apache.zookeeper.server.auth.DigestLoginModule required
                    user_super="adminsecret" /* may do
                    everything */
                    user_bob='it\'s \"\101\n';
            };
            Client { com.sun.security.auth.module.Krb5LoginModule Sufficient useKeyTab=true ; other.Module optional; };
        "#;
        let sections = parse(text).unwrap();
        assert_eq!(sections.keys().collect::<Vec<_>>(), ["Client", "Server"]);
        let server = &sections["Server"];
        assert_eq!(server.len(), 1);
        assert!(!server[0].is_kerberos());
        assert_eq!(
            options(&server[0]),
            [("user_bob", "it's \"A\n"), ("user_super", "adminsecret")]
        );
        assert!(sections["Client"][0].is_kerberos());
        assert_eq!(options(&sections["Client"][0]), [("useKeyTab", "true")]);
        assert_eq!(sections["Client"].len(), 2);
    }

    #[test]
    fn a_text_without_sections_is_a_login_file() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse("  \n// nothing\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            ("Server", 1, "expected {"),
            ("Server {\n a.B required\n", 3, "expected an option"),
            ("Server {\n a.B maybe;\n};", 2, "expected required"),
            ("Server {\n a.B required\n x;\n};", 3, "expected ="),
            (
                "Server {\n a.B required\n x=\"y\n\";\n};",
                3,
                "does not end on its line",
            ),
            ("Server {\n a.B required x=;\n};", 2, "the value of the option x"),
            ("Server { a.B required x=\"${user.home}\"; };", 1, "is not replaced"),
            ("Server { a.B required; }", 1, "expected ;"),
            ("Server { };\nServer { };", 2, "twice"),
            ("/* no end", 1, "comment"),
            ("\"Server\" { };", 1, "name of a section"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }
}
