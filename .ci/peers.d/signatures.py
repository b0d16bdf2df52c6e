"""Requests of the webhook sink, verified by the Python library of Standard Webhooks and kept for the Node one."""

import base64
import json

from standardwebhooks import Webhook

from common import HOSTILE, Place, Receiver, check, main, until

OLD, NEW, OTHER = ("whsec_" + base64.b64encode(bytes([seed]) * 32).decode() for seed in (1, 2, 3))
EVENTS = 20


def verifies(secret, request, body=None):
    try:
        Webhook(secret).verify((body or request["body"]), request["headers"])
        return True
    except Exception:
        return False


def run(binary, kept):
    # The first request is refused, so that one delivery comes twice.
    with Receiver(answers=[(503, {})]) as receiver:
        hook = f'  hook: {{webhook: {{url: "{receiver.url}/hook", secret: ["{NEW}", "{OLD}"]}}}}\n'
        single = f'  single: {{webhook: {{url: "{receiver.url}/hook", secret: "{OLD}"}}}}\n'
        place = Place(binary, hook + single, events=EVENTS)
        with place.daemon():

            def complete():
                rows = place.listed()
                return len(rows) == 2 * EVENTS and all(row["status"] == "delivered" for row in rows)

            check("signatures: all delivered", until(complete), len(receiver.requests))
    requests = receiver.requests
    rotating = [request for request in requests if len(request["headers"]["webhook-signature"].split()) == 2]
    alone = [request for request in requests if request not in rotating]
    check("signatures: two during a rotation", len(rotating) >= EVENTS and len(alone) >= EVENTS, len(rotating))
    check("signatures: the new secret verifies", all(verifies(NEW, request) for request in rotating))
    check("signatures: the old secret verifies", all(verifies(OLD, request) for request in requests))
    check("signatures: one secret, one signature", not any(verifies(NEW, request) for request in alone))
    check("signatures: another secret does not", not any(verifies(OTHER, request) for request in requests))
    changed = [verifies(OLD, request, request["body"].replace("high", "info")) for request in requests]
    check("signatures: a changed body does not", not any(changed))
    bodies = [json.loads(request["body"]) for request in requests]
    named = all(body["delivery_id"] == request["headers"]["webhook-id"] for body, request in zip(bodies, requests))
    check("signatures: webhook-id is the delivery's", named)
    check("signatures: the body says what came", all(body["event"]["user_email"] == HOSTILE for body in bodies))
    copies = [request["body"] for request in requests if request["headers"]["webhook-id"] == bodies[0]["delivery_id"]]
    check("signatures: a retry is the same body", len(copies) == 2 and len(set(copies)) == 1, len(copies))
    with open(kept, "w") as file:
        json.dump({"old": OLD, "new": NEW, "other": OTHER, "rotating": rotating, "alone": alone}, file)


main(run)
