"""Output formats: OCSF findings against the schema itself (as ocsf-json-schema ships it), CloudEvents as their SDK reads them."""

import copy
import json

import jsonschema
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from common import HOSTILE, Place, Receiver, check, event, main

RULES = """
rules:
  - id: peer
    title: Peer
    severity: critical
    tags: [attack.initial-access, attack.t1078.004, vonage]
    response: Call the user.
    when: {event_type: "*", source: CD}
    threshold: {count: 2, within: 10m, by: user_email}
    alert: {title: "{{ event.user_email }} did it", dedup: [user_email], quiet: 10m}
    tests: [{name: one is none, events: [{event_type: A, source: CD, user_email: u}], expect: nothing}]
"""
PLACE = {"source_ip": "192.0.2.9", "source_country": "GB", "account_id": "abcd1234"}


def payloads(binary, form):
    """Requests of an alert of a hostile and of a plain user, of its update and of its end."""
    plain = PLACE | {"user_email": "ada@example.org", "context": {"name": "x"}}
    with Receiver() as receiver:
        hook = f'  hook: {{webhook: {{url: "{receiver.url}", format: {form}, updates: 1m, closing: true}}}}\n'
        place = Place(binary, hook, rules=RULES, events=[event(0), event(1), event(2, **plain), event(3, **plain)])
        said = [place.run("run", "--once")]
        place.add([event(4)])
        said += [place.run("run", "--once", after=after) for after in ("+2m", "+30m")]
        check(f"{form}: delivered", [status for status, _ in said] == [0, 0, 0] and len(receiver.requests) == 5, said)
        return receiver.requests


def schema():
    """What checks a Detection Finding of the version that the findings name; nothing unknown is let through."""
    known = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
    found = known.get_class_schema(class_name=known.lookup_class_name_from_uid(class_uid=2004), profiles=[])
    return jsonschema.Draft202012Validator(found)


def ocsf(binary):
    findings = [json.loads(request["body"]) for request in payloads(binary, "ocsf")]
    schemas = schema()

    def faults(finding):
        return [f"{error.json_path}: {error.message[:200]}" for error in schemas.iter_errors(finding)]

    found = [fault for finding in findings for fault in faults(finding)]
    check("ocsf: the schema has nothing against any", findings and not found, found[:5])
    check("ocsf: of the schema's version", {finding["metadata"]["version"] for finding in findings} == {"1.5.0"})
    kinds = [finding["type_name"].split(": ")[1] for finding in findings]
    check("ocsf: created, updated, closed", sorted(kinds) == ["Close", "Close", "Create", "Create", "Update"], kinds)
    ids = [finding["finding_info"]["uid"] for finding in findings if finding["type_uid"] != 200_401]
    created = {finding["finding_info"]["uid"] for finding in findings if finding["type_uid"] == 200_401}
    check("ocsf: all about the two findings", len(created) == 2 and set(ids) == created, ids)
    whole = next(finding for finding in findings if "GB" in json.dumps(finding))
    parts = {"evidences", "remediation", "raw_data", "unmapped", "finding_info"} <= whole.keys()
    check("ocsf: with all its parts", parts and whole["finding_info"]["attacks"] and whole["evidences"][0]["src_endpoint"], whole)

    spoils = {
        "an unknown attribute": lambda one: one.update(colour="red"),
        "one unknown further in": lambda one: one["finding_info"].update(colour="red"),
        "no time": lambda one: one.pop("time"),
        "a time as text": lambda one: one.update(time="2026-03-04T05:06:07Z"),
        "a severity that is none": lambda one: one.update(severity_id=7),
        "another class": lambda one: one.update(class_uid=2001),
        "no product": lambda one: one["metadata"].pop("product"),
        "no uid of the finding": lambda one: one["finding_info"].pop("uid"),
        "an empty piece of evidence": lambda one: one.update(evidences=[{}]),
        "no word of what to do": lambda one: one.update(remediation={}),
    }
    for what, spoil in spoils.items():
        spoilt = copy.deepcopy(whole)
        spoil(spoilt)
        check(f"ocsf: {what} would be seen", faults(spoilt))


def cloud_events(binary):
    structured, binary_mode = (payloads(binary, form) for form in ("cloudevents", "cloudevents-binary"))

    def read(request, **changes):
        headers = {name: value for name, value in (request["headers"] | changes).items() if value is not None}
        return from_http_event(HTTPMessage(headers=headers, body=request["body"].encode()))

    kinds = {}
    for name, requests in [("structured", structured), ("binary", binary_mode)]:
        events = [read(request) for request in requests]
        kinds[name] = sorted(one.get_type() for one in events)
        check(f"cloudevents: {name}: of version 1.0", {one.get_specversion() for one in events} == {"1.0"})
        ids = [(one.get_id(), one.get_subject(), one.get_data()["delivery_id"], one.get_data()["alert_id"]) for one in events]
        check(f"cloudevents: {name}: id and subject are ours", all(i == d and s == a for i, s, d, a in ids), ids)
        check(f"cloudevents: {name}: source and time", all(one.get_source() == "vigie:log" and one.get_time() for one in events))
        texts = [one.get_data().get("event", {}).get("user_email") for one in events]
        check(f"cloudevents: {name}: all of the text", HOSTILE in texts, texts)
        marked = [key.startswith("ce-") for request in requests for key in request["headers"]]
        check(f"cloudevents: {name} it is", any(marked) == (name == "binary"))
    check("cloudevents: both say the same", kinds["structured"] == kinds["binary"], kinds)

    def refused(make):
        try:
            make()
            return False
        except Exception:
            return True

    headers = {"no type": {"ce-type": None}, "no source": {"ce-source": None}, "a time that is none": {"ce-time": "yesterday"}}
    for what, change in headers.items():
        check(f"cloudevents: {what} would be seen", refused(lambda: read(binary_mode[0], **change)))
    without = dict(structured[0], body=json.dumps({**json.loads(structured[0]["body"]), "id": ""}))
    check("cloudevents: an empty id would be seen", refused(lambda: read(without)))


def run(binary):
    ocsf(binary)
    cloud_events(binary)


main(run)
