"""What chats get, from the binary itself: Slack's blocks are judged here by slack_sdk and slackblocks; Teams' cards are kept.

Either library alone lets something pass (slack_sdk the length of a field, slackblocks an unknown member), so both are asked,
and what each has read must be all that was there.
"""

import copy
import inspect
import json

import slackblocks
from slack_sdk import WebClient
from slack_sdk.models.blocks import Block

from common import RULES, Place, Receiver, check, event, main

LONG_RULES = """
rules:
  - id: LONG_ID
    title: Many at once
    severity: critical
    tags: [TAGS]
    response: "RESPONSE"
    when: {event_type: "*", source: CD, user_email: "*", context.name: "*"}
    threshold: {count: 2, within: 10m, by: account_id}
    alert: {title: "{{ event.user_email }} {{ event.context.name }}", dedup: [KEYS]}
    tests: [{name: one is none, events: [{event_type: A, source: CD, user_email: u, context: {name: x}}], expect: nothing}]
"""
# Cut anywhere, it may break in the middle of a character, of a direction, of an escape.
LONG = "𝕏\u202eعربي\u2066 é\u0301 &<!channel> https://evil.example/\x1b[31m" * 40


def long_rules():
    keys = ["account_id", "user_email", "event_type", "source", "source_ip", "user_id"]
    said = {"LONG_ID": "l" * 80, "TAGS": ", ".join(f"tag.{number}.{'t' * 60}" for number in range(20))}
    said |= {"RESPONSE": "\\n".join("Call the user. " * 60 for _ in range(40)), "KEYS": ", ".join(keys)}
    text = LONG_RULES
    for name, value in said.items():
        text = text.replace(name, value)
    return text


def long_event(number):
    context = {"name": LONG} | {f"field {index} {LONG[:300]}": LONG for index in range(30)}
    fields = {"user_email": LONG, "source_ip": LONG, "user_id": LONG, "account_id": LONG, "event_type_description": LONG}
    return event(number, event_type=f"A{LONG}", context=context, **fields)


def payloads(binary, name, rules, events, answers=()):
    """Bodies for Slack and for Teams of one run."""
    with Receiver(answers, body=b"ok") as receiver:
        sinks = f'  slack: {{slack: {{webhook_url: "{receiver.url}/slack", rate: 100/s, burst: 100}}}}\n'
        sinks += f'  teams: {{teams: {{webhook_url: "{receiver.url}/teams", rate: 100/s, burst: 100}}}}\n'
        place = Place(binary, sinks, events=events, rules=rules)
        status, said = place.run("run", "--once")
        check(f"chats: {name} delivered", status == 0 and "could not" not in said, said)
        sent = {kind: [json.loads(request["body"]) for request in receiver.requests if request["path"] == f"/{kind}"]
                for kind in ("slack", "teams")}
        check(f"chats: {name} came", sent["slack"] and len(sent["slack"]) == len(sent["teams"]), len(receiver.requests))
        return sent


def bot_messages(binary):
    """What a bot posts and edits over the life of an alert, by the method of Slack's Web API."""
    rules = RULES.replace('name }}"}', 'name }}", dedup: [source], quiet: 10m}')
    with Receiver(body=b'{"ok":true,"channel":"C0123ABCD","ts":"1503435956.000247"}') as receiver:
        options = f'url: "{receiver.url}", token: xoxb-secret, channel: C0123ABCD, updates: 1m, closing: true'
        place = Place(binary, f"  bot: {{slack_bot: {{{options}}}}}\n", events=1, rules=rules)
        said = [place.run("run", "--once")]
        place.add([event(1)])
        said += [place.run("run", "--once", after=after) for after in ("+2m", "+30m")]
        check("slack_bot: delivered", [status for status, _ in said] == [0, 0, 0], said)
    sent = {"/chat.postMessage": [], "/chat.update": []}
    for request in receiver.requests:
        sent[request["path"]].append(json.loads(request["body"]))
    tokens = {request["headers"]["authorization"] for request in receiver.requests}
    shown = any("xoxb" in request["body"] for request in receiver.requests)
    check("slack_bot: the token is in its header only", tokens == {"Bearer xoxb-secret"} and not shown, tokens)
    first, *replies = sent["/chat.postMessage"]
    threads = [reply.get("thread_ts") for reply in replies]
    check("slack_bot: its update and its end are in its thread", threads == ["1503435956.000247"] * 2, replies)
    edits = sent["/chat.update"]
    for method, messages in [(WebClient.chat_postMessage, [first, *replies]), (WebClient.chat_update, edits)]:
        unknown = {member for message in messages for member in message} - inspect.signature(method).parameters.keys()
        check(f"slack_bot: slack_sdk's {method.__name__} knows each member", not unknown, unknown)
    check("slack_bot: itself is edited", edits and {edit["ts"] for edit in edits} == {"1503435956.000247"}, edits)
    return [first, *edits]


def faults(message):
    """What the two libraries have against a message; members that slackblocks gives by default are added before."""
    found = []
    try:
        slackblocks.Message("#c", text=message["text"], blocks=[slackblocks.Block.from_dict(one) for one in message["blocks"]])
    except Exception as fault:
        found.append(f"slackblocks: {fault}")
    for one in message["blocks"]:
        try:
            parsed = Block.parse(one)
            if parsed is None or parsed.to_dict() != one:
                found.append(f"slack_sdk reads a part of {json.dumps(one)[:200]}")
        except Exception as fault:
            found.append(f"slack_sdk: {fault}")
    return found


def broken(message):
    """The same message, spoilt in one place each."""
    def spoilt(change):
        other = copy.deepcopy(message)
        change({block["type"]: block for block in other["blocks"]}, other)
        return other

    def text(characters):
        return {"type": "plain_text", "text": "x" * characters, "emoji": False}

    yield "a header of 151", spoilt(lambda blocks, _: blocks["header"].update(text=text(151)))
    yield "a text of 3,001", spoilt(lambda blocks, _: blocks["section"].update(text=text(3001)))
    yield "a field of 2,001", spoilt(lambda blocks, _: blocks["section"].update(fields=[text(2001)]))
    yield "eleven fields", spoilt(lambda blocks, _: blocks["section"].update(fields=[text(1)] * 11))
    yield "an empty text", spoilt(lambda blocks, _: blocks["section"].update(text=text(0)))
    yield "an unknown member", spoilt(lambda blocks, _: blocks["section"].update(colour="red"))
    yield "an unknown block", spoilt(lambda _, other: other["blocks"].append({"type": "sektion"}))
    yield "51 blocks", spoilt(lambda _, other: other["blocks"].extend([{"type": "divider"}] * 51))


def texts(value):
    """All text objects below a value."""
    if isinstance(value, dict):
        if "text" in value and "type" in value and isinstance(value["text"], str):
            yield value
        value = list(value.values())
    for one in value if isinstance(value, list) else []:
        yield from texts(one)


def run(binary, kept):
    hostile = payloads(binary, "hostile", RULES, 3)
    # Each is refused once, and then comes as plain text.
    longest = [long_event(number) for number in range(2)]
    very_long = payloads(binary, "very long", long_rules(), longest, answers=[(400, {})] * 2)
    whole = very_long["slack"][:1]
    bot = bot_messages(binary)
    messages = hostile["slack"] + whole + bot
    check("slack: refused, then plain text", ["blocks" in message for message in very_long["slack"]] == [True, False])
    found = [fault for message in messages for fault in faults(message)]
    check("slack: both libraries accept every message", len(messages) == 4 + len(bot) and not found, found[:3])
    for what, message in broken(whole[0]):
        check(f"slack: {what} would be seen", faults(message))
    shown = [text for message in messages for text in texts(message["blocks"])]
    check("slack: nothing of it is markup", shown and all(text["type"] == "plain_text" for text in shown))
    fallbacks = [message["text"] for message in messages + very_long["slack"]]
    marked = [text for text in fallbacks if "<!" in text or "://evil" in text]
    check("slack: the fallback is escaped", not marked, marked[:1])
    bad = [text["text"] for text in shown if any(character in text["text"] for character in "\x1b\x9b\u202e\u2066")]
    check("slack: no control and no direction", not bad, bad[:1])
    longest = max(len(text["text"].encode("utf-16-le")) // 2 for text in shown)
    check("slack: a section is nearly full", longest > 2500, longest)
    sizes = [len(json.dumps(message, ensure_ascii=False).encode()) for message in very_long["teams"]]
    check("teams: at most 28 KiB, and nearly so", 20_000 < max(sizes) <= 28 * 1024, sizes)
    with open(kept, "w") as file:
        json.dump(hostile["teams"] + very_long["teams"], file)


main(run)
