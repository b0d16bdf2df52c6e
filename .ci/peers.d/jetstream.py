"""A real nats-server with JetStream: each alert is stored once, whatever is sent twice, and nothing is lost meanwhile."""

import asyncio
import json
import pathlib
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading

import nats
import trustme
from nats.js.api import StreamConfig

from common import HOSTILE, PATIENCE, Place, check, free_port, main, running, until, waits

USER, PASSWORD = "vigie", "correct horse battery"
CONFIG = """
listen: 127.0.0.1:{port}
jetstream {{store_dir: "{place}/jetstream"}}
authorization {{users: [{{user: {user}, password: "{password}"}}, {{user: admin, password: admin}}]}}
"""
TLS = """
tls {{cert_file: "{place}/server.pem", key_file: "{place}/server.key"}}
"""


class Server:
    """One with users, and with TLS if that is asked for; an administrator of it makes and reads streams."""

    def __init__(self, tls=False):
        self.directory = tempfile.TemporaryDirectory()
        self.path, self.port, self.tls = pathlib.Path(self.directory.name), free_port(), None
        if tls:
            authority = trustme.CA()
            certificate = authority.issue_cert("localhost")
            certificate.cert_chain_pems[0].write_to_path(str(self.path / "server.pem"))
            certificate.private_key_pem.write_to_path(str(self.path / "server.key"))
            authority.cert_pem.write_to_path(str(self.path / "ca.pem"))
            self.tls = ssl.create_default_context(cafile=self.path / "ca.pem")
        self.configure(PASSWORD)

    def configure(self, password):
        text = CONFIG + (TLS if self.tls else "")
        (self.path / "server.conf").write_text(text.format(port=self.port, place=self.path, user=USER, password=password))

    def start(self):
        words = ["nats-server", "-c", self.path / "server.conf"]
        with (self.path / "log").open("ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not until(self.listens):
            check("nats: started", False, (self.path / "log").read_text())
        return process

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def ask(self, question):
        """Answers `await question(jetstream)`."""
        async def asked():
            client = await nats.connect(f"nats://localhost:{self.port}", user="admin", password="admin", tls=self.tls)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()
        return asyncio.run(asked())

    def make_stream(self):
        self.ask(lambda stream: stream.add_stream(StreamConfig(name="ALERTS", subjects=["vigie.>"], duplicate_window=120)))

    def stored(self):
        """Headers and bodies of what the stream holds."""
        async def all_of(stream):
            held = (await stream.stream_info("ALERTS")).state
            each = [await stream.get_msg("ALERTS", seq=seq) for seq in range(held.first_seq, held.last_seq + 1)]
            return [(one.headers, json.loads(one.data)) for one in each]
        return self.ask(all_of)

    def url(self):
        return f"{'tls' if self.tls else 'nats'}://localhost:{self.port}"


def sink(url, password=PASSWORD, more=""):
    return f'  js: {{nats: {{url: "{url}", user: {USER}, password: "{password}"{more}}}}}\n'


def stored(binary):
    server = Server()
    with running(server.start()):
        place = Place(binary, sink(server.url()), events=3)
        status, said = place.run("run", "--once")
        check("nats: no stream: the backlog is kept", waits(place, status), said)
        server.make_stream()
        status, said = place.run("run", "--once", after="+6m")
        check("nats: a stream is made: all are delivered", status == 0, said)
        kept = [(headers, body) for headers, body in server.stored() if body["rule"]["id"] == "peer"]
        check("nats: the stream holds each once", len(kept) == 3 and len({body["alert_id"] for _, body in kept}) == 3, kept)
        ids = all(headers["Nats-Msg-Id"] == body["delivery_id"] for headers, body in kept)
        check("nats: Nats-Msg-Id is the delivery's", ids, kept)
        check("nats: all of the text", all(body["event"]["user_email"] == HOSTILE for _, body in kept))


def sent_twice(binary):
    """The stream's word is held back, vigie is killed, and sends the same again after its restart."""
    server = Server()
    with running(server.start()):
        server.make_stream()
        with Between(server.port) as between:
            place = Place(binary, sink(f"nats://127.0.0.1:{between.port}"))
            process = place.start()
            held = between.held.wait(PATIENCE)
            process.kill()
            process.wait()
            check("nats: stored, and vigie does not know", held and [row["status"] for row in place.listed()] == ["pending"])
            check("nats: the stream holds it", len(server.stored()) == 1)
            between.holds = False
            with place.daemon():
                check("nats: sent again", until(lambda: place.statuses() == [("delivered", 2)]), place.listed())
            delivery = place.listed()[0]["delivery_id"]
            check("nats: the stream still holds it once", len(server.stored()) == 1, server.stored())
            _, shown = place.run("deliveries", "show", delivery)
            check("nats: the stream said that it is a copy", "acknowledged, as a copy" in shown, shown)


class Between(socketserver.ThreadingTCPServer):
    """Passes on what both say, but for what a stream acknowledges as long as it `holds`."""

    daemon_threads = True

    def __init__(self, port):
        self.holds, self.held, self.target = True, threading.Event(), port
        super().__init__(("127.0.0.1", 0), Pass)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Pass(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.target)) as target:
            threading.Thread(target=self.copy, args=(self.request, target), daemon=True).start()
            self.copy(target, self.request)

    def copy(self, source, target):
        try:
            while part := source.recv(65536):
                if self.server.holds and b'"stream":"ALERTS"' in part:
                    self.server.held.set()
                    continue
                target.sendall(part)
        except OSError:
            pass


def locked_out(binary):
    """Over TLS: a wrong password keeps the backlog until it is mended; so does a server that is not the one."""
    server = Server(tls=True)
    with running(server.start()):
        server.make_stream()
        ca = f', ca_file: "{server.path}/ca.pem"'
        place = Place(binary, sink(server.url(), "wrong horse", ca), events=3)
        status, said = place.run("run", "--once", "-vv")
        check("nats: wrong password: the backlog is kept", waits(place, status), said)
        shown = place.ledger()
        check("nats: wrong password: the ledger says so", "uthorization" in shown, shown)
        check("nats: wrong password: and not which", "wrong horse" not in said + shown, shown)
        place.configure(sink(server.url(), PASSWORD, ca))
        status, said = place.run("run", "--once", after="+6m")
        ids = {body["alert_id"] for _, body in server.stored() if body["rule"]["id"] == "peer"}
        check("nats: wrong password: mended, all are delivered", status == 0 and len(ids) == 3, said)
        status, said = Place(binary, sink(server.url())).run("run", "--once", "-vv")
        check("nats: unknown authority: nothing is said", status == 75 and PASSWORD not in said, said)


def run(binary):
    stored(binary)
    sent_twice(binary)
    locked_out(binary)


main(run)
