"""What all parts need: hostile events, a directory with a configuration, the binary, a receiver of HTTP, results."""

import contextlib
import datetime
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HOSTILE = (
    "x\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script> \u202egpj.exe <!channel> "
    "\x1b]0;owned\x07 \x9b31m \x00 `rm` https://evil.example/a https://é.example ünï"
)
RULES = """
rules:
  - id: peer
    title: Peer
    severity: high
    response: Call the user.
    when: {event_type: "*", source: CD}
    alert: {title: "{{ event.user_email }} changed {{ event.context.name }}"}
    tests:
      - {name: any, events: [{event_type: A, source: CD, user_email: u, context: {name: x}}], expect: alert}
"""
PATIENCE = 30
# Debian packages, unpacked by the stage and not installed.
DEBIAN = pathlib.Path(os.environ.get("PEERS_DEBIAN", ""))


def check(name, holds, detail=""):
    """One line for the stage's count."""
    print(f"ok {name}" if holds else f"FAILED {name} {detail!r}", flush=True)
    return holds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(holds, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps each POST with its time, path, headers (lower case), body and the status it got; answers each of the first with
    one of `answers` (status, headers), then all with `status` and `body`."""

    request_queue_size = 128

    def __init__(self, answers=(), body=b"", port=0):
        self.requests, self.answers, self.status, self.body = [], list(answers), 200, body
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Taker)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Taker(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {key.lower(): value for key, value in self.headers.items()}
        with self.server.lock:
            status, more = self.server.answers.pop(0) if self.server.answers else (self.server.status, {})
            kept = {"path": self.path, "headers": headers, "body": body, "status": status, "at": time.monotonic()}
            self.server.requests.append(kept)
        said = self.server.body if status == 200 else b""
        self.send_response(status)
        for name, value in (more | {"content-length": str(len(said))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


def waits(place, status):
    """Whether a run ended with all of its alerts kept for later."""
    return status == 75 and {row["status"] for row in place.listed()} == {"pending"}


def event(number=0, **fields):
    """One event that the rules alert on; hostile unless the fields say otherwise."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    made = {"id": f"e{number}", "event_type": "APP_UPDATE", "created_at": now, "source": "CD"}
    return made | {"user_email": HOSTILE, "context": {"name": f"{number} {HOSTILE}"}} | fields


class Place:
    """A directory with rules, events (a number of hostile ones, or a list) and a configuration, and the binary in it."""

    def __init__(self, binary, sinks, events=1, rules=RULES):
        self.binary = binary
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name)
        (self.path / "rules.yaml").write_text(rules)
        self.add(events if isinstance(events, list) else [event(number) for number in range(events)])
        self.configure(sinks)

    def configure(self, sinks):
        config = "sources: {log: {ndjson: {path: events.ndjson}}}\nrules: [rules.yaml]\nsinks:\n" + sinks
        (self.path / "vigie.yaml").write_text(config)

    def add(self, events):
        with (self.path / "events.ndjson").open("a") as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in events)

    def ledger(self):
        """What is shown of one delivery that was tried."""
        tried = next(row["delivery_id"] for row in self.listed() if row["attempts"])
        return self.run("deliveries", "show", tried)[1]

    def start(self):
        """The daemon as a process; its log is the file `log`."""
        with (self.path / "log").open("ab") as log:
            return subprocess.Popen(
                [self.binary, "run", "-c", "vigie.yaml"], cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def run(self, *words, after=""):
        """Runs a verb to its end, `after` so long (`+6m`) if it is said; gives its status and all that it said."""
        env = {"PATH": os.environ["PATH"]}
        if after:
            env |= {"LD_PRELOAD": str(next(DEBIAN.glob("usr/lib/*/faketime/libfaketime.so.1"))), "FAKETIME": after}
        done = subprocess.run(
            [self.binary, *words, "-c", "vigie.yaml"], cwd=self.path, env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * PATIENCE,
        )
        return done.returncode, done.stdout.decode()

    def listed(self):
        done = subprocess.run(
            [self.binary, "deliveries", "list", "-o", "json", "-c", "vigie.yaml"], cwd=self.path,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE,
        )
        return json.loads(done.stdout) if done.returncode == 0 else []

    def statuses(self):
        """Of each delivery that was tried: its status and the number of attempts."""
        return sorted((row["status"], row["attempts"]) for row in self.listed() if row["attempts"])

    @contextlib.contextmanager
    def daemon(self):
        with running(self.start()) as process:
            yield process


@contextlib.contextmanager
def running(process):
    """Ends a process of ours, whatever happens."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(run):
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(*sys.argv[1:])
