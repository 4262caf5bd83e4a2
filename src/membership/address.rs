//! Server ids, hosts and addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

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
    /// [`Host::Any`], as in Java, whose wildcard address covers both families. `None` where it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
