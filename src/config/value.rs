//! The small types that settings are parsed into, and the rules by which text becomes one of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

/// The greatest value of a Java `int`, which bounds every number that ZooKeeper keeps in one.
pub(super) const JAVA_INT_MAX: u32 = i32::MAX as u32;

/// ZooKeeper's `myid`: 1 to 254. It is the top byte of the session ids that the server hands out, and 255 there is the
/// marker of TTL znodes in `ephemeralOwner`; ZooKeeper allows 255 as long as extended types are off, we never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(NonZeroU8);

impl ServerId {
    /// The identity of a server that was never given one.
    pub const FIRST: Self = Self(NonZeroU8::MIN);

    /// The id as a number, 1 to 254.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0.get()
    }

    /// Takes 1 to 254; anything else is no server id.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        let number = u8::try_from(number).ok().filter(|number| *number != u8::MAX)?;
        NonZeroU8::new(number).map(Self)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The host part of an address: what to listen on, or whom to call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every address of this machine, IPv4 and IPv6.
    Any,
    /// One address.
    Ip(IpAddr),
    /// A name, resolved by whoever binds or connects; resolving is IO and has no place here.
    Name(String),
}

impl Host {
    /// Takes a host as ZooKeeper does: an IPv4 or IPv6 address (in brackets or not) or a name. `0.0.0.0` and `::` are
    /// [`Host::Any`], as in Java, whose wildcard address covers both families.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match unbracketed.unwrap_or(text).parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Some(Self::Any),
            Ok(ip) => Some(Self::Ip(ip)),
            Err(_) if unbracketed.is_some() || !is_host_name(text) => None,
            Err(_) => Some(Self::Name(text.to_owned())),
        }
    }

    /// Whether this stands for every address of the machine.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

/// Lenient on purpose: underscores are common in container names, and the resolver has the last word.
fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text
            .chars()
            .all(|character| character.is_alphanumeric() || matches!(character, '.' | '-' | '_'))
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("0.0.0.0"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(formatter),
            Self::Ip(IpAddr::V6(ip)) => write!(formatter, "[{ip}]"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// A host and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The TCP port; 0 lets the system choose where it is listened on.
    pub port: u16,
}

impl Address {
    /// The address on every interface.
    #[must_use]
    pub fn any(port: u16) -> Self {
        Self { host: Host::Any, port }
    }

    /// The IP addresses to bind for this host where no name has to be resolved: for [`Host::Any`] the IPv6 wildcard,
    /// which takes IPv4 connections too, then the IPv4 one for machines without IPv6.
    #[must_use]
    pub fn literal_ips(&self) -> Vec<IpAddr> {
        match &self.host {
            Host::Any => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            Host::Ip(ip) => vec![*ip],
            Host::Name(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

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

/// A TCP port, 1 to 65535.
pub(super) fn port(text: &str) -> Option<u16> {
    integer(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0)
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
    fn hosts_are_addresses_names_or_refused() {
        let v6: IpAddr = "fe80::1".parse().unwrap();
        let cases = [
            ("0.0.0.0", Some(Host::Any)),
            ("::", Some(Host::Any)),
            ("[::]", Some(Host::Any)),
            ("127.0.0.1", Some(Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)))),
            ("[fe80::1]", Some(Host::Ip(v6))),
            ("fe80::1", Some(Host::Ip(v6))),
            ("zoo-1.my_net", Some(Host::Name("zoo-1.my_net".to_owned()))),
            ("", None),
            ("[zoo]", None),
            ("a b", None),
            ("a:b", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Host::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn server_ids_run_from_1_to_254() {
        for (number, valid) in [
            (-1, false),
            (0, false),
            (1, true),
            (254, true),
            (255, false),
            (257, false),
        ] {
            assert_eq!(ServerId::new(number).is_some(), valid, "{number}");
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
            let _ = (integer(&text), size_bytes(&text), boolean(&text), port(&text), Host::parse(&text));
        }
    }
}
