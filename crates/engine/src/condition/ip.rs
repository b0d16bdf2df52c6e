//! Addresses: networks, ranges and scopes.
//!
//! A mapped address (`::ffff:10.0.0.1`) is a v4 address everywhere; apart from that v4 and v6 never meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

/// Reads an address; a mapped one as v4, a zone (`%eth0`) left out.
#[must_use]
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = match text.split_once('%') {
        Some((address, _)) if address.contains(':') => address,
        _ => text,
    };
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The usual spelling of an address when the text spells it otherwise, so that `2001:DB8::0` is `2001:db8::`.
pub(crate) fn other_spelling(text: &str) -> Option<String> {
    // Most texts are no addresses; these two looks spare them the reading.
    let starts_well = text.trim_start().bytes().next().is_some_and(|byte| byte.is_ascii_hexdigit() || byte == b':');
    let address = if starts_well && text.contains(':') { parse_address(text)? } else { return None };
    Some(address.to_string()).filter(|usual| usual != text)
}

/// A set of networks: sorted, disjoint ranges, so that a look-up is a binary search however many there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl NetworkSet {
    pub(crate) fn new(ranges: impl IntoIterator<Item = RangeInclusive<IpAddr>>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            match range.into_inner() {
                (IpAddr::V4(low), IpAddr::V4(high)) => set.v4.push((low.to_bits(), high.to_bits())),
                (IpAddr::V6(low), IpAddr::V6(high)) => set.v6.push((low.to_bits(), high.to_bits())),
                _ => {}
            }
        }
        merge(&mut set.v4);
        merge(&mut set.v6);
        set
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => covers(&self.v4, address.to_bits()),
            IpAddr::V6(address) => covers(&self.v6, address.to_bits()),
        }
    }
}

fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(low, _)| *low <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, high)| address <= *high)
}

/// Reads `10.0.0.0/8`, `2001:db8::/32` or a bare address.
///
/// # Errors
/// What is wrong and how to mend it.
pub(crate) fn parse_network(text: &str) -> Result<RangeInclusive<IpAddr>, (String, Option<String>)> {
    let text = text.trim();
    if let Some(address) = parse_address(text) {
        return Ok(address..=address);
    }
    // The standard library reads the address: a leading zero, which some take for octal, is refused by it.
    let network = text.split_once('/').and_then(|(address, length)| {
        let length = Some(length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()))?;
        IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
    });
    let Some(network) = network else {
        let hint = "write an address and a prefix length, such as `10.0.0.0/8` or `2001:db8::/32`".to_owned();
        return Err((format!("`{text}` is not a network"), Some(hint)));
    };
    let network = match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, mapped.prefix_len() - 96).map_or(network, IpNet::V4),
            None => network,
        },
        _ => network,
    };
    if network.addr() != network.network() {
        return Err((format!("`{text}` has bits beyond its prefix"), Some(format!("write `{}`", network.trunc()))));
    }
    Ok(network.network()..=network.broadcast())
}

/// Which kind of address it is; every address is of exactly one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Public,
    Private,
    Loopback,
    LinkLocal,
    Multicast,
    Documentation,
    Cgnat,
    Unspecified,
    Broadcast,
    Reserved,
}

impl Scope {
    pub(crate) const NAMES: [(&'static str, Self); 10] = [
        ("public", Self::Public),
        ("private", Self::Private),
        ("loopback", Self::Loopback),
        ("link_local", Self::LinkLocal),
        ("multicast", Self::Multicast),
        ("documentation", Self::Documentation),
        ("cgnat", Self::Cgnat),
        ("unspecified", Self::Unspecified),
        ("broadcast", Self::Broadcast),
        ("reserved", Self::Reserved),
    ];

    /// By the special-purpose registries of IANA (RFC 6890 and its successors).
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, 0, 0, 0] => Self::Unspecified,
            [255, 255, 255, 255] => Self::Broadcast,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [100, 64..=127, ..] => Self::Cgnat,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            [224..=239, ..] => Self::Multicast,
            [0 | 240..=255, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Documentation,
            [0x2001, 0..=0x1ff, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        parse_address(text).expect("an address")
    }

    fn set(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(networks.iter().map(|text| parse_network(text).expect("a network")))
    }

    #[test]
    fn v4_and_v6_meet_only_in_mapped_addresses() {
        let v4 = set(&["10.0.0.0/8", "0.0.0.0/0"]);
        assert!(v4.contains(address("10.1.2.3")) && v4.contains(address("::ffff:10.1.2.3")));
        assert!(!v4.contains(address("2001:db8::1")) && !v4.contains(address("::10.1.2.3")));
        let v6 = set(&["::/0"]);
        assert!(v6.contains(address("2001:db8::1")) && !v6.contains(address("10.1.2.3")));
        assert!(!v6.contains(address("::ffff:10.1.2.3")), "a mapped address is v4");
        assert!(set(&["::ffff:10.0.0.0/104"]).contains(address("10.255.0.1")));
    }

    #[test]
    fn networks_are_checked() {
        assert!(parse_network("10.0.0.1").is_ok() && parse_network("2001:db8::1").is_ok());
        let (message, hint) = parse_network("10.0.0.1/8").unwrap_err();
        assert!(message.contains("bits beyond") && hint.unwrap().contains("10.0.0.0/8"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.*", "x", "10.0.0.0/", "::/129", "010.0.0.0/8"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_scope_is_as_registered() {
        for (text, scope) in [
            ("8.8.8.8", Scope::Public),
            ("10.0.0.1", Scope::Private),
            ("172.31.255.255", Scope::Private),
            ("172.32.0.0", Scope::Public),
            ("192.168.0.1", Scope::Private),
            ("fd00::1", Scope::Private),
            ("127.0.0.2", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("::ffff:127.0.0.1", Scope::Loopback),
            ("169.254.169.254", Scope::LinkLocal),
            ("fe80::1%eth0", Scope::LinkLocal),
            ("224.0.0.1", Scope::Multicast),
            ("ff02::1", Scope::Multicast),
            ("192.0.2.1", Scope::Documentation),
            ("203.0.113.255", Scope::Documentation),
            ("2001:db8::1", Scope::Documentation),
            ("100.64.0.1", Scope::Cgnat),
            ("100.128.0.1", Scope::Public),
            ("0.0.0.0", Scope::Unspecified),
            ("::", Scope::Unspecified),
            ("255.255.255.255", Scope::Broadcast),
            ("240.0.0.1", Scope::Reserved),
            ("0.1.2.3", Scope::Reserved),
            ("198.18.0.1", Scope::Reserved),
            ("2001::1", Scope::Reserved),
            ("2606:4700::1", Scope::Public),
            ("64:ff9b::808:808", Scope::Public),
            ("::1.2.3.4", Scope::Reserved),
        ] {
            assert_eq!(Scope::of(address(text)), scope, "{text}");
        }
    }

    #[test]
    fn spellings_are_one_address() {
        assert_eq!(other_spelling("2001:DB8:0::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(other_spelling("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(other_spelling("2001:db8::1"), None);
        assert_eq!(other_spelling("10.0.0.1"), None);
        assert_eq!(other_spelling("12:30"), None);
    }

    proptest! {
        #[test]
        fn merged_ranges_hold_what_the_networks_hold(
            networks in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..20), probe in any::<u8>(),
        ) {
            let networks: Vec<IpNet> = networks.into_iter()
                .map(|(last, length)| IpNet::new(Ipv4Addr::new(10, 0, last & 3, last).into(), length).unwrap().trunc())
                .collect();
            let set = NetworkSet::new(networks.iter().map(|network| network.network()..=network.broadcast()));
            for third in 0..4 {
                let address = IpAddr::from(Ipv4Addr::new(10, 0, third, probe));
                prop_assert_eq!(set.contains(address), networks.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
