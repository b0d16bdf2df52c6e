//! The SSRF guard: which hosts and addresses a sink may never reach, in every spelling that a resolver would take.
//!
//! It resolves nothing and knows no URL's path. Addresses that carry an IPv4 address inside (mapped, NAT64, 6to4 ...) are
//! judged by what they carry, because that is where the packets go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Names under which cloud machines reach their metadata, whatever they resolve to.
const METADATA_NAMES: &[&str] = &[
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.azure.com",
    "metadata.oraclecloud.com",
    "metadata.tencentyun.com",
    "instance-data",
    "instance-data.ec2.internal",
];

/// Metadata addresses outside the link-local range: Alibaba, Oracle, Azure's wire server.
const METADATA_V4: &[Ipv4Addr] =
    &[Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// AWS keeps all of `fd00:ec2::/32` for services of the machine: metadata, keys of a pod, time, names.
const AWS_LOCAL_V6: [u16; 2] = [0xfd00, 0xec2];
/// Metadata addresses within the private IPv6 range: Google, and Scaleway.
const METADATA_V6: &[Ipv6Addr] =
    &[Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)];

/// What a sink may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Loopback and private ranges. URLs come from the configuration file, so this is on unless the operator refuses it.
    pub allow_private: bool,
}

/// Why a host or address is refused; says its kind, never a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    what: &'static str,
}

/// What an address is to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Refused whatever the configuration says; the text says why.
    Never(&'static str),
    /// Loopback and private ranges.
    Private(&'static str),
    /// Everything else.
    Public,
}

impl Policy {
    /// Vets the host of a URL: an address in any spelling, or a name. A name's addresses are vetted when it is resolved.
    ///
    /// # Errors
    /// When the host must not be reached.
    pub fn vet_url(self, url: &Url) -> Result<(), Refused> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.vet_address(address.into()),
            Some(Host::Ipv6(address)) => self.vet_address(address.into()),
            Some(Host::Domain(name)) => self.vet_host(name),
            None => Err(Refused { what: "no host" }),
        }
    }

    /// Vets a host as text: brackets, zone ids, trailing dots, decimal, octal, hex and short forms are all understood.
    ///
    /// # Errors
    /// When the host must not be reached, or is none.
    pub fn vet_host(self, host: &str) -> Result<(), Refused> {
        let bare = host.trim().trim_start_matches('[').trim_end_matches(']');
        let bare = bare.split_once('%').filter(|(head, _)| head.contains(':')).map_or(bare, |(head, _)| head);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return self.vet_address(address.into());
        }
        match Host::parse(bare.trim_end_matches('.')) {
            Ok(Host::Ipv4(address)) => self.vet_address(address.into()),
            Ok(Host::Ipv6(address)) => self.vet_address(address.into()),
            Ok(Host::Domain(name)) => self.vet_name(&name),
            Err(_) => Err(Refused { what: "not a host name" }),
        }
    }

    /// Vets an address, be it a literal or an answer of the resolver.
    ///
    /// # Errors
    /// When the address must not be reached.
    pub fn vet_address(self, address: IpAddr) -> Result<(), Refused> {
        match classify(address) {
            Class::Never(what) => Err(Refused { what }),
            Class::Private(what) if !self.allow_private => Err(Refused { what }),
            Class::Private(_) | Class::Public => Ok(()),
        }
    }

    fn vet_name(self, name: &str) -> Result<(), Refused> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_or_under =
            |known: &str| name.strip_suffix(known).is_some_and(|head| head.is_empty() || head.ends_with('.'));
        if METADATA_NAMES.iter().any(|known| is_or_under(known)) {
            return Err(Refused { what: "a cloud metadata name" });
        }
        if !self.allow_private && is_or_under("localhost") {
            return Err(Refused { what: "a loopback name" });
        }
        Ok(())
    }
}

/// Classes an address; one that carries an IPv4 address is classed by the worse of both.
#[must_use]
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return Class::Never("a cloud metadata address");
    }
    match (a, b) {
        (169, 254) => Class::Never("a link-local address"),
        (0, _) => Class::Never("an unspecified address"),
        (224..=239, _) => Class::Never("a multicast address"),
        (240..=255, _) => Class::Never("a broadcast or reserved address"),
        (127, _) => Class::Private("a loopback address"),
        (10, _) | (172, 16..=31) | (192, 168) => Class::Private("a private address"),
        (100, 64..=127) => Class::Private("a shared (carrier) address"),
        (198, 18..=19) => Class::Private("a benchmark address"),
        (192, 0) if c == 0 => Class::Private("a protocol address"),
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    let segments = address.segments();
    if METADATA_V6.contains(&address) || segments.starts_with(&AWS_LOCAL_V6) {
        return Class::Never("a cloud metadata address");
    }
    let own = match segments[0] {
        _ if address.is_unspecified() => Class::Never("an unspecified address"),
        _ if address.is_loopback() => Class::Private("a loopback address"),
        0xff00..=0xffff => Class::Never("a multicast address"),
        0xfe80..=0xfebf => Class::Never("a link-local address"),
        0xfec0..=0xfeff | 0xfc00..=0xfdff => Class::Private("a private address"),
        _ => Class::Public,
    };
    if matches!(own, Class::Never(_)) || address.is_loopback() {
        return own;
    }
    carried_v4(segments).into_iter().flatten().map(classify_v4).fold(own, worse)
}

/// The IPv4 addresses that an IPv6 address can stand for.
fn carried_v4(segments: [u16; 8]) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    let last = v4(segments[6], segments[7]);
    match segments {
        // Compatible (RFC 4291), mapped, translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None],
        // NAT64: well-known (RFC 6052) and local-use (RFC 8215) prefixes; the latter may carry it after 48 bits as well.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, None],
        [0x64, 0xff9b, 1, high, low, ..] => {
            let (middle, tail) = (low & 0xff, segments[5] >> 8);
            [last, v4(high, (middle << 8) | tail)]
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [v4(high, low), None],
        // Teredo (RFC 4380): server, and client with its bits turned over.
        [0x2001, 0, high, low, ..] => [v4(high, low), v4(!segments[6], !segments[7])],
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [last, None],
        _ => [None, None],
    }
}

fn worse(one: Class, other: Class) -> Class {
    match (one, other) {
        (Class::Never(_), _) | (Class::Private(_), Class::Private(_) | Class::Public) => one,
        (Class::Public | Class::Private(_), _) => other,
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is never a destination for alerts", self.what)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Policy = Policy { allow_private: true };
    const STRICT: Policy = Policy { allow_private: false };

    const NEVER: &[&str] = &[
        // 169.254.169.254: dotted, trailing dot, decimal, hex, octal, mixed, short forms, full-width and circled digits.
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "2852039166.",
        "0xa9fea9fe",
        "0XA9FEA9FE",
        "025177524776",
        "0251.0376.0251.0376",
        "0xa9.0xfe.0xa9.0xfe",
        "0xa9.254.0251.254",
        "169.254.43518",
        "169.16689662",
        "0xa9.0xfea9fe",
        "%31%36%39.254.169.254",
        "\u{ff11}\u{ff16}\u{ff19}.254.169.254",
        "\u{2460}\u{2465}\u{2468}.254.169.254",
        "169\u{3002}254\u{3002}169\u{3002}254",
        // The rest of the link-local range.
        "169.254.0.1",
        "169.254.255.255",
        "169.254.170.2",
        // Carried in IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[::a9fe:a9fe]",
        "[::ffff:0:a9fe:a9fe]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[64:ff9b:1:a9fe:a9:fe00::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:a9fe:a9fe::1]",
        "[2001:0:808:808::5601:5601]",
        "[2001:db8::5efe:a9fe:a9fe]",
        "[2001:db8::200:5efe:a9fe:a9fe]",
        // Link-local and metadata of IPv6.
        "[fe80::1]",
        "[FE80::A9FE:A9FE]",
        "[febf:ffff::1]",
        "[fd00:ec2::254]",
        "[fd00:0ec2:0000:0000:0000:0000:0000:0254]",
        "[fd00:ec2::23]",
        "[fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff]",
        "[fd20:ce::254]",
        // Metadata of other clouds.
        "100.100.100.200",
        "0x646464c8",
        "[::ffff:100.100.100.200]",
        "192.0.0.192",
        "3221225664",
        "[::ffff:c000:c0]",
        "168.63.129.16",
        // Names.
        "metadata.google.internal",
        "METADATA.google.internal",
        "metadata.google.internal.",
        "x.metadata.google.internal",
        "metadata",
        "metadata.goog",
        "instance-data.ec2.internal",
        // Unspecified, multicast, broadcast, reserved.
        "0.0.0.0",
        "0",
        "0x0",
        "0.1.2.3",
        "[::]",
        "[::ffff:0.0.0.0]",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "4294967295",
        "240.0.0.1",
        "[ff02::1]",
        "[::ffff:224.0.0.1]",
    ];

    /// As a URL where it is one, and as a bare host.
    fn both(policy: Policy, host: &str) -> (Option<bool>, bool) {
        let as_url = Url::parse(&format!("http://{host}/latest/meta-data")).ok();
        (as_url.map(|url| policy.vet_url(&url).is_ok()), policy.vet_host(host).is_ok())
    }

    #[test]
    fn metadata_and_link_local_are_refused_in_every_spelling() {
        for host in NEVER {
            let (as_url, as_host) = both(OPEN, host);
            assert!(as_url != Some(true) && !as_host, "{host}: {as_url:?} {as_host}");
        }
    }

    #[test]
    fn zone_ids_and_bare_ipv6_are_understood_outside_urls() {
        for host in ["fe80::1%eth0", "[fe80::1%25eth0]", "fe80::1", "::ffff:169.254.169.254", "::", " 169.254.169.254 "]
        {
            assert!(OPEN.vet_host(host).is_err(), "{host}");
        }
        for host in ["", "a b", "1.2.3.4.5.6", "[::1", "999.1.1.1"] {
            assert!(STRICT.vet_host(host).is_err(), "{host}");
        }
    }

    #[test]
    fn private_ranges_are_the_operators_choice() {
        let private = [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "127.1",
            "0x7f.1",
            "127.0.0.1.",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::10.0.0.1]",
            "[2002:c0a8:101::1]",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[fec0::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ];
        for host in private {
            assert_eq!(both(OPEN, host), (Some(true), true), "{host}");
            assert_eq!(both(STRICT, host), (Some(false), false), "{host}");
        }
    }

    #[test]
    fn the_public_internet_is_reachable() {
        let public = [
            "hooks.slack.com",
            "metadata.example.org",
            "notmetadata.google.internal.example.org",
            "mymetadata",
            "notlocalhost",
            "8.8.8.8",
            "172.32.0.1",
            "169.253.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "[2606:4700::1111]",
            "[64:ff9b::8.8.8.8]",
            "[2002:808:808::1]",
        ];
        for host in public {
            assert_eq!(both(STRICT, host), (Some(true), true), "{host}");
        }
    }
}
