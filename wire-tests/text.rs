//! Compares the answer of a four-letter word with line patterns.

use regex::bytes::Regex;

use crate::script::Line;
use crate::tokens::{Values, interpolate};

/// `Has`, `Every` and `Never` look at all lines; the others form one sequence that must cover the whole answer.
pub(crate) fn compare(answer: &[u8], patterns: &[Line], values: &Values) -> Result<(), String> {
    let lines: Vec<TextLine<'_>> = answer
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| match line.strip_suffix(b"\n") {
            Some(text) => TextLine { text, ends: false },
            None => TextLine { text: line, ends: true },
        })
        .collect();
    for pattern in patterns {
        whole_answer(&lines, pattern, values)?;
    }
    sequence(&lines, patterns, values)
}

struct TextLine<'a> {
    text: &'a [u8],
    /// It is the last, and no line end follows.
    ends: bool,
}

fn whole_answer(lines: &[TextLine<'_>], pattern: &Line, values: &Values) -> Result<(), String> {
    let (pattern, wrong): (_, fn(bool) -> bool) = match pattern {
        Line::Has(pattern) => {
            let expression = expression(pattern, values)?;
            let has = lines.iter().any(|line| expression.is_match(line.text));
            return if has {
                Ok(())
            } else {
                Err(format!("no line matches {pattern}"))
            };
        }
        Line::Every(pattern) => (pattern, |matches| !matches),
        Line::Never(pattern) => (pattern, |matches| matches),
        Line::Text { .. } | Line::Matches { .. } | Line::Gap => return Ok(()),
    };
    let expression = expression(pattern, values)?;
    match lines.iter().find(|line| wrong(expression.is_match(line.text))) {
        Some(line) => Err(format!("'{}' breaks the rule {pattern}", line.text.escape_ascii())),
        None => Ok(()),
    }
}

fn sequence(lines: &[TextLine<'_>], patterns: &[Line], values: &Values) -> Result<(), String> {
    let mut rest = lines;
    let mut gap = false;
    let mut is_empty = true;
    for pattern in patterns {
        let (expression, ends) = match pattern {
            Line::Text { text, ends } => {
                let text = interpolate(text.as_bytes(), values)?;
                (whole_line(&regex::escape(&String::from_utf8_lossy(&text)))?, *ends)
            }
            Line::Matches { pattern, ends } => (expression(pattern, values)?, *ends),
            Line::Gap => {
                gap = true;
                is_empty = false;
                continue;
            }
            Line::Has(_) | Line::Every(_) | Line::Never(_) => continue,
        };
        is_empty = false;
        let candidates = if gap { rest.len() } else { 1 };
        let found = rest
            .iter()
            .take(candidates)
            .position(|line| line.ends == ends && expression.is_match(line.text));
        let found = found.ok_or_else(|| format!("nothing fits {expression} at {}", first(rest)))?;
        rest = rest.get(found + 1..).unwrap_or_default();
        gap = false;
    }
    if is_empty || gap || rest.is_empty() {
        Ok(())
    } else {
        Err(format!("not expected: {}", first(rest)))
    }
}

fn first(lines: &[TextLine<'_>]) -> String {
    match lines.first() {
        Some(line) if line.ends => format!("'{}' without a line end", line.text.escape_ascii()),
        Some(line) => format!("'{}'", line.text.escape_ascii()),
        None => "the end".to_owned(),
    }
}

/// A pattern for a whole line, captured values put in.
fn expression(pattern: &str, values: &Values) -> Result<Regex, String> {
    let pattern = interpolate(pattern.as_bytes(), values)?;
    whole_line(&String::from_utf8_lossy(&pattern))
}

fn whole_line(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())
}
