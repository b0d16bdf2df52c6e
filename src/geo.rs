//! Address databases: from an address to the place and the network that it belongs to.
//!
//! Databases are the operator's own files in the format of MaxMind (mmdb), from whichever maker; none is shipped. They are
//! held in memory, never mapped: a mapped file that is replaced or cut under a running process ends it. A look-up never
//! fails: what a damaged database cannot say is not known, and a metric counts it.

use std::net::IpAddr;

use maxminddb::{MaxMindDbError, PathElement, Reader};
use metrics::counter;
use serde::Deserialize;
use serde::de::IgnoredAny;
use vigie_engine::condition::parse_address;
use vigie_engine::event::{Event, Geo};

use crate::metrics as names;

/// Largest database in bytes: several times the largest that are on sale for cities, and it is held in memory (twice while
/// a reload takes place).
pub const MAX_DATABASE_BYTES: u64 = 512 * 1024 * 1024;
/// The field whose address is looked up.
const ADDRESS_FIELD: &str = "source_ip";

/// Where makers put a field, each a path; the first that holds a text or a number counts.
type Places = &'static [&'static [&'static str]];
const COUNTRY: Places = &[&["country_code"], &["country", "iso_code"], &["country"]];
const CITY: Places = &[&["city"], &["city", "names", "en"]];
const ASN: Places = &[&["autonomous_system_number"], &["asn"]];
const AS_ORG: Places = &[&["autonomous_system_organization"], &["as_name"], &["as_organization"]];
const LAT: Places = &[&["location", "latitude"], &["latitude"], &["lat"]];
const LON: Places = &[&["location", "longitude"], &["longitude"], &["lng"], &["lon"]];

/// One database.
pub struct Database(Reader<Vec<u8>>);

/// What is asked about each event's address.
pub struct Lookup {
    place: Option<Database>,
    network: Option<Database>,
}

/// A value of a record, as far as it is of use here.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(u64),
    Number(f64),
    Other(IgnoredAny),
}

impl Database {
    /// Takes the bytes of a file.
    ///
    /// # Errors
    /// A sentence, when they are no database.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        Reader::from_source(bytes).map(Self).map_err(|error| error.to_string())
    }

    fn find(&self, address: IpAddr, places: Places) -> Option<Scalar> {
        if address.is_ipv6() && self.0.metadata().ip_version == 4 {
            return None;
        }
        let found = self.0.lookup(address).inspect_err(count_damage).ok()?;
        places.iter().find_map(|place| {
            let path: Vec<PathElement<'_>> = place.iter().map(|key| PathElement::Key(key)).collect();
            match found.decode_path::<Scalar>(&path).inspect_err(count_damage) {
                Ok(Some(Scalar::Other(_)) | None) | Err(_) => None,
                Ok(Some(scalar)) => Some(scalar),
            }
        })
    }
}

/// A path that does not fit a record's shape is no damage: makers differ.
fn count_damage(error: &MaxMindDbError) {
    if matches!(error, MaxMindDbError::InvalidDatabase { .. }) {
        counter!(names::GEO_FAILURES).increment(1);
        tracing::debug!(%error, "an address database is damaged");
    }
}

impl Lookup {
    /// A database of places (countries, perhaps cities) and one of networks. If one lacks what the other has, that counts.
    #[must_use]
    pub fn new(place: Option<Database>, network: Option<Database>) -> Self {
        Self { place, network }
    }

    /// What is known of an address.
    #[must_use]
    pub fn locate(&self, address: IpAddr) -> Geo {
        let (place, network) = (self.place.as_ref(), self.network.as_ref());
        let first = |order: [Option<&Database>; 2], places: Places| {
            order.into_iter().flatten().find_map(|database| database.find(address, places))
        };
        let of_place = |places| first([place, network], places);
        let of_network = |places| first([network, place], places);
        Geo {
            country: of_place(COUNTRY).and_then(Scalar::text),
            city: of_place(CITY).and_then(Scalar::text),
            asn: of_network(ASN).and_then(Scalar::asn),
            as_org: of_network(AS_ORG).and_then(Scalar::text),
            lat: of_place(LAT).and_then(Scalar::number),
            lon: of_place(LON).and_then(Scalar::number),
        }
    }

    /// The event with what is known of its `source_ip`, as `geo.*`.
    #[must_use]
    pub fn locate_event(&self, event: Event) -> Event {
        match event.text(ADDRESS_FIELD).and_then(|text| parse_address(&text)) {
            Some(address) => event.with_geo(&self.locate(address)),
            None => event,
        }
    }
}

impl Scalar {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text).filter(|text| !text.trim().is_empty()),
            _ => None,
        }
    }

    /// Some write `AS64500`.
    fn asn(self) -> Option<u32> {
        match self {
            Self::Whole(number) => u32::try_from(number).ok(),
            Self::Text(text) => text.trim_start_matches(['A', 'S', 'a', 's']).parse().ok(),
            Self::Number(_) | Self::Other(_) => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.parse().ok(),
            #[expect(clippy::cast_precision_loss, reason = "degrees stay below 2^53")]
            Self::Whole(number) => Some(number as f64),
            Self::Other(_) => None,
        }
        .filter(|number| number.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    const CITY_FILE: &[u8] = include_bytes!("geo/city.mmdb");
    const COUNTRY_FILE: &[u8] = include_bytes!("geo/country.mmdb");
    const ASN_FILE: &[u8] = include_bytes!("geo/asn.mmdb");
    const FLAT_FILE: &[u8] = include_bytes!("geo/flat.mmdb");

    fn database(bytes: &[u8]) -> Option<Database> {
        Some(Database::new(bytes.to_vec()).expect("a database"))
    }

    fn locate(lookup: &Lookup, address: &str) -> Geo {
        lookup.locate(address.parse().expect("an address"))
    }

    fn sao_paulo() -> Geo {
        Geo {
            country: Some("BR".into()),
            city: Some("São Paulo".into()),
            lat: Some(-23.5475),
            lon: Some(-46.6361),
            ..Geo::default()
        }
    }

    const UNOPTIMIZED_STACK_BYTES: usize = 16 << 20;

    #[test]
    fn cities_and_networks_come_from_two_databases() {
        let lookup = Lookup::new(database(CITY_FILE), database(ASN_FILE));
        let network = Geo { asn: Some(64_500), as_org: Some("Example Transit".into()), ..sao_paulo() };
        assert_eq!(locate(&lookup, "203.0.113.77"), network);
        assert_eq!(locate(&Lookup::new(database(CITY_FILE), None), "203.0.113.77"), sao_paulo());
        assert_eq!(locate(&lookup, "2001:db8:20::1").country.as_deref(), Some("DE"));
        assert_eq!(locate(&lookup, "2001:db8:20::1").asn, Some(64_501));
        assert_eq!(locate(&lookup, "8.8.8.8"), Geo::default(), "not in them");
        let only_network = Lookup::new(None, database(ASN_FILE));
        assert_eq!(
            (locate(&only_network, "203.0.113.77").asn, locate(&only_network, "203.0.113.77").country),
            (Some(64_500), None)
        );
    }

    #[test]
    fn a_database_of_countries_of_old_addresses_knows_no_new_ones() {
        let lookup = Lookup::new(database(COUNTRY_FILE), None);
        assert_eq!(locate(&lookup, "192.0.2.1"), Geo { country: Some("GB".into()), ..Geo::default() });
        assert_eq!(locate(&lookup, "2001:db8:20::1"), Geo::default());
    }

    #[test]
    fn one_flat_record_may_hold_everything_in_texts() {
        let whole = Geo { asn: Some(64_500), as_org: Some("Example Transit".into()), ..sao_paulo() };
        for lookup in [Lookup::new(database(FLAT_FILE), None), Lookup::new(None, database(FLAT_FILE))] {
            assert_eq!(locate(&lookup, "203.0.113.77"), whole);
        }
    }

    #[test]
    fn an_event_is_located_by_its_source_ip() {
        let lookup = Lookup::new(database(CITY_FILE), database(ASN_FILE));
        let country = |raw: &str| {
            let event = Event::new("e1", DateTime::UNIX_EPOCH, raw.into()).expect("an event");
            let located = lookup.locate_event(event);
            assert_eq!(&**located.raw(), raw);
            ["geo.country", "geo.asn", "geo.mismatch"].map(|path| located.text(path).unwrap_or_default().into_owned())
        };
        assert_eq!(country(r#"{"source_ip":"203.0.113.77","source_country":"GB"}"#), ["BR", "64500", "true"]);
        assert_eq!(country(r#"{"source_ip":"::ffff:203.0.113.77","source_country":"br"}"#), ["BR", "64500", "false"]);
        for raw in ["{}", r#"{"source_ip":""}"#, r#"{"source_ip":"nowhere"}"#, r#"{"source_ip":"10.0.0.1"}"#] {
            assert_eq!(country(raw), ["", "", ""], "{raw}");
        }
    }

    #[test]
    fn no_damage_makes_a_look_up_fail() {
        assert!(Database::new(Vec::new()).is_err());
        assert!(Database::new(b"a page about an error".to_vec()).is_err());
        assert!(Database::new(CITY_FILE.get(..CITY_FILE.len() / 2).expect("half").to_vec()).is_err());
        // The library reads 512 values deep; where nothing is optimized, a thread of a test is too small for that.
        let reader = std::thread::Builder::new().stack_size(UNOPTIMIZED_STACK_BYTES).spawn(look_up_in_damaged_files);
        assert!(reader.expect("a thread").join().is_ok());
    }

    fn look_up_in_damaged_files() {
        for file in [CITY_FILE, COUNTRY_FILE, ASN_FILE, FLAT_FILE] {
            for at in 0..file.len() {
                for value in [0, 0xff, 0x80] {
                    let mut bytes = file.to_vec();
                    bytes[at] = value;
                    let Ok(damaged) = Database::new(bytes) else { continue };
                    let lookup = Lookup::new(Some(damaged), None);
                    for address in ["203.0.113.77", "192.0.2.1", "2001:db8:20::1"] {
                        let _geo = locate(&lookup, address);
                    }
                }
            }
        }
    }
}
