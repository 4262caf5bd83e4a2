//! A script file: its header, and its steps.
//!
//! README.md describes the language for writers. A step begins in the first column; indented lines continue it.

use std::path::Path;

use crate::pattern::{Frame, Item};
use crate::reader::Reader;
use crate::tokens::{Sum, Token, lex, literal};

/// Which of two servers a step is for, where they differ on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Ours,
    Apache,
}

/// A parsed script.
#[derive(Debug)]
pub(crate) struct Script {
    /// The file's stem.
    pub(crate) name: String,
    /// Traps of zookeeper-3.9.md §2 that it covers: `# traps: 1, 20`.
    pub(crate) traps: Vec<u32>,
    /// Lines for zoo.cfg: `# cfg: enforceQuota=true`.
    pub(crate) settings: Vec<String>,
    /// `-D` arguments: `# property: zookeeper.extendedTypesEnabled=true`.
    pub(crate) properties: Vec<String>,
    /// `# needs: own-server`: it counts zxids from the first, restarts the server, or reads its statistics.
    own_server: bool,
    pub(crate) steps: Vec<Step>,
}

/// One statement of a script.
#[derive(Debug)]
pub(crate) struct Step {
    /// Number of its first line.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Action {
    /// `connect a`
    Connect(String),
    /// `session a [timeout]`: connects, shakes hands, captures `a.id`, `a.password`, `a.timeout`.
    Session { connection: String, timeout_ms: i64 },
    /// `a> FRAME; FRAME`: in one write.
    Send { connection: String, frames: Vec<Frame> },
    /// `a< FRAME; FRAME`, or in any order: `a<~ FRAME; FRAME`.
    Expect {
        connection: String,
        frames: Vec<Frame>,
        ordered: bool,
    },
    /// `a< close`: the server closes, and sends nothing more before. `a< ... close`: whatever it may still send.
    ExpectClose { connection: String, strict: bool },
    /// `quiet a`: a ping is the next thing to be answered.
    Quiet(String),
    /// `close a`: the client closes.
    Close(String),
    /// `shutdown a`: the client will send no more, but goes on reading.
    Shutdown(String),
    /// `4lw ITEMS` and the expected lines of text.
    FourLetterWord { items: Vec<Item>, lines: Vec<Line> },
    /// `mark t`: remembers this moment.
    Mark(String),
    /// `since t >= 400ms`: so much time has passed at least.
    Since { mark: String, at_least_ms: u64 },
    /// `let name = SUM`
    Let { name: String, sum: Sum },
    /// `restart`: the server stops in order and starts with the same data.
    Restart,
    /// `crash`: the server is killed and starts with the same data.
    Crash,
    /// `for i 1..5: STEP`
    For {
        variable: String,
        from: i64,
        to: i64,
        body: Box<Action>,
    },
    /// `eventually: STEP`: tried again until it succeeds, for what the server does when it gets round to it.
    Eventually(Box<Action>),
    /// `ours: STEP`, `apache: STEP`; a `difference: reason` must come before.
    Only { flavour: Flavour, body: Box<Action> },
    /// `difference: reason`
    Nothing,
}

/// A line pattern of a four-letter word's answer.
#[derive(Debug)]
pub(crate) enum Line {
    /// `| text`: this line. `|- text`: this, without a line end, at the end of the answer.
    Text { text: String, ends: bool },
    /// `~ regex`, `~- regex`
    Matches { pattern: String, ends: bool },
    /// `...`: any number of lines.
    Gap,
    /// `has regex`: one line of the whole answer matches, wherever.
    Has(String),
    /// `every regex`: each line matches.
    Every(String),
    /// `never regex`: no line matches.
    Never(String),
}

const DEFAULT_TIMEOUT_MS: i64 = 30_000;

impl Script {
    /// Reads and parses a file; the error names file and line.
    pub(crate) fn load(file: &Path) -> Result<Self, String> {
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut script = Script {
            name,
            traps: Vec::new(),
            settings: Vec::new(),
            properties: Vec::new(),
            own_server: false,
            steps: Vec::new(),
        };
        script
            .header(&text)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let mut difference = false;
        for (line, lines) in statements(&text) {
            let step = Step::parse(line, &lines).map_err(|error| format!("{}:{line}: {error}", file.display()))?;
            difference |= matches!(step.action, Action::Nothing);
            if matches!(step.action, Action::Only { .. }) && !difference {
                return Err(format!(
                    "{}:{line}: no 'difference: reason' stands before",
                    file.display()
                ));
            }
            script.own_server |= matches!(step.action, Action::Restart | Action::Crash);
            script.steps.push(step);
        }
        Ok(script)
    }

    /// Whether a server that somebody else has started cannot serve this script.
    pub(crate) fn needs_own_server(&self) -> bool {
        self.own_server || !self.settings.is_empty() || !self.properties.is_empty()
    }

    fn header(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let line = line.trim_start_matches('#').trim();
            if let Some(traps) = line.strip_prefix("traps:") {
                for trap in traps.split(',') {
                    self.traps.push(
                        trap.trim()
                            .parse()
                            .map_err(|_| format!("'{trap}' is not a trap's number"))?,
                    );
                }
            } else if let Some(settings) = line.strip_prefix("cfg:") {
                self.settings.extend(settings.split_whitespace().map(str::to_owned));
            } else if let Some(properties) = line.strip_prefix("property:") {
                self.properties.extend(properties.split_whitespace().map(str::to_owned));
            } else if let Some(need) = line.strip_prefix("needs:") {
                match need.trim() {
                    "own-server" => self.own_server = true,
                    other => return Err(format!("'{other}' is no need that the runner knows")),
                }
            }
        }
        Ok(())
    }
}

/// Groups lines into statements: (line number, first line and its indented continuations).
fn statements(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut statements: Vec<(usize, Vec<&str>)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match statements.last_mut() {
            Some((_, lines)) if line.starts_with([' ', '\t']) => lines.push(line.trim()),
            _ => statements.push((index + 1, vec![line.trim_end()])),
        }
    }
    statements
}

impl Step {
    fn parse(line: usize, lines: &[&str]) -> Result<Self, String> {
        let text = lines.join(" ");
        let first = lines.first().copied().unwrap_or_default();
        let action = if first.starts_with("difference:") {
            Action::Nothing
        } else {
            statement(first, lines)?
        };
        Ok(Step { line, text, action })
    }
}

/// `text` is the first line, or what stands behind a prefix in it.
fn statement(text: &str, lines: &[&str]) -> Result<Action, String> {
    for (prefix, flavour) in [("ours:", Flavour::Ours), ("apache:", Flavour::Apache)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return Ok(Action::Only {
                flavour,
                body: Box::new(statement(rest.trim_start(), lines)?),
            });
        }
    }
    if let Some(rest) = text.strip_prefix("eventually:") {
        return Ok(Action::Eventually(Box::new(statement(rest.trim_start(), lines)?)));
    }
    let mut tokens = lex(text)?;
    let word = match tokens.first() {
        Some(Token::Word(word)) => word.clone(),
        _ => return Err("a step begins with a word".to_owned()),
    };
    if word == "4lw" {
        let mut items = Vec::new();
        Reader::new(&tokens[1..]).items(&mut items)?;
        let expected = lines
            .iter()
            .skip(1)
            .map(|line| Line::parse(line))
            .collect::<Result<_, _>>()?;
        return Ok(Action::FourLetterWord { items, lines: expected });
    }
    if word == "for" {
        let (head, body) = text.split_once(": ").ok_or("'for' needs ': STEP'")?;
        return repeated(head, statement(body.trim_start(), lines)?);
    }
    for line in lines.iter().skip(1) {
        tokens.extend(lex(line)?);
    }
    let rest = &tokens[1..];
    if let Some(connection) = word.strip_suffix('>') {
        let frames = Reader::new(rest).frames()?;
        return Ok(Action::Send {
            connection: connection.to_owned(),
            frames,
        });
    }
    if let Some(connection) = word.strip_suffix("<~") {
        let frames = Reader::new(rest).frames()?;
        return Ok(Action::Expect {
            connection: connection.to_owned(),
            frames,
            ordered: false,
        });
    }
    if let Some(connection) = word.strip_suffix('<') {
        let connection = connection.to_owned();
        let word = |word: &str| Token::Word(word.to_owned());
        if *rest == [word("close")] || *rest == [word("..."), word("close")] {
            return Ok(Action::ExpectClose {
                connection,
                strict: rest.len() == 1,
            });
        }
        return Ok(Action::Expect {
            connection,
            frames: Reader::new(rest).frames()?,
            ordered: true,
        });
    }
    simple(&word, rest)
}

/// Steps of plain words.
fn simple(word: &str, rest: &[Token]) -> Result<Action, String> {
    let words = rest.iter().map(|token| match token {
        Token::Word(word) => Ok(word.as_str()),
        other => Err(format!("{other:?} cannot stand here")),
    });
    let words = words.collect::<Result<Vec<&str>, String>>()?;
    let action = match (word, words.as_slice()) {
        ("connect", [name]) => Action::Connect((*name).to_owned()),
        ("session", [name]) => Action::Session {
            connection: (*name).to_owned(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
        },
        ("session", [name, timeout]) => Action::Session {
            connection: (*name).to_owned(),
            timeout_ms: literal(timeout)?,
        },
        ("quiet", [name]) => Action::Quiet((*name).to_owned()),
        ("close", [name]) => Action::Close((*name).to_owned()),
        ("shutdown", [name]) => Action::Shutdown((*name).to_owned()),
        ("mark", [name]) => Action::Mark((*name).to_owned()),
        ("since", [mark, ">=", time]) => {
            let time = time.strip_suffix("ms").and_then(|time| time.parse().ok());
            Action::Since {
                mark: (*mark).to_owned(),
                at_least_ms: time.ok_or("a time is written as 400ms")?,
            }
        }
        ("let", [name, "=", sum]) => Action::Let {
            name: (*name).to_owned(),
            sum: Sum::parse(sum)?,
        },
        ("restart", []) => Action::Restart,
        ("crash", []) => Action::Crash,
        _ => return Err(format!("'{word} …' is no step")),
    };
    Ok(action)
}

/// `for i 1..5`
fn repeated(head: &str, body: Action) -> Result<Action, String> {
    let words: Vec<&str> = head.split_whitespace().collect();
    if let ["for", variable, range] = words.as_slice()
        && let Some((from, to)) = range.split_once("..")
    {
        let (from, to) = (literal(from)?, literal(to)?);
        return Ok(Action::For {
            variable: (*variable).to_owned(),
            from,
            to,
            body: Box::new(body),
        });
    }
    Err("'for' is written as: for i 1..5: STEP".to_owned())
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        if line == "..." {
            return Ok(Line::Gap);
        }
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let parsed = match kind {
            "|" => Line::Text {
                text: rest.replace("\\t", "\t"),
                ends: false,
            },
            "|-" => Line::Text {
                text: rest.replace("\\t", "\t"),
                ends: true,
            },
            "~" => Line::Matches {
                pattern: rest.to_owned(),
                ends: false,
            },
            "~-" => Line::Matches {
                pattern: rest.to_owned(),
                ends: true,
            },
            "has" => Line::Has(rest.to_owned()),
            "every" => Line::Every(rest.to_owned()),
            "never" => Line::Never(rest.to_owned()),
            _ => return Err(format!("'{line}' is no line pattern")),
        };
        Ok(parsed)
    }
}
