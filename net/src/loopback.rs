//! What stays on this machine.

use std::net::IpAddr;

/// Does nothing that is sent to this host leave the machine? Takes the host of a URL. `localhost` counts (RFC 6761); no
/// other name does, whatever it resolves to.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_the_loopback_are_not() {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "::1", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["127.evil.example", "localhost.evil.example", "10.0.0.1", "[2001:db8::1]", "", "0.0.0.0"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
