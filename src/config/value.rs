//! The small types that settings are parsed into, and the rules by which text becomes one of them.

use std::fmt;

/// The greatest value of a Java `int`, which bounds every number that ZooKeeper keeps in one.
pub(super) const JAVA_INT_MAX: u32 = i32::MAX as u32;

/// A password or another text that no log may show: `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself, for the one place that has to use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// Java's `Integer.decode` without its octal form: decimal, or hexadecimal behind `0x`, `0X` or `#`, with a sign.
/// ZooKeeper reads its properties so (`-Djute.maxbuffer=0x9fffff` is what its own manual says), and the keys that it
/// reads as decimal only are none the worse for it. A leading zero means nothing here: nobody ever meant octal.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let hexadecimal = ["0x", "0X", "#"].iter().find_map(|prefix| digits.strip_prefix(prefix));
    let magnitude = match hexadecimal {
        Some(digits) if digits.starts_with(['+', '-']) => return None,
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse::<i64>(),
    };
    magnitude
        .ok()
        .map(|magnitude| if negative { -magnitude } else { magnitude })
}

/// A size with an optional binary unit: `1048576`, `512k`, `64M`, `2GiB`. `None` where it is not one, or overflows.
pub(super) fn size_bytes(text: &str) -> Option<u64> {
    let digits_end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// `true` or `false` in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_as_java_decodes_them() {
        let cases = [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("0x9fffff", Some(0x9f_ffff)),
            ("#ff", Some(255)),
            ("-0x10", Some(-16)),
            ("010", Some(10)),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x", None),
            ("0x-1", None),
            ("1 000", None),
            ("1e3", None),
            ("2000ms", None),
            ("9223372036854775808", None),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        let cases = [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("64 MiB", Some(64 << 20)),
            ("2G", Some(2 << 30)),
            ("", None),
            ("x", None),
            ("1.5g", None),
            ("-1", None),
            ("99999999999999t", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size_bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(secret)");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = (integer(&text), size_bytes(&text), boolean(&text));
        }
    }
}
