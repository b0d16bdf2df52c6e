//! Where an event came from by an address database: the fields `geo.*`, beside the event and never in it.
//!
//! The database is asked by whoever hands events in; the engine only sees the answer. It is kept as a small JSON text with
//! a tape of its own, so that paths, conditions and dedup keys read it with the code that they read events with.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::reader;
use super::tape::{Node, View};

/// First part of the paths that look here. An event's own `geo` is never looked at: who writes the event would choose it.
pub const GEO: &str = "geo";
/// The fields that a database can give, below `geo`. `mismatch` comes on top; it is worked out, never given.
pub const GEO_FIELDS: [&str; 6] = ["country", "city", "asn", "as_org", "lat", "lon"];
/// Longest name that is kept; real cities and organisations have fewer characters, and a damaged database may have any.
const MAX_NAME_CHARS: usize = 200;

/// What a database says of an address; what it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Geo {
    /// ISO 3166-1 alpha-2 code.
    pub country: Option<String>,
    /// Name of the city, in English if there is a choice.
    pub city: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<u32>,
    /// Who runs the autonomous system.
    pub as_org: Option<String>,
    /// Degrees north.
    pub lat: Option<f64>,
    /// Degrees east.
    pub lon: Option<f64>,
}

/// The fields of one event as its paths see them: `{"geo": {...}}`.
#[derive(Debug, Clone)]
pub(super) struct GeoFields {
    raw: Arc<str>,
    tape: Arc<[Node]>,
}

impl Geo {
    /// Reads what a test of a rule writes under `geo`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Object(members) = value else { return Err("`geo` is no map of fields".into()) };
        let mut geo = Self::default();
        for (key, value) in members {
            let (text, number) = (value.as_str().map(str::to_owned), value.as_f64());
            let read = match key.as_str() {
                "country" => set(&mut geo.country, text),
                "city" => set(&mut geo.city, text),
                "as_org" => set(&mut geo.as_org, text),
                "asn" => set(&mut geo.asn, value.as_u64().and_then(|asn| u32::try_from(asn).ok())),
                "lat" => set(&mut geo.lat, number),
                "lon" => set(&mut geo.lon, number),
                "mismatch" => return Err("`geo.mismatch` is worked out from `source_country` and `geo.country`".into()),
                _ => return Err(format!("`geo` has {}, not `{key}`", GEO_FIELDS.join(", "))),
            };
            if !read && !value.is_null() {
                return Err(format!("`geo.{key}` cannot be {value}"));
            }
        }
        Ok(geo)
    }

    /// With the answer to whether the database contradicts the country that the event itself names, if both are known.
    pub(super) fn fields(&self, source_country: Option<&str>) -> Option<GeoFields> {
        let name = |text: &String| Value::from(text.chars().take(MAX_NAME_CHARS).collect::<String>());
        let known = |country: &str| !country.trim().is_empty();
        let country = self.country.as_ref().filter(|country| known(country));
        let claimed = source_country.filter(|country| known(country));
        let mismatch = country.zip(claimed).map(|(found, claimed)| !found.trim().eq_ignore_ascii_case(claimed.trim()));
        let members = [
            ("country", country.map(name)),
            ("city", self.city.as_ref().map(name)),
            ("asn", self.asn.map(Value::from)),
            ("as_org", self.as_org.as_ref().map(name)),
            ("lat", self.lat.map(Value::from)),
            ("lon", self.lon.map(Value::from)),
            ("mismatch", mismatch.map(Value::from)),
        ];
        let members: Map<String, Value> =
            members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        let raw = Value::from_iter([(GEO.to_owned(), Value::Object(members))]).to_string();
        // It was made here and is far below the size of an event; if it were no JSON, the fields would be missing.
        GeoFields::read(&raw)
    }
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

impl GeoFields {
    /// From the text that one was made of.
    pub(super) fn read(text: &str) -> Option<Self> {
        let tape = reader::read(text).ok()?;
        Some(Self { raw: text.into(), tape: tape.into() })
    }

    pub(super) fn text(&self) -> &str {
        &self.raw
    }

    /// The object that holds `geo`.
    pub(super) fn root(&self) -> View<'_> {
        View::root(&self.raw, &self.tape)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::{Event, FieldPath};
    use super::*;

    fn event(raw: &str) -> Event {
        Event::new("e1", DateTime::UNIX_EPOCH, raw.into()).expect("an event")
    }

    fn brazil() -> Geo {
        Geo {
            country: Some("BR".into()),
            city: Some("São \"Paulo\"".into()),
            asn: Some(64_500),
            as_org: Some("Example \u{1b} Ltda".into()),
            lat: Some(-23.5),
            lon: Some(-46.625),
        }
    }

    #[test]
    fn what_a_database_says_is_read_by_path() {
        let event = event(r#"{"a":"x"}"#).with_geo(&brazil());
        let wanted = [
            ("geo.country", "BR"),
            ("geo.city", "São \"Paulo\""),
            ("geo.asn", "64500"),
            ("geo.as_org", "Example \u{1b} Ltda"),
            ("geo.lat", "-23.5"),
            ("geo.lon", "-46.625"),
            ("a", "x"),
        ];
        for (path, text) in wanted {
            assert_eq!(event.text(path).as_deref(), Some(text), "{path}");
        }
        assert_eq!(event.values("geo.*").len(), 3, "the texts");
        assert_eq!(event.values("*").len(), 1, "every string of the event, and of nothing else");
        assert_eq!(&**event.raw(), r#"{"a":"x"}"#, "the event stays as it came");
        assert_eq!(event.to_json(), serde_json::json!({"a": "x"}));
    }

    #[test]
    fn what_is_not_known_is_missing() {
        let present = |event: &Event, path: &str| FieldPath::parse(path).expect("a path").is_present(event);
        let bare = event(r#"{"source_country":"GB","geography":1}"#);
        let asked = bare.clone().with_geo(&Geo::default());
        for event in [&bare, &asked] {
            for field in GEO_FIELDS.into_iter().chain(["mismatch", "nothing"]) {
                assert!(!present(event, &format!("geo.{field}")), "{field}");
            }
            assert!(present(event, "geography"));
        }
    }

    #[test]
    fn an_event_cannot_say_where_it_is_from_by_a_field_of_its_own() {
        let own = event(r#"{"geo":{"country":"GB","mismatch":false},"geo.country":"GB"}"#);
        assert_eq!(own.text("geo.country"), None);
        assert_eq!(own.with_geo(&brazil()).text("geo.country").as_deref(), Some("BR"));
    }

    #[test]
    fn a_mismatch_needs_both_countries() {
        let mismatch = |raw: &str, country: Option<&str>| {
            let geo = Geo { country: country.map(str::to_owned), ..Geo::default() };
            event(raw).with_geo(&geo).text("geo.mismatch").map(std::borrow::Cow::into_owned)
        };
        assert_eq!(mismatch(r#"{"source_country":"GB"}"#, Some("BR")).as_deref(), Some("true"));
        assert_eq!(mismatch(r#"{"source_country":"br"}"#, Some("BR")).as_deref(), Some("false"));
        assert_eq!(mismatch(r#"{"source_country":""}"#, Some("BR")), None);
        assert_eq!(mismatch(r#"{"source_country":null}"#, Some("BR")), None);
        assert_eq!(mismatch("{}", Some("BR")), None);
        assert_eq!(mismatch(r#"{"source_country":"GB"}"#, None), None);
        assert_eq!(mismatch(r#"{"source_country":"GB"}"#, Some(" ")), None);
    }

    #[test]
    fn what_a_test_writes_is_checked() {
        let read = |text: &str| Geo::from_json(&serde_json::from_str(text).expect("JSON"));
        let all = r#"{"country":"BR","city":"São \"Paulo\"","asn":64500,"as_org":"Example \u001b Ltda","lat":-23.5,"lon":-46.625}"#;
        assert_eq!(read(all), Ok(brazil()));
        assert_eq!(read(r#"{"country":null}"#), Ok(Geo::default()));
        for bad in [
            "3",
            "[]",
            r#"{"asn":"AS1"}"#,
            r#"{"asn":-1}"#,
            r#"{"countri":"BR"}"#,
            r#"{"lat":"x"}"#,
            r#"{"mismatch":true}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_cut() {
        let geo = Geo { city: Some("é".repeat(100_000)), ..Geo::default() };
        let event = event("{}").with_geo(&geo);
        assert_eq!(event.text("geo.city").map(|city| city.chars().count()), Some(MAX_NAME_CHARS));
    }
}
