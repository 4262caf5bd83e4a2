//! Numbers and dates as Java writes them: scripts compare and parse our texts as they do Apache's.

use crate::proto::host_address;
use std::net::{IpAddr, SocketAddr};

/// `Double.toString`.
pub(super) fn double(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

/// An average to four decimals, rounded half up.
pub(super) fn four_decimals(value: f64) -> f64 {
    (value * 1e4 + 0.5).floor() / 1e4
}

/// A moment's parts in UTC.
struct Moment {
    year: i64,
    month: usize,
    day: u32,
    /// 0 is Sunday.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    fn of(wall_ms: i64) -> Moment {
        let days = wall_ms.div_euclid(86_400_000);
        let of_day = wall_ms.rem_euclid(86_400_000);
        // Howard Hinnant's civil_from_days: eras of 400 years that begin in March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Moment {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as usize,
            day: (of_year - (153 * march_month + 2) / 5 + 1) as u32,
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1000 % 60,
        }
    }
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Date.toString`, always in UTC.
pub(super) fn date(wall_ms: i64) -> String {
    let moment = Moment::of(wall_ms);
    format!(
        "{} {} {:02} {:02}:{:02}:{:02} UTC {}",
        WEEKDAYS[moment.weekday],
        MONTHS[moment.month - 1],
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.year
    )
}

/// `InetSocketAddress.toString` of an address without a name, behind its slash: an IPv6 one in full, in brackets.
pub(super) fn socket_address(address: SocketAddr) -> String {
    let (host, port) = (host_address(address.ip()), address.port());
    match address.ip().to_canonical() {
        IpAddr::V4(_) => format!("{host}:{port}"),
        IpAddr::V6(_) => format!("[{host}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        let table = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.25, "0.25"),
            (12.3456, "12.3456"),
            (0.0005, "5.0E-4"),
            (1.5e-5, "1.5E-5"),
            (9_999_999.0, "9999999.0"),
            (12_345_678.0, "1.2345678E7"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in table {
            assert_eq!(double(value), text);
        }
        assert_eq!(four_decimals(1.0 / 3.0), 0.3333);
        assert_eq!(four_decimals(2.0 / 3.0), 0.6667);
    }

    #[test]
    fn dates_are_written_as_java_writes_them() {
        assert_eq!(date(1_795_361_231_000), "Sun Nov 22 15:27:11 UTC 2026");
        assert_eq!(date(951_782_400_000), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(date(-1), "Wed Dec 31 23:59:59 UTC 1969");
    }

    #[test]
    fn addresses_are_written_as_java_writes_them() {
        let text = |address: &str| socket_address(address.parse().unwrap());
        assert_eq!(text("127.0.0.1:4000"), "127.0.0.1:4000");
        assert_eq!(text("[::ffff:127.0.0.1]:4000"), "127.0.0.1:4000");
        assert_eq!(text("[::1]:4000"), "[0:0:0:0:0:0:0:1]:4000");
    }
}
