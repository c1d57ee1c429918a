//! IP addresses and networks, as Kubernetes reads them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::invalid::FieldErrors;

/// A network in CIDR notation, `10.0.0.0/8`; `None` if it is none.
fn parse_network(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    let is_number = bits.bytes().all(|c| c.is_ascii_digit());
    IpNet::new(read(address)?, bits.parse().ok().filter(|_| is_number)?).ok()
}

/// Whether all addresses of one network are those of another, which has more.
pub(super) fn is_within(inner: IpNet, outer: IpNet) -> bool {
    outer.contains(&inner) && inner.prefix_len() > outer.prefix_len()
}

/// An IP address. One of IPv4 that is mapped into IPv6 is one of IPv4.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    read(text).map(|address| address.to_canonical())
}

/// Zeros before the numbers of an IPv4 address mean nothing.
fn read(text: &str) -> Option<IpAddr> {
    if !text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return text.parse().ok();
    }
    let plain = |octet: &str| match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(plain).collect::<Vec<_>>().join(".").parse().ok()
}

/// Refuses a text that is no IP address; the address if it is one.
pub(super) fn address(field: &str, text: &str, errors: &mut FieldErrors) -> Option<IpAddr> {
    let address = parse(text);
    if address.is_none() {
        errors.invalid(field, &Value::from(text), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    address
}

/// Refuses a text that is no network; the network if it is one.
pub(super) fn network(field: &str, text: &str, errors: &mut FieldErrors) -> Option<IpNet> {
    let network = parse_network(text);
    if network.is_none() {
        let problem = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.invalid(field, &Value::from(text), problem);
    }
    network
}

/// Refuses an address that means another machine to each, or none.
pub(super) fn not_special(field: &str, text: &str, address: IpAddr, errors: &mut FieldErrors) {
    let (is_near, is_group) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    let value = Value::from(text);
    if address.is_unspecified() {
        errors.invalid(field, &value, &format!("may not be unspecified ({text})"));
    } else if address.is_loopback() {
        errors.invalid(field, &value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if is_near {
        errors.invalid(field, &value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if is_group {
        errors.invalid(field, &value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.00.0.01", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("1.5", None),
            ("1..2.3", None),
            ("999.1.1.1", None),
            ("fe80::1%eth0", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn networks() {
        let within = |inner: &str, outer: &str| Some(is_within(parse_network(inner)?, parse_network(outer)?));
        assert_eq!(within("10.1.0.0/16", "10.0.0.0/8"), Some(true));
        assert_eq!(within("11.1.0.0/16", "10.0.0.0/8"), Some(false));
        assert_eq!(within("10.0.0.0/8", "10.0.0.0/8"), Some(false), "it is no smaller");
        assert_eq!(within("2001:db8::/64", "2001:db8::/32"), Some(true));
        assert_eq!(within("2001:db8::/64", "0.0.0.0/0"), Some(false));
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "10.0/8", "::/129"] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }

    #[test]
    fn special_addresses() {
        let problem = |text: &str| {
            let mut errors = FieldErrors::default();
            not_special("ip", text, parse(text).unwrap(), &mut errors);
            !errors.is_empty()
        };
        for text in ["0.0.0.0", "::", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1"] {
            assert!(problem(text), "{text}");
        }
        for text in ["10.0.0.1", "224.0.1.1", "2001:db8::1", "ff05::1"] {
            assert!(!problem(text), "{text}");
        }
    }
}
