//! JSON as ZooKeeper's admin server writes it: Jackson's indented form, which scripts with `grep` and `awk` count on.

use std::fmt::Write as _;

/// A JSON value. Members of an object keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Json>),
    Object(Members),
}

/// The members of an object.
pub(super) type Members = Vec<(String, Json)>;

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_owned())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Json {
        Json::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Json {
    fn from(number: usize) -> Json {
        Json::from(number as u64)
    }
}

impl Json {
    /// An object of members with fixed names.
    pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
        Json::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The value with two spaces of indentation per object, as Jackson's default printer does it.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Whole(number) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "{number}");
            }
            // Jackson writes NaN as a text.
            Json::Fraction(number) if !number.is_finite() => write_text(out, &super::java::double(*number)),
            Json::Fraction(number) => out.push_str(&super::java::double(*number)),
            Json::Text(text) => write_text(out, text),
            Json::List(values) if values.is_empty() => out.push_str("[ ]"),
            Json::List(values) => {
                out.push_str("[ ");
                for (place, value) in values.iter().enumerate() {
                    if place > 0 {
                        out.push_str(", ");
                    }
                    value.write(out, depth);
                }
                out.push_str(" ]");
            }
            Json::Object(members) if members.is_empty() => out.push_str("{ }"),
            Json::Object(members) => {
                out.push('{');
                for (place, (name, value)) in members.iter().enumerate() {
                    out.push_str(if place > 0 { ",\n" } else { "\n" });
                    indent(out, depth + 1);
                    write_text(out, name);
                    out.push_str(" : ");
                    value.write(out, depth + 1);
                }
                out.push('\n');
                indent(out, depth);
                out.push('}');
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_jackson_does_it() {
        let client = |port: i64| Json::object([("port", Json::Whole(port)), ("open", Json::Bool(true))]);
        let value = Json::object([
            ("connections", Json::List(vec![client(1), client(2)])),
            ("none", Json::List(Vec::new())),
            ("nothing", Json::Object(Vec::new())),
            ("paths", Json::List(vec!["/a".into(), "/b\n\"\u{1}".into()])),
            ("average", Json::Fraction(0.0)),
            ("error", Json::Null),
        ]);
        let expected = r#"{
  "connections" : [ {
    "port" : 1,
    "open" : true
  }, {
    "port" : 2,
    "open" : true
  } ],
  "none" : [ ],
  "nothing" : { },
  "paths" : [ "/a", "/b\n\"\u0001" ],
  "average" : 0.0,
  "error" : null
}"#;
        assert_eq!(value.render(), expected);
    }
}
