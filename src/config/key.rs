//! A row of the table of settings: name, form, default, what becomes of it, one line of help, and the setter.
//!
//! The form and the setter are one value ([`Setter`]), so that what the reference prints, what an error asks for and
//! what is accepted cannot drift apart.

use super::draft::{Draft, Given};
use super::value;

/// What becomes of a key that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what ZooKeeper's manual (for our own keys: the help text) says.
    Honoured,
    /// Read and checked, but the server does not act on it yet; whoever sets it is warned by name.
    NotYet,
    /// It has no meaning in this server, for the reason given; accepted with a line in the log.
    NoMeaning,
}

/// The unit of a number, for help and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Ticks,
    Hours,
    Bytes,
    Plain,
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Self::Milliseconds => " of milliseconds",
            Self::Ticks => " of ticks",
            Self::Hours => " of hours",
            Self::Bytes => " of bytes",
            Self::Plain => "",
        }
    }
}

/// The form of a value together with the field that it goes to.
#[derive(Clone, Copy)]
pub(super) enum Setter {
    /// ZooKeeper reads `true` or `false` in any case and refuses the rest.
    Strict(fn(&mut Draft, bool)),
    /// ZooKeeper takes everything that is not `true` for `false`, silently; we say so.
    Lenient(fn(&mut Draft, bool)),
    /// ZooKeeper compares with one of `yes` and `no`, letter by letter, and takes everything else for the other; we
    /// say so. `otherwise` is what everything else means.
    YesNo { otherwise: bool, set: fn(&mut Draft, bool) },
    /// A whole number in a range.
    Number {
        unit: Unit,
        min: u32,
        max: u32,
        set: fn(&mut Draft, u32),
    },
    /// A whole number in a range that a Java `int` does not hold.
    Large {
        unit: Unit,
        min: u64,
        set: fn(&mut Draft, u64),
    },
    /// A whole number, where `unset` and everything below it stand for "none".
    Optional {
        unit: Unit,
        unset: i64,
        max: u32,
        set: fn(&mut Draft, Option<u32>),
    },
    /// A TCP port, where 0 lets the system choose, as in ZooKeeper 3.9.
    Port(fn(&mut Draft, u16)),
    /// A number from 0 to 1.
    Fraction(fn(&mut Draft, f64)),
    /// Any text that is not empty.
    Text(fn(&mut Draft, &str)),
    /// Any text, never shown in a log or an error.
    Secret(fn(&mut Draft, &str)),
    /// A form of its own; the error says what is wrong and what would be right.
    Parsed {
        form: &'static str,
        set: fn(&mut Draft, &Given) -> Result<(), String>,
    },
    /// Not read at all.
    Ignored,
}

impl Setter {
    /// The accepted form in words, as it stands in errors after "expected" and in the reference.
    pub(super) fn form(&self) -> String {
        match self {
            Self::Strict(_) | Self::Lenient(_) => "true or false".to_owned(),
            Self::YesNo { .. } => "yes or no".to_owned(),
            Self::Number { unit, min, max, .. } => format!("a number{} from {min} to {max}", unit.suffix()),
            Self::Large { unit, min, .. } => format!("a number{} from {min}", unit.suffix()),
            Self::Optional { unit, unset, max, .. } => {
                format!(
                    "a number{} from {} to {max}, or {unset} for none",
                    unit.suffix(),
                    unset + 1
                )
            }
            Self::Port(_) => "a TCP port from 0 to 65535, where 0 lets the system choose".to_owned(),
            Self::Fraction(_) => "a number from 0 to 1".to_owned(),
            Self::Text(_) => "a text that is not empty".to_owned(),
            Self::Secret(_) => "a text, which no log shows".to_owned(),
            Self::Parsed { form, .. } => (*form).to_owned(),
            Self::Ignored => "anything".to_owned(),
        }
    }

    /// Parses `given` and puts it into its field.
    ///
    /// # Errors
    /// What is wrong with the value and what would be right.
    pub(super) fn apply(&self, draft: &mut Draft, given: &Given) -> Result<(), String> {
        let text = given.text.as_str();
        let expected = || format!("expected {}", self.form());
        match self {
            Self::Strict(set) => set(draft, value::boolean(text).ok_or_else(expected)?),
            Self::Lenient(set) => {
                let on = lenient_boolean(draft, given);
                set(draft, on);
            }
            Self::YesNo { otherwise, set } => {
                let on = yes_or_no(draft, given, *otherwise);
                set(draft, on);
            }
            Self::Number { min, max, set, .. } => {
                let number = value::integer(text).and_then(|number| u32::try_from(number).ok());
                set(
                    draft,
                    number
                        .filter(|number| (min..=max).contains(&number))
                        .ok_or_else(expected)?,
                );
            }
            Self::Large { min, set, .. } => {
                let number = value::integer(text).and_then(|number| u64::try_from(number).ok());
                set(draft, number.filter(|number| number >= min).ok_or_else(expected)?);
            }
            Self::Optional { unset, max, set, .. } => {
                let number = value::integer(text).ok_or_else(expected)?;
                if number <= *unset {
                    set(draft, None);
                } else {
                    let number = u32::try_from(number).ok().filter(|number| number <= max);
                    set(draft, Some(number.ok_or_else(expected)?));
                }
            }
            Self::Port(set) => {
                let number = value::integer(text).and_then(|number| u16::try_from(number).ok());
                set(draft, number.ok_or_else(expected)?);
            }
            Self::Fraction(set) => {
                let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
                set(draft, number.ok_or_else(expected)?);
            }
            Self::Text(_) if text.is_empty() => return Err(expected()),
            Self::Text(set) | Self::Secret(set) => set(draft, text),
            Self::Parsed { set, .. } => set(draft, given)?,
            Self::Ignored => {}
        }
        Ok(())
    }
}

/// Java's `Boolean.parseBoolean`.
fn lenient_boolean(draft: &mut Draft, given: &Given) -> bool {
    value::boolean(&given.text).unwrap_or_else(|| {
        draft.warn(
            given,
            format!(
                "{:?} is neither true nor false; as in ZooKeeper it counts as false",
                given.text
            ),
        );
        false
    })
}

fn yes_or_no(draft: &mut Draft, given: &Given, otherwise: bool) -> bool {
    match given.text.as_str() {
        "yes" => true,
        "no" => false,
        other => {
            let meaning = if otherwise { "yes" } else { "no" };
            draft.warn(
                given,
                format!("{other:?} is neither yes nor no; as in ZooKeeper it counts as {meaning}"),
            );
            otherwise
        }
    }
}

/// One row of the table.
pub(super) struct Key {
    /// The name in zoo.cfg; the property is `zookeeper.` and this. A `*` at the end stands for any suffix.
    pub(super) name: &'static str,
    /// What becomes of it.
    pub(super) support: Support,
    /// The default in words or as the value that would set it; empty: none.
    pub(super) default: &'static str,
    /// One line of help; for keys that are not honoured, the reason.
    pub(super) help: &'static str,
    /// Form and field.
    pub(super) setter: Setter,
}

impl Key {
    /// A key that the server acts on.
    pub(super) const fn honoured(
        name: &'static str,
        default: &'static str,
        setter: Setter,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            support: Support::Honoured,
            default,
            help,
            setter,
        }
    }

    /// A key that has its field already, while the server does not act on it.
    pub(super) const fn not_yet(name: &'static str, default: &'static str, setter: Setter, help: &'static str) -> Self {
        Self {
            name,
            support: Support::NotYet,
            default,
            help,
            setter,
        }
    }

    /// A key that has no field yet.
    pub(super) const fn missing(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            support: Support::NotYet,
            default,
            help,
            setter: Setter::Ignored,
        }
    }

    /// A key that means nothing here.
    pub(super) const fn no_meaning(name: &'static str, why: &'static str) -> Self {
        Self {
            name,
            support: Support::NoMeaning,
            default: "",
            help: why,
            setter: Setter::Ignored,
        }
    }

    /// Whether the key `name` belongs to this row.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
            None => self.name == name,
        }
    }

    /// Whether its value must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.setter, Setter::Secret(_))
    }
}
