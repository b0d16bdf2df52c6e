"""Mail through aiosmtpd: what it parses must be what was meant, and what it refuses must be treated as it should."""

import email
import email.policy
import ssl

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from common import Place, check, free_port, main, until

USER, PASSWORD = "vigie-mailer", "correct horse/battery@staple"


class Relay:
    """Keeps mails; `answers` holds a reply for each RCPT to come by its address, and for each mail's end."""

    def __init__(self, tls=None, answers=None, endings=None, greetings=None):
        self.mails, self.sessions = [], []
        self.answers, self.endings, self.greetings = answers or {}, endings or [], greetings or []
        options = {}
        if tls:
            options = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": self.log_in}
        self.port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)

    def __enter__(self):
        self.controller.start()
        return self

    def __exit__(self, *_):
        self.controller.stop()

    def log_in(self, server, session, envelope, mechanism, data):
        good = data.login == USER.encode() and data.password == PASSWORD.encode()
        return AuthResult(success=good, handled=False)

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.greetings:
            return self.greetings.pop(0)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        waiting = self.answers.get(address, [])
        if waiting:
            return waiting.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.endings:
            return self.endings.pop(0)
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        self.mails.append((list(envelope.rcpt_tos), mail))
        self.sessions.append(session)
        return "250 taken"


def sink(url, extra="", to="[soc@example.org]"):
    return f'  mail: {{email: {{smtp: "{url}", from: "Vigie <vigie@example.org>", to: {to}{extra}}}}}\n'


def inert(text):
    bad = "\x1b\x07\x00\x9b\x7f\u202e"
    return not any(character in text for character in bad) and "://evil" not in text


def judge(name, mail, message_id=None):
    """The mail as another parser sees it."""
    known = {
        "date", "from", "to", "subject", "message-id", "in-reply-to", "references", "auto-submitted", "mime-version",
        "content-type", "x-auto-response-suppress", "x-vigie-alert-id", "x-vigie-delivery-id", "x-vigie-rule",
        "x-vigie-severity", "x-vigie-source", "x-peer", "x-mailfrom", "x-rcptto",
    }
    others = {key.lower() for key in mail.keys()} - known
    check(f"{name}: no header of the event's own", not others, others)
    check(f"{name}: no defects", not mail.defects and all(not part.defects for part in mail.walk()), mail.defects)
    expected = f"<{mail['X-Vigie-Delivery-Id']}@example.org>"
    check(f"{name}: Message-ID is the delivery's", mail["Message-ID"] == (message_id or expected), mail["Message-ID"])
    check(f"{name}: Auto-Submitted", mail["Auto-Submitted"] == "auto-generated")
    subject = str(mail["Subject"])
    check(f"{name}: subject on one line", subject.startswith("[") and "\n" not in subject and inert(subject), subject)
    check(f"{name}: two parts, text first", mail.get_content_type() == "multipart/alternative"
          and [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"])
    plain, html = (part.get_content() for part in mail.iter_parts())
    check(f"{name}: text is inert", inert(plain) and "\nBcc:" not in plain, plain)
    live = [tag for tag in ("<script", "<img", "<a ", "href=") if tag in html.lower()]
    check(f"{name}: HTML is inert", inert(html) and not live, live)
    return plain


def plain_text(binary):
    with Relay() as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        status, said = place.run("sink", "test", "mail")
        check("plain: sink test delivers", status == 0 and len(relay.mails) == 1, said)
        judge("plain: test", relay.mails[0][1])
        status, said = place.run("run", "--once")
        check("plain: run delivers", status == 0 and len(relay.mails) == 2, said)
        text = judge("plain: alert", relay.mails[1][1])
        check("plain: the text itself is there", "Bcc: victim@example" in text and "Call the user." in text, text)


def secured(binary):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with Relay(tls=context) as relay:
        url = f"smtp+starttls://localhost:{relay.port}"
        log_in = f', user: {USER}, password: "{PASSWORD}", ca_file: ca.pem'
        place = Place(binary, sink(url, log_in), events=3)
        authority.cert_pem.write_to_path(str(place.path / "ca.pem"))
        status, said = place.run("run", "--once", "-vv")
        check("STARTTLS: three alerts", status == 0 and len(relay.mails) == 3, said)
        check("STARTTLS: the channel was secured", all(session.ssl for session in relay.sessions))
        check("STARTTLS: logged in", all(session.authenticated for session in relay.sessions))
        for number, (_, mail) in enumerate(relay.mails):
            judge(f"STARTTLS: alert {number}", mail)
        check("STARTTLS: no secret in the log", PASSWORD not in said)

        other = Place(binary, sink(url, log_in.replace(PASSWORD, "wrong horse")))
        authority.cert_pem.write_to_path(str(other.path / "ca.pem"))
        status, said = other.run("sink", "test", "mail", "-vv")
        check("wrong password: refused, and not shown", status == 5 and "535" in said and "wrong horse" not in said, said)
        status, said = Place(binary, sink(url, f', user: {USER}, password: "{PASSWORD}"')).run("sink", "test", "mail")
        check("unknown authority: nothing is sent", status == 75 and "TLS failed" in said and len(relay.mails) == 3, said)


def retried(binary):
    # Busy for a moment: the same mail again, within seconds.
    with Relay(greetings=["421 4.3.2 not now", "421 4.3.2 not now"]) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        with place.daemon():
            check("421 twice: then accepted", until(lambda: len(relay.mails) == 1), (place.path / "log").read_text())
            check("421 twice: delivered", until(lambda: [row["status"] for row in place.listed()] == ["delivered"]))
        check("421 twice: three attempts", place.listed()[0]["attempts"] == 3, place.listed())

    # Greylisted at the end of DATA: the lane waits five minutes.
    with Relay(endings=["451 4.7.1 greylisted"]) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        status, said = place.run("run", "--once")
        check("451 after DATA: still waits", status == 75 and not relay.mails, said)
        check("451 after DATA: one attempt, kept", [(r["status"], r["attempts"]) for r in place.listed()] == [("pending", 1)])

    # Greylisted for one of two: only that one gets the mail again, and it is the same mail.
    late = "late@example.org"
    with Relay(answers={late: ["451 4.7.1 greylisted"]}) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}", to=f"[soc@example.org, {late}]"))
        with place.daemon():
            check("451 for one: the other has it", until(lambda: [to for to, _ in relay.mails] == [["soc@example.org"]]))
            check("451 for one: it waits", until(lambda: any(row["attempts"] == 1 for row in place.listed())))
            delivery = place.listed()[0]["delivery_id"]
            place.run("deliveries", "retry", delivery)
            check("451 for one: then accepted", until(lambda: len(relay.mails) == 2), (place.path / "log").read_text())
            done = until(lambda: [row["status"] for row in place.listed()] == ["delivered"])
            check("451 for one: delivered", done, place.listed())
        (_, first), (to, second) = relay.mails
        check("451 for one: only that one again", to == [late], to)
        check("451 for one: the same mail", first.as_bytes() == second.as_bytes())


def refused(binary):
    with Relay(answers={"soc@example.org": ["550 5.1.1 no such user"] * 9}) as relay:
        place = Place(binary, sink(f"smtp://127.0.0.1:{relay.port}"))
        status, said = place.run("run", "--once")
        rows = [row for row in place.listed() if row["attempts"]]
        check("550: a dead letter after one attempt", all((r["status"], r["attempts"]) == ("dead", 1) for r in rows) and rows, rows)
        check("550: nothing was taken", not relay.mails)
        status, shown = place.run("deliveries", "show", rows[-1]["delivery_id"])
        check("550: the ledger says why", "550" in shown and "no such user" in shown, shown)
        relay.answers.clear()
        place.run("deliveries", "replay", "--failed", "--since", "1h", "--sink", "mail")
        with place.daemon():
            check("550: replayed after it was mended", until(lambda: len(relay.mails) >= 1))


def run(binary):
    plain_text(binary)
    secured(binary)
    retried(binary)
    refused(binary)


main(run)
