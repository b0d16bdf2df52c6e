#!/usr/bin/env python3
"""Writes the small address databases that the tests read: documentation addresses, in the shapes of several makers.

The content is made up and under the licence of this repository. Run it after `pip install mmdb-writer==0.2.7`; the files
lie beside it. Two runs differ in nothing but the time of making that a database carries.
"""

import pathlib

from mmdb_writer import MMDBWriter
from netaddr import IPSet

HERE = pathlib.Path(__file__).parent


def write(name, kind, version, records, **types):
    writer = MMDBWriter(
        ip_version=version, ipv4_compatible=version == 6, database_type=kind, languages=["en"], description="test data", **types
    )
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(HERE / name))


def city(code, name, latitude, longitude):
    return {
        "country": {"iso_code": code, "names": {"en": code}},
        "city": {"names": {"en": name, "fr": "autre nom"}},
        "location": {"latitude": latitude, "longitude": longitude},
    }


def system(number, organization):
    return {"autonomous_system_number": number, "autonomous_system_organization": organization}


CITIES = {
    "192.0.2.0/24": city("GB", "London", 51.5142, -0.0931),
    "203.0.113.0/24": city("BR", "São Paulo", -23.5475, -46.6361),
    "2001:db8:20::/48": city("DE", "Berlin", 52.5196, 13.4069),
}
SYSTEMS = {
    "203.0.113.0/24": system(64500, "Example Transit"),
    "2001:db8::/32": system(64501, "Example Hosting"),
}
COUNTRIES = {"192.0.2.0/24": {"country": {"iso_code": "GB"}}, "203.0.113.0/24": {"country": {"iso_code": "BR"}}}
FLAT = {
    "203.0.113.0/24": {
        "country": "Brazil",
        "country_code": "BR",
        "city": "São Paulo",
        "asn": "AS64500",
        "as_name": "Example Transit",
        "lat": "-23.5475",
        "lng": "-46.6361",
    }
}

write("city.mmdb", "Example-City", 6, CITIES, float_type="f64")
write("asn.mmdb", "Example-ASN", 6, SYSTEMS, int_type="u32")
write("country.mmdb", "Example-Country", 4, COUNTRIES)
write("flat.mmdb", "Example-Flat", 6, FLAT)
