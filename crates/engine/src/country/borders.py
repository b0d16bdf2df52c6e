#!/usr/bin/env python3
"""Computes borders.bin: for each two territories the distance in km between their nearest borders or coasts.

It never runs in a build; its result is committed. README.md beside it says from what and how to run it.
Usage: borders.py countries-10m.json
"""

import hashlib
import json
import pathlib
import re
import sys

import numpy
from scipy.spatial import cKDTree

HERE = pathlib.Path(__file__).parent
EARTH_KM = 6371.0088  # mean radius (IUGG)
# Longest piece of a border between two sample points: at 10 km of distance the error is then 50 m.
PIECE_KM = 2.0
UNKNOWN = 0xFFFF

# ISO 3166-1 numeric codes: what the map calls its territories by.
NUMERIC = """
    AD020 AE784 AF004 AG028 AI660 AL008 AM051 AO024 AQ010 AR032 AS016 AT040 AU036 AW533 AX248 AZ031 BA070
    BB052 BD050 BE056 BF854 BG100 BH048 BI108 BJ204 BL652 BM060 BN096 BO068 BQ535 BR076 BS044 BT064 BV074
    BW072 BY112 BZ084 CA124 CC166 CD180 CF140 CG178 CH756 CI384 CK184 CL152 CM120 CN156 CO170 CR188 CU192
    CV132 CW531 CX162 CY196 CZ203 DE276 DJ262 DK208 DM212 DO214 DZ012 EC218 EE233 EG818 EH732 ER232 ES724
    ET231 FI246 FJ242 FK238 FM583 FO234 FR250 GA266 GB826 GD308 GE268 GF254 GG831 GH288 GI292 GL304 GM270
    GN324 GP312 GQ226 GR300 GS239 GT320 GU316 GW624 GY328 HK344 HM334 HN340 HR191 HT332 HU348 ID360 IE372
    IL376 IM833 IN356 IO086 IQ368 IR364 IS352 IT380 JE832 JM388 JO400 JP392 KE404 KG417 KH116 KI296 KM174
    KN659 KP408 KR410 KW414 KY136 KZ398 LA418 LB422 LC662 LI438 LK144 LR430 LS426 LT440 LU442 LV428 LY434
    MA504 MC492 MD498 ME499 MF663 MG450 MH584 MK807 ML466 MM104 MN496 MO446 MP580 MQ474 MR478 MS500 MT470
    MU480 MV462 MW454 MX484 MY458 MZ508 NA516 NC540 NE562 NF574 NG566 NI558 NL528 NO578 NP524 NR520 NU570
    NZ554 OM512 PA591 PE604 PF258 PG598 PH608 PK586 PL616 PM666 PN612 PR630 PS275 PT620 PW585 PY600 QA634
    RE638 RO642 RS688 RU643 RW646 SA682 SB090 SC690 SD729 SE752 SG702 SH654 SI705 SJ744 SK703 SL694 SM674
    SN686 SO706 SR740 SS728 ST678 SV222 SX534 SY760 SZ748 TC796 TD148 TF260 TG768 TH764 TJ762 TK772 TL626
    TM795 TN788 TO776 TR792 TT780 TV798 TW158 TZ834 UA804 UG800 UM581 US840 UY858 UZ860 VA336 VC670 VE862
    VG092 VI850 VN704 VU548 WF876 WS882 YE887 YT175 ZA710 ZM894 ZW716
"""

# What the map has under a name only. Places where nobody lives and that two claim are left out.
BY_NAME = {
    "Kosovo": ["XK"],
    "Somaliland": ["SO"],
    "N. Cyprus": ["CY"],
    "Cyprus U.N. Buffer Zone": ["CY"],
    "Akrotiri": ["CY"],
    "Dhekelia": ["CY"],
    "Baikonur": ["KZ"],
    "USNB Guantanamo Bay": ["CU"],
    "Siachen Glacier": ["IN", "PK"],
    "Indian Ocean Ter.": [],
    "Coral Sea Is.": [],
    "Ashmore and Cartier Is.": [],
    "Spratly Is.": [],
    "Scarborough Reef": [],
    "Clipperton I.": [],
    "Bajo Nuevo Bank": [],
    "Serranilla Bank": [],
}

# Parts of a territory of the map that have a code of their own: west, east, south, north, code. They stay parts of the
# whole too, because address databases and people use either code: so FR and BR are neighbours.
PARTS = {
    "France": [
        (-55, -51, 2, 6, "GF"),
        (-62, -61, 15.8, 16.6, "GP"),
        (-61.3, -60.7, 14.3, 15, "MQ"),
        (55, 56, -21.5, -20.8, "RE"),
        (45, 45.4, -13.1, -12.6, "YT"),
    ],
    "Norway": [(-10, 35, 74, 81, "SJ"), (-9.5, -7.5, 70.5, 71.5, "SJ")],
    "Netherlands": [(-68.5, -68, 11.9, 12.4, "BQ"), (-63.3, -62.9, 17.4, 17.7, "BQ")],
    "New Zealand": [(-173, -171, -10, -8, "TK")],
    "Indian Ocean Ter.": [(105.5, 105.8, -10.7, -10.3, "CX"), (96.7, 97, -12.3, -12, "CC")],
}

# Parts where nobody lives, far from the rest: they would bring countries together that are not near for anybody.
# They count for their own code only, if they have one.
UNINHABITED = {
    "Norway": [(3, 4, -55, -54, "BV")],
    "Australia": [(158, 160, -55, -54, None)],  # Macquarie
    "New Zealand": [
        (165, 170, -53, -50, None),  # Auckland, Campbell
        (178, 180, -50, -47, None),  # Antipodes, Bounty
        (-179, -177, -32, -29, None),  # Kermadec
    ],
    "South Africa": [(37, 39, -47.5, -46, None)],  # Prince Edward
    "United Kingdom": [(-14, -13, 57, 58, None)],  # Rockall
}


def codes():
    """The codes in the order of the table in Rust."""
    found = re.findall(r'\("([A-Z]{2})", "', (HERE / "names.rs").read_text(encoding="utf-8"))
    assert found == sorted(set(found)), "names.rs is not in order"
    return found


def within(ring, box):
    west, east, south, north = box[:4]
    longitudes, latitudes = ring[:, 0], ring[:, 1]
    return west <= longitudes.min() and longitudes.max() <= east and south <= latitudes.min() and latitudes.max() <= north


def decode_arcs(topology):
    scale, translate = (numpy.array(topology["transform"][key]) for key in ("scale", "translate"))
    return [numpy.cumsum(numpy.array(arc), axis=0) * scale + translate for arc in topology["arcs"]]


def on_sphere(degrees):
    """Longitude and latitude to points on the unit sphere."""
    longitude, latitude = numpy.radians(degrees).T
    return numpy.stack(
        [numpy.cos(latitude) * numpy.cos(longitude), numpy.cos(latitude) * numpy.sin(longitude), numpy.sin(latitude)], axis=1
    )


def sampled(line):
    """The points of a line, with more between those that are far apart, along the great circle."""
    points = on_sphere(line)
    starts, ends = points[:-1], points[1:]
    lengths = 2 * numpy.arcsin(numpy.clip(numpy.linalg.norm(ends - starts, axis=1) / 2, 0, 1)) * EARTH_KM
    pieces = [points]
    for index in numpy.flatnonzero(lengths > PIECE_KM):
        count = int(numpy.ceil(lengths[index] / PIECE_KM))
        share = numpy.arange(1, count)[:, None] / count
        between = starts[index] * (1 - share) + ends[index] * share
        pieces.append(between / numpy.linalg.norm(between, axis=1)[:, None])
    return numpy.concatenate(pieces)


def territories(topology):
    """For each code the arcs that bound it, by index: neighbours share arcs."""
    by_number = {entry[2:]: entry[:2] for entry in NUMERIC.split()}
    corners = decode_arcs(topology)
    bounds = {}
    for geometry in topology["objects"]["countries"]["geometries"]:
        name = geometry["properties"]["name"]
        whole = BY_NAME[name] if name in BY_NAME else [by_number[geometry["id"]]]
        for polygon in [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]:
            arcs = {arc if arc >= 0 else ~arc for ring in polygon for arc in ring}
            outline = numpy.concatenate([corners[arc] for arc in arcs])
            alone = [box[4] for box in UNINHABITED.get(name, []) if within(outline, box)]
            parts = [box[4] for box in PARTS.get(name, []) if within(outline, box)]
            owners = [code for code in alone if code] if alone else [*whole, *parts]
            for code in owners:
                bounds.setdefault(code, set()).update(arcs)
    return bounds, corners


def nearest_km(one, other, tree_of, points_of, samples):
    """Kilometres between the nearest points of two territories, cut to a whole number."""
    if len(points_of[one]) > len(points_of[other]):
        one, other = other, one
    # A few points give a bound; with it the tree passes over nearly all others.
    bound = tree_of[other].query(samples[one])[0].min()
    chord = tree_of[other].query(points_of[one], distance_upper_bound=bound * (1 + 1e-9) + 1e-12)[0].min()
    return int(2 * numpy.arcsin(min(min(chord, bound) / 2, 1.0)) * EARTH_KM)


def main(path):
    order = codes()
    topology = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    bounds, corners = territories(topology)
    missing = [code for code in order if code not in bounds]
    extra = sorted(set(bounds) - set(order))
    assert not extra, f"no names for {extra}"
    lines = [sampled(line) for line in corners]
    points_of = {code: numpy.concatenate([lines[arc] for arc in sorted(arcs)]) for code, arcs in bounds.items()}
    tree_of = {code: cKDTree(points) for code, points in points_of.items()}
    samples = {code: points[:: max(1, len(points) // 50)] for code, points in points_of.items()}
    distances = []
    for row, one in enumerate(order):
        for other in order[:row]:
            if one not in bounds or other not in bounds:
                distances.append(UNKNOWN)
            elif bounds[one] & bounds[other]:
                distances.append(0)
            else:
                distances.append(nearest_km(one, other, tree_of, points_of, samples))
        print(f"{row + 1}/{len(order)} {one}", end="\r", file=sys.stderr)
    content = numpy.array(distances, dtype="<u2").tobytes()
    (HERE / "borders.bin").write_bytes(content)
    print(f"{len(order)} territories, without a place: {missing or 'none'}")
    print(f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
