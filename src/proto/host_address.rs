//! Addresses as Java writes them, which clients and operators read.

use std::fmt::Write as _;
use std::net::IpAddr;

/// `InetAddress.getHostAddress`: an IPv6 address in full, without zeros in front of its parts.
pub fn host_address(ip: IpAddr) -> String {
    let segments = match ip.to_canonical() {
        IpAddr::V4(ip) => return ip.to_string(),
        IpAddr::V6(ip) => ip.segments(),
    };
    let mut text = String::new();
    for (place, segment) in segments.iter().enumerate() {
        let separator = if place == 0 { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{segment:x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_java_writes_it() {
        let written = |address: &str| host_address(address.parse().unwrap());
        assert_eq!(written("10.0.0.7"), "10.0.0.7");
        assert_eq!(written("::1"), "0:0:0:0:0:0:0:1");
        assert_eq!(written("2001:db8::a0"), "2001:db8:0:0:0:0:0:a0");
        assert_eq!(written("::ffff:10.0.0.7"), "10.0.0.7");
    }
}
