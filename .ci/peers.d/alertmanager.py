"""Two real Alertmanagers (Debian), asked by their own amtool: both have each alert, and it ends when it is quiet again."""

import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

from common import DEBIAN, HOSTILE, Place, Receiver, check, event, free_port, main, running, until

RULES = """
rules:
  - id: peer
    title: Peer
    severity: high
    tags: [attack.t1078]
    response: Call the user.
    when: {event_type: "*", source: CD}
    alert: {title: "{{ event.user_email }} did it", dedup: [user_email, context.name], quiet: 29m}
    tests: [{name: any, events: [{event_type: A, source: CD, user_email: u}], expect: alert}]
"""
CONFIG = """
route: {{receiver: hook, group_by: ['...'], group_wait: 100ms, group_interval: 1s, repeat_interval: 4h}}
receivers: [{{name: hook, webhook_configs: [{{url: "{url}"}}]}}]
"""


class Alertmanager:
    """One that tells `url`; it is no cluster, so what it has it got from us."""

    def __init__(self, url):
        self.directory = tempfile.TemporaryDirectory()
        (pathlib.Path(self.directory.name) / "alertmanager.yml").write_text(CONFIG.format(url=url))
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"

    def start(self):
        log = open(f"{self.directory.name}/log", "ab")
        process = subprocess.Popen(
            [pathlib.Path(__file__).with_name("alertmanager.sh"), "--config.file=alertmanager.yml", "--storage.path=data",
             "--cluster.listen-address=", f"--web.listen-address=127.0.0.1:{self.port}"],
            cwd=self.directory.name, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        if not until(self.is_ready):
            check("alertmanager: started", False, pathlib.Path(log.name).read_text())
        return process

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"{self.base}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def active(self, *matchers):
        """What amtool lists, in the order of their fingerprints."""
        words = ["alert", "query", "-o", "json", f"--alertmanager.url={self.base}", *matchers]
        done = subprocess.run([DEBIAN / "usr/bin/amtool", *words], capture_output=True, timeout=30)
        return sorted(json.loads(done.stdout or "[]"), key=lambda alert: alert["fingerprint"])


def sink(*peers):
    urls = ", ".join(f'"{peer.base}"' for peer in peers)
    return f"  prom: {{alertmanager: {{urls: [{urls}], labels: {{team: secops}}}}}}\n"


def told(receiver, status):
    """Ids of the alerts that a person heard of."""
    bodies = [json.loads(request["body"]) for request in receiver.requests]
    return {alert["labels"]["alert_id"] for body in bodies for alert in body["alerts"] if alert["status"] == status}


def a_life(binary):
    """Opened 30 minutes ago, held open 5 minutes ago, ended now: Alertmanager goes by its own clock."""
    with Receiver() as receiver:
        peers = [Alertmanager(receiver.url), Alertmanager(receiver.url)]
        with running(peers[0].start()), running(peers[1].start()):
            place = Place(binary, sink(*peers), events=[event(0), event(1)], rules=RULES)
            status, said = place.run("run", "--once", after="-30m")
            check("alertmanager: both alerts are taken", status == 0, said)
            first = [peer.active("alertname=peer", "severity=high", "team=secops") for peer in peers]
            check("alertmanager: amtool shows them, at both peers", [len(alerts) for alerts in first] == [2, 2], first)
            check("alertmanager: the same at both", *same(first))
            judge(first[0])
            check("alertmanager: a person hears of them", until(lambda: len(told(receiver, "firing")) == 2))

            status, said = place.run("run", "--once", after="-5m")
            held = peers[0].active("alertname=peer")
            later = len(held) == 2 and all(new["endsAt"] > old["endsAt"] for new, old in zip(held, first[0]))
            check("alertmanager: posted again, they stay open", status == 0 and later, (said, held))
            check("alertmanager: as the same alerts", fingerprints(held) == fingerprints(first[0]), held)

            status, said = place.run("run", "--once")
            ended = until(lambda: not any(peer.active("alertname=peer") for peer in peers))
            check("alertmanager: quiet again, they are over at both", status == 0 and ended, said)
            check("alertmanager: a person hears of the end", until(lambda: len(told(receiver, "resolved")) == 2))


def same(lists):
    return fingerprints(lists[0]) == fingerprints(lists[1]), lists


def fingerprints(alerts):
    return [alert["fingerprint"] for alert in alerts]


def judge(alerts):
    for alert in alerts:
        labels, annotations = alert["labels"], alert["annotations"]
        bad = [name for name in labels if not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)]
        check("alertmanager: names of labels", not bad and {"alert_id", "source", "user_email"} <= labels.keys(), labels)
        texts = [*labels.values(), *annotations.values()]
        inert = not any(character in text for text in texts for character in "\x1b\x07\x00\x9b\u202e\r")
        check("alertmanager: all of it is inert", inert, texts)
        said = any("Bcc: victim@example.org" in text for text in texts) and any("Call the user." in text for text in texts)
        check("alertmanager: the text itself is there", said and HOSTILE not in texts, texts)


def one_is_away(binary):
    """The other has the alert at once; the one that was away has it when it is back."""
    with Receiver() as receiver:
        here, away = Alertmanager(receiver.url), Alertmanager(receiver.url)
        with running(here.start()):
            place = Place(binary, sink(here, away), rules=RULES)
            status, said = place.run("run", "--once")
            check("alertmanager: one is away, the other has it", status == 75 and len(here.active("alertname=peer")) == 1, said)
            with running(away.start()):
                status, said = place.run("run", "--once", after="+2m")
                check("alertmanager: and then both", status == 0 and len(away.active("alertname=peer")) == 1, said)
                check("alertmanager: as one alert", *same([here.active(), away.active()]))


def run(binary):
    a_life(binary)
    one_is_away(binary)


main(run)
