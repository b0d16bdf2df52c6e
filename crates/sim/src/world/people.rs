//! Who works at the account's company, from where and when; and the policy that their routine keeps.
//! The constants are what an operator of this world would write into lists. Addresses of the company are documentation
//! ranges (RFC 5737, RFC 3849); homes are ranges of consumer providers, so that a country look-up finds the right
//! place.

use chrono::{DateTime, Datelike, Timelike, Utc, Weekday};

use crate::rng::{Rng, mix};

/// Countries that people and servers of the company work from.
pub const HOME_COUNTRIES: &[&str] = &["GB", "FR", "ES"];

/// Networks of the offices. Every change through the dashboard is made from here.
pub const OFFICE_NETWORKS: &[&str] = &["192.0.2.0/24", "2001:db8:10::/48"];

/// Networks of the servers that call the API.
pub const SERVER_NETWORKS: &[&str] = &["198.51.100.0/24", "2001:db8:20::/48"];

/// Networks of the homes that people log in from. No change is ever made from a home.
pub const HOME_NETWORKS: &[&str] = &["86.140.0.0/16", "90.12.0.0/16", "81.33.0.0/16"];

/// Domains of staff e-mail addresses.
pub const STAFF_DOMAINS: &[&str] = &["example.org"];

/// Domains that applications call back to, always over https.
pub const CALLBACK_DOMAINS: &[&str] = &["example.org"];

/// Phone numbers that the company's numbers may be forwarded to.
pub const FORWARD_NUMBERS: &[&str] = &["447700900000", "447700900001"];

/// Hosts that the company's numbers may be forwarded to over SIP.
pub const FORWARD_SIP_DOMAINS: &[&str] = &["voice.example.org"];

/// Working hours in UTC: from the first, up to the second.
pub const WORKING_HOURS_UTC: (u32, u32) = (7, 20);

/// Working days: the first to the last.
pub const WORKING_DAYS: (Weekday, Weekday) = (Weekday::Mon, Weekday::Fri);

/// Whether this is a time at which people work.
#[must_use]
pub fn in_working_hours(at: DateTime<Utc>) -> bool {
    let (first, last) = WORKING_DAYS;
    let day = at.weekday().num_days_from_monday();
    let (from, to) = WORKING_HOURS_UTC;
    (first.num_days_from_monday()..=last.num_days_from_monday()).contains(&day) && (from..to).contains(&at.hour())
}

/// One of the staff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The dashboard login.
    pub email: String,
    /// The dashboard's number of the user.
    pub user_id: u64,
    /// Where the person lives and works: one of [`HOME_COUNTRIES`].
    pub country: &'static str,
    /// The address at the office.
    pub office_ip: String,
    /// The address at home.
    pub home_ip: String,
    /// First working hour, UTC.
    pub from_hour: u32,
    /// The hour at which work ends, UTC.
    pub to_hour: u32,
    /// What the person does.
    pub role: Role,
}

/// What a person does in the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Changes applications, rotates secrets.
    Developer,
    /// Works on numbers.
    Operator,
    /// Pays; changes auto-reload.
    Finance,
}

/// Makes the staff of a seed. The first three have three different roles.
pub(crate) fn staff(seed: u64, count: u32) -> Vec<Person> {
    let mut rng = Rng::new(mix(seed, 3));
    (0..count).map(|number| person(number, &mut rng)).collect()
}

const NAMES: &[&str] = &[
    "alice", "bruno", "carmen", "david", "elise", "fergus", "gloria", "hugo", "ines", "james", "karine", "luis",
    "maeve", "nicolas", "olga", "pablo", "quentin", "rosa", "simon", "tessa",
];

fn person(number: u32, rng: &mut Rng) -> Person {
    let place = number as usize;
    let name = NAMES.get(place % NAMES.len()).copied().unwrap_or("staff");
    let again = place / NAMES.len();
    let suffix = if again == 0 { String::new() } else { again.to_string() };
    let country = HOME_COUNTRIES.get(place % HOME_COUNTRIES.len()).copied().unwrap_or("GB");
    let home = match country {
        "FR" => "90.12",
        "ES" => "81.33",
        _ => "86.140",
    };
    let office_ip = if rng.chance(0.25) {
        format!("2001:db8:10:{place:x}::{:x}", rng.between(1, 0xfff))
    } else {
        format!("192.0.2.{}", 10 + number)
    };
    let role = match number % 3 {
        0 => Role::Developer,
        1 => Role::Operator,
        _ => Role::Finance,
    };
    let from_hour = u32::try_from(rng.between(7, 9)).unwrap_or(9);
    Person {
        email: format!("{name}{suffix}@{}", STAFF_DOMAINS.first().copied().unwrap_or_default()),
        user_id: 1_234_500 + u64::from(number) * 7 + rng.below(7),
        country,
        office_ip,
        home_ip: format!("{home}.{}.{}", rng.below(256), rng.between(1, 254)),
        from_hour,
        to_hour: from_hour + 9,
        role,
    }
}
